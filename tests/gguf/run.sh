#!/bin/sh
# The `gguf` stage: GGUF files that others read and write, llama.cpp's activations, and a real model
# corrected from them (see the test_*.py files).
#
#     tests/gguf/run.sh [NAME...]                    only suites whose names contain one of these
#     tests/gguf/run.sh --whole WORK [NAME...]       every block of the model and more files of W~: an hour on two cores
#                                                    and 10 GB in WORK, which stay there, so that a
#                                                    run that was cut goes on
#
# Installs the pinned packages when they are not there (setup.sh). QERA_DAEMON names a binary to
# test instead of the one built here; QERA_SMOLLM2 a folder with text for the whole form
# (tests/smollm2/source.sh makes one).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=$("$here/setup.sh")
if [ -z "${QERA_DAEMON:-}" ]; then
    cargo build --quiet --release --locked --manifest-path "$root/Cargo.toml" -p qera-daemon
    QERA_DAEMON=${CARGO_TARGET_DIR:-$root/target}/release/qera-daemon
fi
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=2 PYTHONDONTWRITEBYTECODE=1
exec $python "$here/run.py" --daemon "$QERA_DAEMON" "$@"

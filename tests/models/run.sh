#!/bin/sh
# The `models` stage: real classes of Transformers with small random weights, each recorded,
# corrected in one batch run and loaded as the generation's README says (see the test_*.py files).
#
#     tests/models/run.sh [NAME...]      only suites whose names contain one of these
#
# QERA_TEST_TIER=long takes every listed class, and some that no list knows: 26 decoders, 5
# encoders, 7 encoder-decoders.
#
# Installs what the `peft` stage does (tests/peft/setup.sh). QERA_DAEMON names a binary to test
# instead of the one built here.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=$("$here/../peft/setup.sh")
if [ -z "${QERA_DAEMON:-}" ]; then
    cargo build --quiet --release --locked --manifest-path "$root/Cargo.toml" -p qera-daemon
    QERA_DAEMON=${CARGO_TARGET_DIR:-$root/target}/release/qera-daemon
fi
export OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1
exec $python "$here/run.py" --daemon "$QERA_DAEMON" "$@"

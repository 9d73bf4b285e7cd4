#!/bin/sh
# The `peft` stage: what the daemon publishes, loaded and judged by PEFT (see the test_*.py files).
#
#     tests/peft/run.sh [--write-table | --write-picture]
#
# Installs Debian's python3-torch and the pinned packages when they are not there (setup.sh).
# QERA_DAEMON names a binary to test instead of the one built here.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=$("$here/setup.sh")
if [ -z "${QERA_DAEMON:-}" ]; then
    cargo build --quiet --release --locked --manifest-path "$root/Cargo.toml" -p qera-daemon
    QERA_DAEMON=${CARGO_TARGET_DIR:-$root/target}/release/qera-daemon
fi
export OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1
exec $python "$here/run.py" --daemon "$QERA_DAEMON" "$@"

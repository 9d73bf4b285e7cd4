#!/bin/sh
# The whole-model measurement: SmolLM2-135M, recorded by the tap, quantized and corrected by the
# daemon, judged by the perplexity of text that was not recorded (forms.py: what runs, and the
# bounds). No stage of the gate: a run takes half an hour on two cores and 9 GB of disk.
#
#     QERA_SMOLLM2=FOLDER tests/smollm2/run.sh [FORM...]     without a form all of them
#
#     QERA_SMOLLM2        holds model/, calibration.txt and evaluation.txt; source.sh FOLDER makes them
#     QERA_SMOLLM2_WORK   where recordings and results go, and stay for the next run (default: target/smollm2)
#     QERA_THREADS        threads of torch (default 2)
#     QERA_DAEMON         a binary to measure instead of the one built here
#
# What is recorded is not recorded again. What is solved is solved again only by another binary,
# what is evaluated evaluated again only where the published bytes are others; so a run that was cut
# goes on.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=$("$here/../peft/setup.sh")
if [ -z "${QERA_DAEMON:-}" ]; then
    cargo build --quiet --release --locked --manifest-path "$root/Cargo.toml" -p qera-daemon
    QERA_DAEMON=${CARGO_TARGET_DIR:-$root/target}/release/qera-daemon
fi
export OMP_NUM_THREADS="${QERA_THREADS:-2}" PYTHONDONTWRITEBYTECODE=1
exec $python "$here/run.py" --daemon "$QERA_DAEMON" --source "${QERA_SMOLLM2:-}" \
    --work "${QERA_SMOLLM2_WORK:-$root/target/smollm2}" "$@"

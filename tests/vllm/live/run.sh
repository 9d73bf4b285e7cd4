#!/bin/sh
# The `vllm` stage: a real vLLM server on CPUs, its own traffic recorded by the tap, corrected by a
# live daemon and handed back (see the test_*.py files). Outside of the gate: 5.5 GB of packages,
# some eleven minutes on two idle cores, 10 GB in WORK.
#
#     tests/vllm/live/run.sh [NAME...]      only the suites of these names: base rows swaps live float
#                                         overhead commands (without any: all but swaps and
#                                         commands, with QERA_TEST_TIER=long all)
#
#     QERA_VLLM_VENV   vLLM's virtual environment (setup.sh makes it)
#     QERA_SMOLLM2     a folder with model/, calibration.txt and evaluation.txt (default: made in WORK/source by
#                      tests/smollm2/source.sh)
#     QERA_VLLM_WORK   WORK (default: target/vllm); the batch job there is not done again by the same binary
#     QERA_DAEMON      a binary to test instead of the one built here
#     QERA_THREADS     threads of torch (default 2)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
python=$("$here/setup.sh")
work=${QERA_VLLM_WORK:-$root/target/vllm}
mkdir -p "$work"
if [ -z "${QERA_SMOLLM2:-}" ]; then
    QERA_SMOLLM2=$work/source
    "$root/tests/smollm2/source.sh" "$QERA_SMOLLM2"
fi
if [ -z "${QERA_DAEMON:-}" ]; then
    cargo build --quiet --release --locked --manifest-path "$root/Cargo.toml" -p qera-daemon
    QERA_DAEMON=${CARGO_TARGET_DIR:-$root/target}/release/qera-daemon
fi
export OMP_NUM_THREADS="${QERA_THREADS:-2}" PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1
exec "$python" "$here/run.py" --daemon "$QERA_DAEMON" --source "$QERA_SMOLLM2" --work "$work" "$@"

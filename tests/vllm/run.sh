#!/bin/sh
# vLLM: the stages `vllm_tap` and `vllm`.
#
#     tests/vllm/run.sh tap [NAME...]    the tap's logic on stand-ins for vLLM's classes, without vLLM; only suites whose
#                                        names contain one of these. Installs what the `peft` stage
#                                        does.
#     tests/vllm/run.sh live ...         a real server: see live/run.sh
#
# QERA_DAEMON names a binary to test instead of the one built here.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
form=${1:-}
[ "$#" -eq 0 ] || shift
case $form in
live) exec "$here/live/run.sh" "$@" ;;
tap) ;;
*)
    echo "run.sh: 'tap' or 'live', not '$form'" >&2
    exit 2
    ;;
esac
python=$("$here/../peft/setup.sh")
if [ -z "${QERA_DAEMON:-}" ]; then
    cargo build --quiet --release --locked --manifest-path "$root/Cargo.toml" -p qera-daemon
    QERA_DAEMON=${CARGO_TARGET_DIR:-$root/target}/release/qera-daemon
fi
export OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1
exec $python "$here/tap/run.py" --daemon "$QERA_DAEMON" "$@"

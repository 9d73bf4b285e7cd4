#!/usr/bin/env bash
# The `cuda` stage: what can be said of the offload on a machine without a GPU.
#
#     ci/cuda/run.sh               everything
#     ci/cuda/run.sh --write-ptx   makes the shipped PTX anew from the kernels
#
# Kernels: compiled by NVIDIA's own compiler, equal to what is shipped, assembled for three devices
# without spills. Then the crate's tests on the CPU stand-in (standin/machine.h), in several orders
# of late work, with any call failing, the daemon's, and the script for a real device. No PTX is
# executed: this is no pass on a GPU.
# Installs pinned packages when they are not there, in .venv-cuda, which git ignores.
# QERA_TEST_TIER=long: every call fails once, in place of every seventh.
set -euo pipefail
cd "$(dirname "$0")/../.."

python=$(tests/gguf/setup.sh "$PWD/ci/cuda/requirements.txt" "$PWD/.venv-cuda")
if [ "${1:-}" = --write-ptx ]; then
    exec $python ci/cuda/kernels.py .venv-cuda --write
fi
kernels=$($python ci/cuda/kernels.py .venv-cuda | tee /dev/stderr | tail -1)

standin=${CARGO_TARGET_DIR:-$PWD/target}/cuda-standin
ci/cuda/standin/build.sh "$standin"
cargo test --quiet --release --locked -p qera-gpu --features stand-in --test standin --no-run
orders=0
for seed in 0 1 2 3; do # 0: work is done when it is asked for
    # The failures in one order only: each is a process.
    LD_LIBRARY_PATH=$standin QERA_STANDIN_SEED=$seed \
        cargo test --quiet --release --locked -p qera-gpu --features stand-in --test standin -- \
        $([ "$seed" = 1 ] || echo --skip failures::any)
    orders=$((orders + 1))
done
# The whole daemon beside it.
QERA_STANDIN=$standin \
    cargo test --quiet --release --locked -p qera-tests --features stand-in --test cuda
# The script for a real device, with the stand-in in the place of one: its figures mean nothing.
check=${CARGO_TARGET_DIR:-$PWD/target}/cuda-check
benches/cuda/run --build "$check"
refused() { # ARGUMENT...
    local status=0
    "$check/run" "$@" >/dev/null 2>"$check/said" || status=$?
    if [ "$status" -ne 2 ] || ! grep -q usage "$check/said"; then
        echo "benches/cuda/run $*: not refused by a usage error" >&2
        exit 1
    fi
}
refused --json
refused --json ''
refused --json "$check" 96
refused 0
refused many
refused 96 ''
refused 96 --json "$check/out.json"
refused --build one two
refused --build ''
LD_LIBRARY_PATH=$standin "$check/run" --json "$check/out.json" 96
python3 benches/cuda/check_json.py "$check/out.json"
echo "cuda: $kernels; on the CPU stand-in, not on a GPU: orders=$orders passed"

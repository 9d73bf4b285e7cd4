#!/bin/sh
# The `engines` stage: adapters and bases in the formats of llama.cpp, MLX and PEFT, loaded by these
# programs; a real model, recorded in llama.cpp, corrected, and judged there.
#
#     tests/engines/run.sh [NAME...]          only suites whose names contain one of these
#     tests/engines/run.sh --long [NAME...]   the tables of docs/llama-cpp.md instead; also by QERA_TEST_TIER=long
#
#     QERA_THREADS        of llama.cpp (default 2); 1 where other programs have the cores: its threads wait by turning
#     QERA_DAEMON         a binary to test instead of the one built here
#     QERA_SMOLLM2        the long form's text: calibration.txt and evaluation.txt (tests/smollm2/source.sh makes them)
#     QERA_ENGINES_WORK   where the long form's work stays (default: target/engines; 12 GB)
#
# The long form takes about an hour on two cores. What is recorded, solved and judged in its folder
# is not computed again, so a run that was cut goes on; another binary solves again, and only other
# bytes are judged again.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=$("$here/../gguf/setup.sh")
QERA_PEFT_PYTHON=$("$here/../peft/setup.sh")
QERA_MLX_PYTHON=$("$here/../gguf/setup.sh" "$here/requirements.txt" "$root/.venv-mlx")
QERA_MLX_PYTHON="env TRANSFORMERS_VERBOSITY=error ${QERA_MLX_PYTHON#env }" # that torch is too old for it is no matter
export QERA_PEFT_PYTHON QERA_MLX_PYTHON
if [ -z "${QERA_DAEMON:-}" ]; then
    cargo build --quiet --release --locked --manifest-path "$root/Cargo.toml" -p qera-daemon
    QERA_DAEMON=${CARGO_TARGET_DIR:-$root/target}/release/qera-daemon
fi
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=2 PYTHONDONTWRITEBYTECODE=1
[ "${QERA_TEST_TIER:-}" != long ] || set -- --long "$@"
exec $python "$here/run.py" --daemon "$QERA_DAEMON" --work "${QERA_ENGINES_WORK:-$root/target/engines}" "$@"

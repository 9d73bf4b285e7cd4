#!/usr/bin/env bash
# The whole daemon on 64-bit ARM, emulated, against this machine's: all 28 layers and 4,096 tokens
# of the fixture. What the emulated daemon published is replayed by this machine's (verify
# --replay), and the errors of each layer are compared.
#
#     ci/aarch64/daemon.sh DAEMON WORK EMULATOR     DAEMON: built for ARM; WORK: is made anew
set -euo pipefail
cd "$(dirname "$0")/../.."
daemon=$1 work=$2 emulator=$3

glibc=$(aarch64-linux-gnu-objdump -T "$daemon" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -1)
echo "aarch64: the program needs ${glibc/_/ }"

run() { # NAME COMMAND...
    "${@:2}" >"$work/$1.log" 2>&1 || {
        tail -20 "$work/$1.log" >&2
        exit 1
    }
}
rm -rf "$work"
mkdir -p "$work"
fixture=(--watch fixtures/activations --checkpoint fixtures/model --once --quantizer mxint3 --rank 8
    --emit-base)
echo "-- the fixture, emulated and here"
# shellcheck disable=SC2086 # words
run arm $emulator "$daemon" "${fixture[@]}" --out "$work/arm"
cargo build --quiet --release --locked -p qera-daemon
here=${CARGO_TARGET_DIR:-target}/release/qera-daemon
run here "$here" "${fixture[@]}" --kernel portable --out "$work/here"
"$here" verify --adapter "$work/arm/current" --checkpoint fixtures/model --replay fixtures/activations \
    --json >"$work/replayed.json" || {
    cat "$work/replayed.json" >&2
    exit 1
}
python3 ci/aarch64/agreement.py "$work"

#!/usr/bin/env bash
# The `embedded` stage: firmware/ on this machine, on an emulated Cortex-M4F (QEMU's mps2-an386) and
# on an emulated 32-bit RISC-V without floating point (virt, rv32imac).
#   1. It is built with a core of its own (build-std = ["core"]): anything of alloc or std would be
#      error E0463.
#   2. Every bit of A, B, the errors and what was sent over the serial line has to be this
#   machine's:
#      the firmware knows their digest, and the lines are compared byte by byte.
#   3. RAM (buffer and stack), flash, and instructions a row and a solve (-icount) are printed, and
#   held
#      to limits.
#   4. What came over the line is cut into shards, which qera-daemon folds (fold.py).
# Ends with the line "embedded: targets=... flash=... ram=... stack=... bits=equal".
#
# Needs Debian 12 on x86-64 as root: rustc-web and rust-web-src (of bookworm-security); QEMU is
# unpacked into target/cross, as its package would replace a newer qemu-utils.
set -euo pipefail
cd "$(dirname "$0")/../.."
. ci/debian.sh

flash_max=$((160 * 1024)) # without the data
declare -A ram_max=([exact]=$((128 * 1024)) [sketch]=$((96 * 1024)))
targets=(thumbv7em-none-eabihf riscv32imac-unknown-none-elf)

cross=$PWD/target/cross
debian_install rustc-web rust-web-src
debian_unpack "$cross/qemu" amd64 qemu-system-arm qemu-system-misc
/usr/bin/rustc --version
libraries=$(find "$cross/qemu/usr/lib" -name '*.so*' -printf '%h\n' | sort -u | paste -sd :)
linker=$(rustc --print sysroot)/lib/rustlib/x86_64-unknown-linux-gnu/bin/rust-lld
work=$cross/firmware
mkdir -p "$work"

own_target=${CARGO_TARGET_DIR:-$PWD/target}
export CARGO_TARGET_DIR=$cross/target-firmware
firmware() { # form, then cargo's command and arguments
    local features=()
    [ "$1" = exact ] || features=(--features "$1")
    cargo "$2" -q --release --locked --manifest-path firmware/Cargo.toml "${features[@]}" "${@:3}"
}

# Builds a form for a target and runs it emulated; its output goes to FORM.TARGET.log, its line
# beside.
emulate() {
    local form=$1 target=$2 script cpu machine status=0
    local name=$work/$form.$target program=$CARGO_TARGET_DIR/$target/release/qera-firmware
    case $target in
        thumbv7em*) script=cortex-m4.ld cpu=cortex-m4 machine=(qemu-system-arm -M mps2-an386) ;;
        riscv32*) script=riscv32.ld cpu=generic-rv32 machine=(qemu-system-riscv32 -M virt -bios none -m 128M) ;;
    esac
    QERA_EXPECTED=$(sed -n 's/^device: digest=//p' "$work/$form.host.log") RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 \
        CARGO_ENCODED_RUSTFLAGS=$(printf '%s\x1f' "-Clinker=$linker" "-Clinker-flavor=ld.lld" "-Ctarget-cpu=$cpu")"-Clink-arg=-T$PWD/firmware/link/$script" \
        firmware "$form" build --target "$target" -Zbuild-std=core -Zbuild-std-features=compiler-builtins-mem
    LD_LIBRARY_PATH=$libraries QEMU_MODULE_DIR=$(find "$cross/qemu/usr/lib" -type d -name qemu | head -1) \
        timeout 600 "$cross/qemu/usr/bin/${machine[0]}" "${machine[@]:1}" -L "$cross/qemu/usr/share/qemu" \
        -display none -monitor none -serial "file:$name.line" -icount shift=0 \
        -semihosting-config enable=on,target=native -kernel "$program" >"$name.log" 2>&1 || status=$?
    cat "$name.log"
    [ "$status" -eq 0 ] || { echo "embedded: $form on $target ended with status $status" >&2; return 1; }
    grep -q '^device: bits=equal' "$name.log"
    cmp "$work/$form.host.line" "$name.line"
    readelf -SW "$program" | python3 ci/embedded/sections.py >"$name.size"
}

data=$(stat -c %s firmware/data/weight.bin firmware/data/rows.bin | awk '{ s += $1 } END { print s }')
flash_most=0 ram_most=0 stack_most=0
for form in exact sketch; do
    echo "-- $form"
    QERA_LINE=$work/$form.host.line firmware "$form" run >"$work/$form.host.log"
    cat "$work/$form.host.log"
    for target in "${targets[@]}"; do
        echo "-- $form, $target"
        emulate "$form" "$target"
        read -r loaded written <"$work/$form.$target.size"
        stack=$(sed -n 's/^device: stack=\([0-9]*\).*/\1/p' "$work/$form.$target.log")
        flash=$((loaded - data)) ram=$((written + stack))
        echo "embedded: $form, $target: flash $flash and $data of data, ram $ram of which stack $stack"
        if [ "$flash" -gt "$flash_max" ] || [ "$ram" -gt "${ram_max[$form]}" ]; then
            echo "embedded: above $flash_max of flash or ${ram_max[$form]} of RAM" >&2
            exit 1
        fi
        flash_most=$((flash > flash_most ? flash : flash_most))
        ram_most=$((ram > ram_most ? ram : ram_most))
        stack_most=$((stack > stack_most ? stack : stack_most))
    done
done

echo "-- what came over the line, folded"
CARGO_TARGET_DIR=$own_target cargo build -q --release --locked -p qera-daemon
python3 ci/embedded/fold.py "$own_target/release/qera-daemon" "$work/exact.host.line" "$work/fold"
echo "embedded: targets=cortex-m4f,riscv32imac flash=$flash_most ram=$ram_most stack=$stack_most bits=equal"

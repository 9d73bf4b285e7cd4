#!/usr/bin/env bash
# The `aarch64` stage: what is special to 64-bit ARM, built for it and run under emulation.
#   1. The loops of `neon` against the same sums in f64, on a CPU without bf16 products (Cortex-A76,
#      that of a Raspberry Pi 5) and on one with all that the emulator knows.
#   2. How many instructions the innermost loops take for 32 multiply-adds: at most 11 in f32.
#   3. The tests of qera-core.
#   4. With QERA_TEST_TIER=long the whole daemon (ci/aarch64/daemon.sh).
# Ends with the line "aarch64: kernels=... passed".
#
# Needs Debian 12 on x86-64 as root: rustc-web (the compiler, of bookworm-security), gcc and glibc
# for ARM, qemu-user-static; the standard library for ARM is unpacked into target/cross.
set -euo pipefail
cd "$(dirname "$0")/../.."
. ci/debian.sh

target=aarch64-unknown-linux-gnu
cross=$PWD/target/cross
debian_install rustc-web gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static
debian_unpack "$cross/arm64" arm64 libstd-rust-web-dev

# A sysroot with the standard libraries of both: build scripts run here.
sysroot=$cross/sysroot
own=$(/usr/bin/rustc --print sysroot)/lib/rustlib
mkdir -p "$sysroot/lib/rustlib"
ln -sfn "$own/x86_64-unknown-linux-gnu" "$sysroot/lib/rustlib/x86_64-unknown-linux-gnu"
ln -sfn "$(cd "$cross/arm64/usr/lib/rustlib/$target" && pwd)" "$sysroot/lib/rustlib/$target"
cat >"$cross/rustc" <<END
#!/bin/sh
exec /usr/bin/rustc --sysroot "$sysroot" "\$@"
END
chmod +x "$cross/rustc"
"$cross/rustc" --version

emulator() { # CPU
    echo "qemu-aarch64-static -L /usr/aarch64-linux-gnu -cpu $1"
}
own_target=${CARGO_TARGET_DIR:-$PWD/target}
export CARGO_TARGET_DIR=$cross/target CARGO_PROFILE_RELEASE_DEBUG=false
cargo_arm() {
    RUSTC=$cross/rustc CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=$(emulator cortex-a76) \
        cargo "$@" --release --locked --target "$target"
}

echo "-- the loops, without bf16 products and with them"
"$cross/rustc" --edition 2024 -O --target "$target" -C linker=aarch64-linux-gnu-gcc \
    ci/aarch64/loops/main.rs -o "$cross/loops"
for cpu in cortex-a76 max; do
    $(emulator "$cpu") "$cross/loops"
done
python3 ci/aarch64/innermost.py "$cross/loops"

echo "-- the core"
cargo_arm test -p qera-core --lib

if [ "${QERA_TEST_TIER:-}" = long ]; then
    cargo_arm build -p qera-daemon
    CARGO_TARGET_DIR=$own_target ci/aarch64/daemon.sh "$cross/target/$target/release/qera-daemon" "$cross/fixture" \
        "$(emulator cortex-a76)"
fi

echo "aarch64: kernels=neon cpus=cortex-a76,max passed"

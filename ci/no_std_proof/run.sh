#!/usr/bin/env bash
# Builds the proof, looks at its symbols, runs it.
#   1. It links with no start files, no libc and no std: whatever qera-core needed from them would
#   be undefined.
#   2. Its symbol table has nothing undefined, and nothing of alloc or std.
#   3. It runs, and every routine gives the right result.
set -euo pipefail
cd "$(dirname "$0")"

# --target keeps the flags away from build scripts, which are ordinary programs.
host=$(rustc -vV | sed -n 's/^host: //p')
target_dir=${NO_STD_TARGET_DIR:-target}
RUSTFLAGS="-C relocation-model=static -C target-feature=+crt-static -C link-arg=-nostartfiles -C link-arg=-nostdlib -C link-arg=-static" \
    cargo build --release --locked --target "$host" --target-dir "$target_dir"
program=$target_dir/$host/release/no_std_proof

undefined=$(nm --undefined-only "$program")
if [ -n "$undefined" ]; then
    echo "no_std: undefined symbols:" >&2
    echo "$undefined" >&2
    exit 1
fi
symbols=$(nm --demangle "$program")
# "std::" and "alloc::" as whole first segments: core::alloc is core. The allocator's entry points
# are __rust_alloc and kin.
foreign=$(grep -E '(^|[^:[:alnum:]_])(std|alloc)::|__rust_(alloc|dealloc|realloc)|__r(dl|g)_|\bmalloc\b' <<<"$symbols" || true)
if [ -n "$foreign" ]; then
    echo "no_std: symbols of alloc or std:" >&2
    echo "$foreign" >&2
    exit 1
fi
if ! grep -q 'qera_core::' <<<"$symbols"; then
    echo "no_std: the program holds no code of qera-core, so it proves nothing" >&2
    exit 1
fi
status=0
"$program" || status=$?
if [ "$status" -ne 0 ]; then
    echo "no_std: the program ended with status $status (see src/main.rs)" >&2
    exit 1
fi
echo "no_std: $(stat -c %s "$program") bytes, no undefined symbol, no alloc, no std; every check passed"

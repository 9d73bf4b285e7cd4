#!/usr/bin/env bash
# The `instructions` stage: how many instructions each case of src/bin/instructions.rs takes,
# counted by callgrind, against recorded.txt. A count is the same on a busy machine, so that a few
# percent more work in a kernel are seen.
#
#     benches/instructions/run.sh [--record]
#
# Fails when a count is more than 3 % above the recorded one, when a case is not recorded, or a
# recorded one is gone. --record writes recorded.txt anew: when the change is wanted, or for another
# compiler. Needs valgrind, which it installs as root on Debian, and a CPU with AVX2.
set -euo pipefail
cd "$(dirname "$0")"
recorded=$PWD/recorded.txt
tolerance=3 # percent

case ${1:-} in
    "" | --record) ;;
    *)
        echo "instructions: the only argument is --record" >&2
        exit 2
        ;;
esac
if ! command -v valgrind >/dev/null; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "instructions: there is no valgrind, and only root on Debian can install it: apt-get install valgrind" >&2
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >&2
    apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 valgrind >&2
fi

cargo build --quiet --release --locked --manifest-path ../Cargo.toml --bin instructions
program=${CARGO_TARGET_DIR:-$PWD/../../target}/release/instructions
rustc=$(cd ../.. && rustc --version)
host=$(cd ../.. && rustc -vV | sed -n 's/^host: //p')

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
while read -r name; do
    # An empty environment: its size moves the stack.
    if ! env -i PATH="$PATH" valgrind --tool=callgrind --callgrind-out-file=/dev/null \
        --toggle-collect='instructions::counted*' "$program" "$name" >"$work/log" 2>&1; then
        cat "$work/log" >&2
        echo "instructions: $name failed" >&2
        exit 1
    fi
    count=$(sed -n 's/^==[0-9]*== Collected : \([0-9]*\)$/\1/p' "$work/log")
    if [ "${count:-0}" -eq 0 ]; then
        echo "instructions: nothing was counted for $name: does callgrind know the function 'instructions::counted'?" >&2
        exit 1
    fi
    printf '%s %s\n' "$name" "$count"
done < <("$program" --list) >"$work/counts"
[ -s "$work/counts" ] || { echo "instructions: there are no cases" >&2; exit 1; }

if [ "${1:-}" = --record ]; then
    {
        echo "# Instructions of each case, by valgrind --tool=callgrind. Written by run.sh --record, not by hand."
        echo "# Another compiler or C library may shift them. Caches of other sizes, by which faer cuts its products, and another"
        echo "# path of the program move the solves by less than 0.1 %, nothing else moves them: they are the same every time."
        echo "# rustc: $rustc"
        echo "# host: $host"
        cat "$work/counts"
    } >"$recorded"
    cat "$recorded"
    exit 0
fi

note=
for line in "rustc: $rustc" "host: $host"; do
    if ! grep -qxF "# $line" "$recorded"; then
        note="recorded with $(sed -n "s/^# ${line%%:*}: //p" "$recorded"), counted with ${line#*: }"
        echo "instructions: $note"
    fi
done
status=0
awk -v tolerance="$tolerance" '
    FNR == NR { if ($0 !~ /^#/) recorded[$1] = $2; next }
    {
        if (!($1 in recorded)) { printf "%-28s %12d  not recorded\n", $1, $2; bad = 1; next }
        change = 100 * ($2 / recorded[$1] - 1)
        verdict = ""
        if (change > tolerance) { verdict = "  TOO MANY"; bad = 1 }
        if (change < -tolerance) { verdict = "  fewer: record anew, so that it stays so" }
        printf "%-28s %12d  recorded %12d  %+.2f %%%s\n", $1, $2, recorded[$1], change, verdict
        delete recorded[$1]
    }
    END {
        for (name in recorded) { printf "%-28s recorded, but no case any more\n", name; bad = 1 }
        exit bad
    }' "$recorded" "$work/counts" || status=$?
if [ "$status" -ne 0 ]; then
    echo "instructions: what a case costs has grown by more than $tolerance %, or the cases have changed." >&2
    [ -z "$note" ] || echo "instructions: $note" >&2
    echo "instructions: where that is wanted, benches/instructions/run.sh --record, and say why in the commit." >&2
    exit 1
fi

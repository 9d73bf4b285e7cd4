#!/usr/bin/env bash
# The gate: ./ci.sh runs every stage, ./ci.sh STAGE... those named. Stops at the first that fails.
# What each stage is for, and what it needs: CONTRIBUTING.md.
set -euo pipefail
cd "$(dirname "$0")"

stages=(fmt clippy doc test test_long fuzz crash no_std embedded aarch64 instructions cuda peft models gguf engines vllm_tap report)

stage_fmt() {
    cargo fmt --all --check
    cargo fmt --manifest-path ci/no_std_proof/Cargo.toml --check
    cargo fmt --manifest-path firmware/Cargo.toml --check
    commit_subjects
}

# Subjects of commits have at most 72 characters. Those up to this commit are older than the rule.
subjects_since=5da5b53f7f00
commit_subjects() {
    local subjects wide
    if ! git cat-file -e "$subjects_since^{commit}" 2>/dev/null; then
        echo "ci.sh: commit subjects are not checked: this is no git checkout that holds $subjects_since" >&2
        return 0
    fi
    subjects=$(git log --format='%h %s' "$subjects_since..HEAD")
    wide=$(awk '{ subject = substr($0, index($0, " ") + 1) } length(subject) > 72' <<<"$subjects")
    [ -z "$wide" ] || {
        printf 'ci.sh: commit subjects of more than 72 characters:\n%s\n' "$wide" >&2
        return 1
    }
}

stage_clippy() {
    cargo clippy --workspace --all-targets --features qera-gpu/stand-in --release --locked -- -D warnings
}

stage_doc() {
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
}

stage_test() { # the command of README.md
    cargo test --workspace --release
}

# Every test binary that has a long form: its sources name the module `tier`. That of tests/cuda is
# of the stage `cuda`.
stage_test_long() {
    local binaries
    mapfile -t binaries < <(grep -rl 'tier::' tests/tests | cut -d / -f 3 | sed 's/\.rs$//' | grep -vx cuda | sort -u)
    [ "${#binaries[@]}" -gt 0 ] || return 1 # without a name cargo would run all of them
    QERA_TEST_TIER=long cargo test -p qera-tests --release "${binaries[@]/#/--test=}"
}

# Inputs for each parser and each file of the state. QERA_FUZZ=N of each; QERA_FUZZ_LEDGER=FILE goes
# on behind what that file counts, and adds up there. An input of a few kilobytes that makes a
# parser ask for gigabytes meets the limit of the address space.
stage_fuzz() {
    local status=0 log
    log=$(mktemp)
    cargo test --workspace --release --lib --no-run || status=$?
    if [ "$status" -eq 0 ]; then
        (
            ulimit -v 8388608
            QERA_FUZZ="${QERA_FUZZ:-1000000}" \
                cargo test --workspace --release --lib trials::fuzz -- --nocapture
        ) | tee "$log" || status=$?
        grep '^fuzz:' "$log" || status=1
    fi
    rm -f "$log"
    return "$status"
}

# Whole runs on a disk in memory that is cut off, fails or loses power at any call: QERA_CUTS=N
# histories. Then the process beside a disk that fails and under signals: QERA_CRASH=N faults, and a
# folder of signals for each twelve of them. QERA_CRASH_LEDGER=FILE goes on behind what that file
# counts, and adds up there.
stage_crash() {
    local status=0 own
    own=$(mktemp)
    local -x QERA_CRASH_LEDGER="${QERA_CRASH_LEDGER:-$own}"
    QERA_CUTS="${QERA_CUTS:-8000}" \
        cargo test --workspace --release --lib trials::simulation || status=$?
    QERA_CRASH="${QERA_CRASH:-420}" \
        cargo test -p qera-tests --release --test faults -- --nocapture || status=$?
    awk '{ runs += $3; kills += $4; faults += $5; lost += $6; double += $7 }
        END { printf "crash: runs=%d kills=%d faults=%d lost=%d double=%d\n",
              runs, kills, faults, lost, double }' "$QERA_CRASH_LEDGER" || status=1
    rm -f "$own"
    return "$status"
}

stage_no_std() {
    ci/no_std_proof/run.sh
}

stage_embedded() {
    ci/embedded/run.sh
}

stage_instructions() {
    benches/instructions/run.sh
}

stage_cuda() {
    ci/cuda/run.sh
}

stage_aarch64() {
    ci/aarch64/run.sh
}

stage_peft() {
    tests/peft/run.sh
}

stage_models() {
    tests/models/run.sh
}

stage_gguf() {
    tests/gguf/run.sh
}

stage_engines() {
    tests/engines/run.sh
}

stage_vllm_tap() {
    tests/vllm/run.sh tap
}

stage_report() {
    tests/report/run.sh
}

stage_vllm() { # outside of the gate: 5.5 GB of packages, and some eleven minutes
    tests/vllm/live/run.sh
}

if [ "${1:-}" = --list ]; then
    printf '%s\n' "${stages[@]}"
    exit 0
fi
[ "$#" -gt 0 ] || set -- "${stages[@]}"
for stage in "$@"; do
    if [ "$(type -t "stage_$stage")" != function ]; then
        echo "ci.sh: no stage '$stage'; stages: ${stages[*]}" >&2
        exit 2
    fi
done
for stage in "$@"; do
    echo "== stage $stage"
    "stage_$stage"
done

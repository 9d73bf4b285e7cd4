#!/bin/sh
# The `report` stage: pages of `qera-daemon report`, opened in headless Chromium (test_page.py).
#
#     tests/report/run.sh                   the stage
#     tests/report/run.sh --write-picture   docs/report.png and docs/report-dark.png instead
#
# Installs Debian's chromium as root where there is none, and playwright into .venv-report, which
# git ignores. QERA_DAEMON names a binary to test instead of the one built here.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
if ! command -v chromium >/dev/null; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "run.sh: there is no chromium, and only root on Debian can install it: apt-get install chromium" >&2
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >&2
    apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 chromium fonts-dejavu-core >&2
fi
python=$("$here/../gguf/setup.sh" "$here/requirements.txt" "$root/.venv-report")
if [ -z "${QERA_DAEMON:-}" ]; then
    cargo build --quiet --release --locked --manifest-path "$root/Cargo.toml" -p qera-daemon
    QERA_DAEMON=${CARGO_TARGET_DIR:-$root/target}/release/qera-daemon
fi
export PYTHONDONTWRITEBYTECODE=1
exec $python "$here/run.py" --daemon "$QERA_DAEMON" "$@"

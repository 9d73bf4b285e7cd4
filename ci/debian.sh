# Sourced by stages that need Debian's packages.
#     debian_install PACKAGE...              installs what is missing, as root
#     debian_unpack FOLDER ARCH PACKAGE...   unpacks packages of an architecture into a folder, and
#                                            leaves the machine as it is; does nothing where they
#                                            are
# Packages of the architecture `amd64` are unpacked with what they depend on and the machine lacks.

debian_refuse() {
    echo "$1: it takes Debian, and root for what is installed" >&2
    return 1
}

debian_install() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        debian_refuse "missing: ${missing[*]}"
        return 1
    fi
    echo "installing ${missing[*]}" >&2
    DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        -o DPkg::Lock::Timeout=300 "${missing[@]}" >&2
}

debian_unpack() {
    local folder=$1 arch=$2 names=("${@:3}") done work all package
    done=$folder/.unpacked-$(printf '%s\n' "$arch" "${names[@]}" | cksum | cut -d ' ' -f 1)
    [ ! -e "$done" ] || return 0
    command -v apt-get >/dev/null || { debian_refuse "unpacking ${names[*]}"; return 1; }
    echo "unpacking ${names[*]} ($arch)" >&2
    work=$(mktemp -d)
    mkdir -p "$folder" "$work/lists/partial" "$work/archives/partial"
    # Lists of this architecture alone, in a folder of ours; the suites and keys are the machine's.
    local apt=(apt-get -qq -o APT::Sandbox::User=root -o APT::Architecture="$arch" -o APT::Architectures="$arch"
        -o Dir::State::lists="$work/lists" -o Dir::Cache="$work" -o Dir::Cache::archives="$work/archives")
    "${apt[@]}" update >&2 || { rm -rf "$work"; return 1; }
    all=("${names[@]}")
    if [ "$arch" = "$(dpkg --print-architecture)" ]; then
        mapfile -t all < <("${apt[@]}" install -s --no-install-recommends "${names[@]}" | awk '$1 == "Inst" { print $2 }')
    fi
    (cd "$work/archives" && "${apt[@]}" download "${all[@]}" >&2) || { rm -rf "$work"; return 1; }
    for package in "$work"/archives/*.deb; do
        dpkg -x "$package" "$folder" || { rm -rf "$work"; return 1; }
    done
    rm -rf "$work"
    touch "$done"
}

# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What ./start and ./check share: packages, the Python environment, builds, the default model.
# Sourced with the repository root as the working folder; ends the script with one sentence when
# something cannot be done.

cache_dir="${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/lockstep"
default_model="$cache_dir/SmolLM2-135M-Instruct.Q4_1.gguf"
default_model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

# Debian package and how to see that what it brings is already there, from whatever source.
# shellcheck disable=SC2034 # used by the scripts that source this
build_needs=(
    "gcc|command -v gcc"
    "libc6-dev|test -e /usr/include/stdio.h"
    "cmake|command -v cmake"
    "ninja-build|command -v ninja"
    "pkg-config|command -v pkg-config"
    "libjansson-dev|pkg-config --exists jansson"
    "libpcre2-dev|pkg-config --exists libpcre2-8"
    "libutf8proc-dev|pkg-config --exists libutf8proc"
    "libxxhash-dev|pkg-config --exists libxxhash"
    "libhwloc-dev|pkg-config --exists hwloc"
    "libedit-dev|pkg-config --exists libedit"
    "libcurl4-openssl-dev|pkg-config --exists libcurl"
    "libssl-dev|pkg-config --exists libcrypto"
)
python_needs=(
    "python3|command -v python3"
    "python3-venv|python3 -c 'import ensurepip, venv'"
    "ca-certificates|test -e /etc/ssl/certs/ca-certificates.crt"
)

say() {
    printf '%s: %s\n' "${0##*/}" "$*"
}

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# Prints the packages of the given needs that are missing.
missing_packages() {
    local need package probe

    for need in "$@"; do
        package=${need%%|*}
        probe=${need#*|}
        if ! (eval "$probe") >/dev/null 2>&1 &&
            [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then
            printf '%s\n' "$package"
        fi
    done
}

# Runs apt-get, its output shown and kept in $apt_log; as root, or through sudo after saying so.
run_apt() {
    local as_root=()

    if [ "$(id -u)" -ne 0 ]; then
        as_root=(sudo)
    fi
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o Dpkg::Use-Pty=0 "$@" \
        </dev/null 2>&1 | tee -a "$apt_log"
    return "${PIPESTATUS[0]}"
}

# Sees to it that the given needs are met.
ensure_packages() {
    local packages apt_log

    mapfile -t packages < <(missing_packages "$@")
    if [ "${#packages[@]}" -eq 0 ]; then
        say "packages: all there"
        return
    fi
    if ! command -v apt-get >/dev/null; then
        die "this system has no apt-get; please install what these Debian packages hold: ${packages[*]}"
    fi
    say "packages: missing, to be installed now: ${packages[*]}"
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null; then
            die "no right to install packages; as root: apt-get install ${packages[*]}"
        fi
        say "packages: apt-get needs root, so sudo may ask for your password now"
        if ! sudo -v; then
            die "no right to install packages; as root: apt-get install ${packages[*]}"
        fi
    fi
    apt_log=$(mktemp) || die "cannot write to ${TMPDIR:-/tmp}"
    # A broken third-party source must not stop us: what counts is whether the packages install.
    run_apt update || say "packages: apt-get update failed, trying with the lists that are there"
    if run_apt install -y --no-install-recommends "${packages[@]}"; then
        rm -f "$apt_log"
        return
    fi
    if grep -qE 'Temporary failure|Could not (resolve|connect)|Failed to fetch|Unable to connect|Network is unreachable' "$apt_log"; then
        rm -f "$apt_log"
        die "no network: apt-get could not reach its package source (its own words are above)"
    fi
    rm -f "$apt_log"
    die "apt-get could not install ${packages[*]} (its own words are above)"
}

# A private Python environment in build/venv; pip in it is free of the system's rules (PEP 668).
ensure_venv() {
    if ! build/venv/bin/python -m pip --version >/dev/null 2>&1; then
        say "python: making build/venv"
        rm -rf build/venv
        mkdir -p build || die "cannot write to $PWD/build"
        if ! python3 -m venv build/venv >build/venv.log 2>&1; then
            cat build/venv.log >&2
            die "python3 -m venv failed (its own words are above)"
        fi
    fi
}

# Installs the pinned requirements file into build/venv, once per content.
ensure_requirements() {
    local stamp=build/venv/requirements.done

    ensure_venv
    if cmp -s "$1" "$stamp"; then
        say "python: test packages all there"
        return
    fi
    say "python: installing the test packages of $1 into build/venv"
    if ! build/venv/bin/python -m pip install --disable-pip-version-check -q -r "$1"; then
        die "pip could not install the test packages: no network? (its own words are above)"
    fi
    cp "$1" "$stamp"
}

# The default model, fetched into the cache once and verified every time.
ensure_model() {
    if [ -f "$default_model" ] &&
        printf '%s  %s\n' "$default_model_sha256" "$default_model" | sha256sum -c --status; then
        say "model: $default_model"
        return
    fi
    ensure_packages "${python_needs[@]}"
    ensure_venv
    say "model: fetching SmolLM2-135M-Instruct (93 MB, Apache-2.0) to $default_model"
    build/venv/bin/python tools/fetch-model "$default_model" "$default_model_sha256" || exit 1
}

# Configures and builds a preset; further arguments go to cmake --build.
build_preset() {
    local preset=$1

    shift
    say "build: $preset (in build/$preset)"
    if ! cmake --preset "$preset" >"build/$preset.log" 2>&1; then
        cat "build/$preset.log" >&2
        return 1
    fi
    cmake --build --preset "$preset" "$@"
}

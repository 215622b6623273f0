#!/usr/bin/env bash
# Prepare this checkout. Run again it does nothing, and then needs neither network nor root.
#   setup.sh python   .venv with the locked dependencies and the project itself
#   setup.sh all      also the Debian packages that tests and pictures use
#   setup.sh audit    also .venv-audit, with what checks and lists the dependencies
#   setup.sh nspawn   also the Debian packages that `make nspawn` boots a machine with
#   setup.sh bench    also .venv-bench, with the exporter that `make bench` compares against
set -euo pipefail
cd "$(dirname "$0")/.."

what=${1:-all}
say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# Debian package -> the command or file that shows that it is there.
declare -A NEEDED=(
    [prometheus]=/usr/bin/prometheus
    [prometheus-alertmanager]=/usr/bin/prometheus-alertmanager
    [chromium]=/usr/bin/chromium
    [fonts-dejavu-core]=/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf
    [systemd]=/usr/bin/systemd-analyze
    [faketime]=/usr/bin/faketime
)

declare -A NSPAWN_NEEDED=(
    [debootstrap]=/usr/sbin/debootstrap
    [systemd-container]=/usr/bin/systemd-nspawn
)

install_debian() {
    local policy=/usr/sbin/policy-rc.d made_policy=
    command -v apt-get >/dev/null || fail "this is not a Debian machine; please install: $*"
    [ "$(id -u)" = 0 ] || fail "missing Debian packages; as root run: apt-get install --no-install-recommends $*"
    say "installing Debian packages: $*"
    # Without this, Prometheus would start as a service and listen on every address.
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
        made_policy=yes
        trap "rm -f $policy" EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    local log
    log=$(mktemp)
    if ! { apt-get update -q && apt-get install -q -y --no-install-recommends "$@"; } \
        </dev/null >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        fail "apt-get failed; its whole output is in $log"
    fi
    rm -f "$log"
    if [ -n "$made_policy" ]; then
        rm -f $policy
        trap - EXIT
    fi
}

ensure_debian() {
    local name missing=()
    for name in $(printf '%s\n' "${!NEEDED[@]}" | sort); do
        [ -e "${NEEDED[$name]}" ] || missing+=("$name")
    done
    [ ${#missing[@]} = 0 ] || install_debian "${missing[@]}"
}

ensure_venv() { # DIRECTORY: make it with the first suitable Python
    local directory=$1
    "$directory/bin/python" -c '' 2>/dev/null && return
    command -v python3 >/dev/null || fail "python3 is missing; Python 3.11 or newer is needed"
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
        || fail "Python 3.11 or newer is needed; python3 is $(python3 -V)"
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null \
            || fail "Python's venv module is missing; as root run: apt-get install python3-venv"
        install_debian python3-venv
    fi
    rm -rf "$directory"
    python3 -m venv "$directory"
}

fingerprint() { # FILES...: changes with them, with Python and with the place of the checkout
    { pwd; python3 -V; cat "$@"; } | sha256sum | cut -d' ' -f1
}

is_current() { [ -e "$1" ] && [ "$(cat "$1")" = "$2" ]; } # STAMP FINGERPRINT

ensure_locked() { # DIRECTORY LOCK: install exactly what the lock names
    local directory=$1 lock=$2 stamp=$1/.locked wanted
    ensure_venv "$directory"
    wanted=$(fingerprint "$lock")
    is_current "$stamp" "$wanted" && return
    say "installing $lock into $directory"
    "$directory/bin/python" -m pip install -qq --disable-pip-version-check --no-input \
        --require-hashes -r "$lock" || fail "could not install $lock"
    printf '%s\n' "$wanted" >"$stamp"
}

ensure_project() {
    local stamp=.venv/.project wanted
    wanted=$(fingerprint pyproject.toml)
    is_current "$stamp" "$wanted" && [ -x .venv/bin/migscaler ] && return
    # The build backend comes from the lock: nothing is fetched here.
    .venv/bin/python -m pip install -qq --disable-pip-version-check --no-input --no-index \
        --no-build-isolation --no-deps -e . || fail "could not install the project into .venv"
    printf '%s\n' "$wanted" >"$stamp"
}

case $what in
    python | all | bench | audit | nspawn) ;;
    *) fail "usage: setup.sh [python|all|bench|audit|nspawn]" ;;
esac
ensure_locked .venv requirements-dev.lock
ensure_project
case $what in all | bench) ensure_debian ;; esac
if [ "$what" = bench ]; then ensure_locked .venv-bench requirements-bench.lock; fi
if [ "$what" = nspawn ]; then
    for name in "${!NSPAWN_NEEDED[@]}"; do
        [ -e "${NSPAWN_NEEDED[$name]}" ] || install_debian "$name"
    done
fi
if [ "$what" = audit ]; then ensure_locked .venv-audit requirements-audit.lock; fi

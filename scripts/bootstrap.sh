# shellcheck shell=bash
# Sourced by the scripts beside it: makes the machine ready and sets what they need to go on.
#
#   PYTHON     the interpreter of a virtual environment with NetBox and requirements-dev.txt
#   CHECKOUT   the root of this checkout
#
# The environment lies outside the checkout, in the cache folder (NETBOX_WEBHOOKS_CACHE, by default
# ~/.cache/netbox-webhooks), which may be deleted at any time. The checkout itself is not installed into it but put
# on PYTHONPATH, so that several checkouts can share it at the same time. NETBOX_WEBHOOKS_NETBOX names another NetBox
# ('netbox==4.7.1', or a folder), which gets an environment of its own beside it.

set -euo pipefail

CHECKOUT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
CACHE="${NETBOX_WEBHOOKS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/netbox-webhooks}"
NEWEST_NETBOX='netbox==4.7.*'
NETBOX_REQUIREMENT="${NETBOX_WEBHOOKS_NETBOX:-$NEWEST_NETBOX}"
VENV="$CACHE/venv"
[ "$NETBOX_REQUIREMENT" = "$NEWEST_NETBOX" ] || VENV="$CACHE/venv-${NETBOX_REQUIREMENT//[^A-Za-z0-9.]/-}"
BOOTSTRAP_LOG="$CACHE/bootstrap.log"
APT_UPDATED=''

say() { printf '%s\n' "$*" >&2; }

die() {
    say "$@"
    exit 1
}

# Runs a command silently; when it fails, says where its output is.
quietly() {
    "$@" </dev/null >>"$BOOTSTRAP_LOG" 2>&1 && return
    tail -n 15 "$BOOTSTRAP_LOG" >&2
    die "Failed: $*" "(everything it printed is in $BOOTSTRAP_LOG)"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

can_install() {
    command -v apt-get >/dev/null || return 1
    [ "$(id -u)" = 0 ] && return
    command -v sudo >/dev/null && { sudo -n true 2>/dev/null || { [ -t 0 ] && sudo true; }; }
}

read_lists() {
    [ -z "$APT_UPDATED" ] || return 0
    say 'Reading the lists of packages'
    quietly as_root apt-get update -q
    APT_UPDATED=yes
}

install_packages() {
    can_install || die "Please install first (there is no apt-get here, or neither root nor sudo to run it): $*"
    read_lists
    say "Installing $*"
    quietly as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$@"
}

python_is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1
}

# Prints the first interpreter that runs and is new enough. A name on PATH proves nothing: version managers leave
# shims there that fail.
find_python() {
    local name path
    for name in python3.14 python3.13 python3.12 python3; do
        for path in "$(command -v "$name" || true)" "/usr/bin/$name" "/usr/local/bin/$name"; do
            if [ -n "$path" ] && python_is_new_enough "$path"; then
                "$path" -c 'import sys; print(sys.executable)'
                return
            fi
        done
    done
    return 1
}

ensure_python() {
    BASE_PYTHON="$(find_python)" && return
    can_install || die 'Please install Python 3.12 or newer with its venv module and headers: none was found.'
    install_packages python3 python3-venv python3-dev
    BASE_PYTHON="$(find_python)" || die 'Please install Python 3.12 or newer: this distribution has only an older one.'
}

# NetBox compiles the PostgreSQL driver, so it needs a compiler and headers; a distribution's Python comes without.
ensure_build_tools() {
    local version packages=()
    version="$("$BASE_PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
    "$BASE_PYTHON" -c 'import venv, ensurepip' >/dev/null 2>&1 || packages+=("python$version-venv")
    "$BASE_PYTHON" -c 'import os, sysconfig as s, sys; sys.exit(not os.path.exists(s.get_path("include") + "/Python.h"))' ||
        packages+=("python$version-dev")
    command -v gcc >/dev/null || packages+=(gcc libc6-dev)
    command -v pg_config >/dev/null && [ -e "$(pg_config --includedir)/libpq-fe.h" ] || packages+=(libpq-dev)
    [ ${#packages[@]} = 0 ] || install_packages "${packages[@]}"
}

has_postgres() { compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null; }

ensure_services() {
    local packages=()
    [ -n "${NETBOX_WEBHOOKS_TEST_DB_HOST:-}" ] || has_postgres || packages+=(postgresql)
    [ -n "${NETBOX_WEBHOOKS_TEST_REDIS_HOST:-}" ] || command -v redis-server >/dev/null || packages+=(redis-server)
    [ ${#packages[@]} = 0 ] || install_packages "${packages[@]}"
}

# Message brokers for tests and the demo. They run as children, never as services.
ensure_brokers() {
    local packages=()
    [ -x /usr/sbin/nats-server ] || command -v nats-server >/dev/null || packages+=(nats-server)
    [ "${1:-}" = nats ] || [ -e /usr/lib/rabbitmq/bin/rabbitmq-server ] || packages+=(rabbitmq-server)
    [ "${1:-}" = nats ] || [ -x /usr/sbin/mosquitto ] || command -v mosquitto >/dev/null || packages+=(mosquitto)
    [ ${#packages[@]} = 0 ] || install_packages "${packages[@]}"
}

# Prints the first browser that runs. Ubuntu's chromium-browser is a script that asks for a snap, and no package.
find_browser() {
    local name
    for name in chromium chromium-browser google-chrome-stable google-chrome; do
        if command -v "$name" >/dev/null && "$name" --version >/dev/null 2>&1; then
            command -v "$name"
            return
        fi
    done
    return 1
}

has_package() {
    can_install || return 1
    read_lists
    apt-cache show "$1" >/dev/null 2>&1
}

# The distribution's, never one that a library downloads. Without fonts it would draw no text.
ensure_browser() {
    CHROMIUM="$(find_browser)" || {
        has_package chromium || die 'Please install Chromium or Google Chrome first: there is no package of it here.' \
            'To leave its tests out: scripts/test --ignore=tests/browser'
        install_packages chromium fonts-dejavu-core
        CHROMIUM="$(find_browser)" || die 'Please install another Chromium: that of this distribution does not run.'
    }
    export CHROMIUM
}

# Checks the alerts in contrib/. A package of its own, without Prometheus' server; not every distribution has it.
ensure_promtool() {
    command -v promtool >/dev/null || ! has_package promtool || install_packages promtool
}

# Collects and compiles the texts to be translated.
ensure_gettext() {
    command -v xgettext >/dev/null || install_packages gettext
}

# A folder is installed anew when its commit is another, or its files have been changed.
stamp() {
    printf '%s\n' "$NETBOX_REQUIREMENT" "$VENV"
    [ ! -d "$NETBOX_REQUIREMENT" ] || git -C "$NETBOX_REQUIREMENT" rev-parse HEAD
    [ ! -d "$NETBOX_REQUIREMENT" ] || git -C "$NETBOX_REQUIREMENT" diff HEAD
    cat "$CHECKOUT/requirements-dev.txt"
}

venv_is_current() {
    [ -e "$VENV/stamp" ] && [ "$(stamp)" = "$(cat "$VENV/stamp")" ] && python_is_new_enough "$VENV/bin/python"
}

# pip would be content with another NetBox that happens to fit.
holds_other_netbox() {
    [ -e "$VENV/stamp" ] && [ "$(head -n 1 "$VENV/stamp")" != "$NETBOX_REQUIREMENT" ]
}

make_venv() {
    ensure_python
    ensure_build_tools
    if [ ! -e "$VENV/complete" ] || holds_other_netbox || ! python_is_new_enough "$VENV/bin/python"; then
        say "Making a virtual environment with $BASE_PYTHON in $VENV"
        quietly "$BASE_PYTHON" -m venv --clear "$VENV"
        touch "$VENV/complete"
    fi
    say "Installing $NETBOX_REQUIREMENT and the test requirements (about a minute)"
    quietly "$VENV/bin/python" -m pip install --no-input "$NETBOX_REQUIREMENT" -r "$CHECKOUT/requirements-dev.txt"
    stamp >"$VENV/stamp"
}

# One at a time: runs that start together wait for the first.
ensure_venv() {
    venv_is_current && return
    mkdir -p "$CACHE"
    exec 9>"$CACHE/bootstrap.lock"
    flock -n 9 || { say 'Waiting for another run that prepares the environment'; flock 9; }
    venv_is_current || make_venv
    exec 9>&-
}

trap 'exit 130' INT
ensure_venv
export CHECKOUT PYTHON="$VENV/bin/python"
export PATH="$VENV/bin:$PATH"
export PYTHONPATH="$CHECKOUT:$CHECKOUT/scripts"
export NETBOX_WEBHOOKS_CACHE="$CACHE"

# SPDX-License-Identifier: Apache-2.0
# Sourced by ./check and ./quickstart: installing Debian packages with one clear question, and the lists.

packages_build="gcc libc6-dev make autoconf automake pkgconf python3
    libev-dev liburing-dev libjemalloc-dev libyaml-dev libssl-dev libseccomp-dev libcap-dev libxxhash-dev"
packages_servers="redis-server redis-tools memcached"
packages_try="curl"
packages_test="libcmocka-dev binutils git redis-sentinel nutcracker prometheus
    python3-pytest python3-redis python3-pymemcache python3-pylibmc python3-yaml
    php-cli php-redis php-memcached ruby ruby-dalli telnet"
packages_nightly="clang llvm xz-utils"
# Only tests/bench needs these, and goes without.
# shellcheck disable=SC2034
packages_bench="fio linux-perf"

say() {
    printf '%s: %s\n' "$me" "$*"
}

die() {
    printf '%s: %s\n' "$me" "$*" >&2
    exit 1
}

# packages_missing NAME...: those that dpkg does not know as installed.
packages_missing() {
    local name installed
    installed=" $(dpkg-query -W -f='${Package} ${db:Status-Status}\n' "$@" 2>/dev/null |
        sed -n 's/ installed$//p' | tr '\n' ' ') "
    for name in "$@"; do
        case "$installed" in
        *" $name "*) ;;
        *) printf '%s ' "$name" ;;
        esac
    done
}

# packages_install NAME...: nothing to do takes a blink; otherwise as root, or through sudo after asking once.
packages_install() {
    local missing sudo="" answer
    if ! command -v dpkg-query >/dev/null; then
        say "this is no Debian; what is needed is there under other names: $*"
        return 0
    fi
    missing=$(packages_missing "$@")
    [ -n "$missing" ] || return 0
    missing=${missing% }
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null ||
            die "these Debian packages are missing, and there is no sudo: run as root: apt-get install $missing"
        if [ "${assume_yes:-no}" != yes ] && ! sudo -n true 2>/dev/null; then
            [ -t 0 ] || die "these Debian packages are missing; install them, or run me in a terminal: $missing"
            printf '%s: these Debian packages are missing:\n    %s\nInstall them with sudo apt-get? [Y/n] ' \
                "$me" "$missing"
            read -r answer
            case "$answer" in
            "" | [Yy]*) ;;
            *) die "nothing was installed" ;;
            esac
        fi
        sudo="sudo"
    fi
    say "installing from Debian: $missing"
    # The index may be absent or old on a fresh machine; packages are all that is wanted from it.
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 update ||
        say "apt-get update failed; trying with the index that is there"
    # shellcheck disable=SC2086
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=120 \
        install --no-install-recommends $missing >"${TMPDIR:-/tmp}/weir-apt.$$" 2>&1 || {
        tail -n 20 "${TMPDIR:-/tmp}/weir-apt.$$" >&2
        rm -f "${TMPDIR:-/tmp}/weir-apt.$$"
        die "apt-get install failed"
    }
    rm -f "${TMPDIR:-/tmp}/weir-apt.$$"
}

# generate_configure: runs autogen.sh when what configure is made from is newer. In $source.
generate_configure() {
    local newer
    if [ -x "$source/configure" ] && [ -f "$source/Makefile.in" ]; then
        newer=$(cd "$source" && find . -path ./.git -prune -o \
            \( -name '*.am' -o -name '*.m4' -o -name configure.ac \) ! -name aclocal.m4 \
            -newer Makefile.in -print -quit)
        [ -n "$newer" ] || return 0
    fi
    say "generating configure"
    (cd "$source" && ./autogen.sh) >"$1" 2>&1 || {
        cat "$1" >&2
        die "autogen.sh failed"
    }
}

# build_tree DIRECTORY CONFIGURE-FLAGS...: configures when the flags are new, and makes everything.
build_tree() {
    local dir=$1
    shift
    mkdir -p "$dir"
    if [ ! -f "$dir/config.status" ] || [ "$(cat "$dir/.configured" 2>/dev/null)" != "$*" ]; then
        say "configuring $dir: $*"
        (cd "$dir" && "$source/configure" -q "$@") >"$dir/configure.out" 2>&1 || {
            tail -n 30 "$dir/configure.out" >&2
            return 1
        }
        printf '%s\n' "$*" >"$dir/.configured"
    fi
    say "building $dir"
    make -s -j"$jobs" -C "$dir" all >"$dir/make.out" 2>&1 || {
        grep -E -A6 'error|Error|warning' "$dir/make.out" | head -n 60 >&2
        tail -n 10 "$dir/make.out" >&2
        return 1
    }
}

# The clients that come from npm go into the build tree, by the lock file's exact versions.
install_clients() {
    local dir=$1/clients
    mkdir -p "$dir"
    if ! cmp -s tests/e2e/clients/package-lock.json "$dir/.installed"; then
        if ! command -v npm >/dev/null; then
            [ "${install:-yes}" = yes ] && packages_install nodejs npm
        fi
        say "installing node-redis and ioredis into $dir"
        cp tests/e2e/clients/package.json tests/e2e/clients/package-lock.json "$dir/" &&
            (cd "$dir" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) \
                >"$dir/npm.out" 2>&1 &&
            cp tests/e2e/clients/package-lock.json "$dir/.installed" || {
            tail -n 5 "$dir/npm.out" >&2
            say "npm could not install the JavaScript clients; their tests will fail"
        }
    fi
    export WEIR_CLIENTS=$dir
}

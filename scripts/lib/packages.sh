# shellcheck shell=bash
# System packages, by their Debian names: installed where this is root, named otherwise.

# need_packages PACKAGE…: does nothing without arguments.
need_packages() {
  [ $# -gt 0 ] || return 0
  command -v apt-get >/dev/null ||
    die "missing system packages; install what your system has for these Debian packages: $*"
  [ "$(id -u)" = 0 ] ||
    die "missing system packages; run: sudo apt-get install -y --no-install-recommends $*"
  say "installing system packages (about a minute): $*"
  # A machine whose package lists are absent or too old needs a fresh list first, and only such a machine.
  apt_install "$@" >/dev/null 2>&1 && return
  logged "$(mktemp -t apt-update.XXXXXX)" apt-get -qq update
  logged "$(mktemp -t apt-install.XXXXXX)" apt_install "$@"
}

# need_venv: Debian ships Python without the module that virtual environments take.
need_venv() { "${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null || need_packages python3-venv; }

apt_install() { DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@"; }

# The folders and caches that the dynamic linker searches; ldconfig is often not on an ordinary user's PATH.
system_libraries() { PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null; }

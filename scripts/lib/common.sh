# shellcheck shell=bash
# What the scripts share. Sourced with `root` set to the repository's folder.
# shellcheck disable=SC2154 # root

# Progress and errors go to stderr: one line each, named after the script.
say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$*"; exit 1; }

# The user's folder for what can be made again.
cache_folder() { printf '%s\n' "${MESH_LLM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mesh-llm}"; }

# The target folder, absolute: generated files name it, and Cargo may be run from any folder.
set_target() {
  CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}
  case $CARGO_TARGET_DIR in /*) ;; *) CARGO_TARGET_DIR=$PWD/$CARGO_TARGET_DIR ;; esac
  export CARGO_TARGET_DIR
}

# need_cargo: Cargo on PATH, also in a shell that never read rustup's profile.
need_cargo() {
  command -v cargo >/dev/null && return
  [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ] || die "cargo is missing: install Rust 1.95 or newer, see rustup.rs"
  PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
}

# find_binary: sets `binary` to the node's program: MESH_LLM_BIN, or else the release build, made now.
find_binary() {
  binary=${MESH_LLM_BIN:-}
  if [ -z "$binary" ]; then
    set_target
    need_cargo
    "$root/scripts/setup"
    (cd "$root" && cargo build --release --locked --package mesh-node) >&2
    binary=$CARGO_TARGET_DIR/release/mesh-llm
  fi
  [ -x "$binary" ] || die "there is no $binary"
}

# logged LOG COMMAND…: run it silently; on failure show the end of what it said.
logged() {
  local log=$1
  shift
  if ! "$@" >"$log" 2>&1; then
    tail -n 25 "$log" >&2
    die "failed: $1 (all of its output: $log)"
  fi
}

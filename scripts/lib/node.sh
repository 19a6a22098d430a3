# shellcheck shell=bash
# A node as a child of a script. Sourced after common.sh.
# shellcheck disable=SC2034,SC2154 # node_url, binary

# start_node LOG ARGUMENT…: `binary` on a free port; sets node (its process) and node_url once its models are loaded.
start_node() {
  local log=$1 ready
  shift
  "$binary" "$@" --port 0 >"$log" 2>&1 &
  node=$!
  trap 'kill "$node" 2>/dev/null || true' EXIT
  ready=$(wait_for_line "$log" '^mesh-llm ready: ') || { tail -n 25 "$log" >&2; die "the node did not start"; }
  read -r _ _ node_url _ <<<"$ready"
}

# stop_node LOG: it must end well.
stop_node() {
  kill "$node" 2>/dev/null || true
  wait "$node" || die "the node did not end well (its log: $1)"
  trap - EXIT
}

# wait_for_line FILE PATTERN: the first such line that the node writes, for a minute, or failure if the node ends.
wait_for_line() {
  local tries
  for ((tries = 0; tries < 600; tries++)); do
    grep -s -m 1 "$2" "$1" && return
    kill -0 "$node" 2>/dev/null || return 1
    sleep 0.1
  done
  return 1
}

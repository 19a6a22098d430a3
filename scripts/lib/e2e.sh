# shellcheck shell=bash
# Sourced by test, which sets root.
# shellcheck disable=SC2154
# End to end: the public API suite against a node that serves the script model, then whatever scripts/e2e holds.

end_to_end() {
  # What the test stage built already: the same profile, the same packages, the same features.
  cargo build --locked --workspace --bins --tests
  export MESH_LLM_BIN=$CARGO_TARGET_DIR/debug/mesh-llm
  # Debian ships Python without the module that virtual environments take.
  "${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null || need_packages python3-venv
  if [ -x scripts/conformance/run ]; then conformance; fi
  if [ -f scripts/e2e ]; then scripts/e2e; fi
}

conformance() {
  local work=$CARGO_TARGET_DIR/e2e model=$CARGO_TARGET_DIR/e2e/script-model ready url
  rm -rf "$work"
  mkdir -p "$work"
  scripts/conformance/script-model "$model"

  # Port 0: any free one, which the node names once it is ready.
  "$MESH_LLM_BIN" --mlx-file "$model" --port 0 --ctx-size 8192 >"$work/node.log" 2>&1 &
  node=$!
  trap 'kill "$node" 2>/dev/null || true' EXIT
  ready=$(wait_for_line "$work/node.log" '^mesh-llm ready: ') || { tail -n 25 "$work/node.log" >&2; die "the node did not start"; }
  read -r _ _ url _ <<<"$ready"
  # Its exit status counts core failures; the judgement below is about all of them.
  scripts/conformance/run --url "$url" --model script-model --ctx 8192 --json "$work/results.json" >"$work/checks.log" || true
  "${PYTHON:-python3}" scripts/conformance/judge.py "$work/results.json" scripts/conformance/known-failures.txt ||
    die "the API suite found something new (its output: $work/checks.log; the node's log: $work/node.log)"

  kill "$node" 2>/dev/null || true
  wait "$node" || die "the node did not end well (its log: $work/node.log)"
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

# shellcheck shell=bash
# Sourced by test, which sets root.
# shellcheck disable=SC2154 # root
# End to end: the public API suite against nodes that serve the script model, then whatever scripts/e2e holds.

end_to_end() {
  # What the test stage built already: the same profile, the same packages, the same features.
  cargo build --locked --workspace --bins --tests
  export MESH_LLM_BIN=$CARGO_TARGET_DIR/debug/mesh-llm
  need_venv
  scripts/conformance/run --mlx
  if [ -n "${MESH_LLM_TEST_LLAMA_SERVER:-}" ]; then scripts/conformance/run --gguf; fi
  if [ -f scripts/e2e ]; then scripts/e2e; fi
}

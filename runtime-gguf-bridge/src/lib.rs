//! llama.cpp's `llama-server` as a watched child of a node; it must not know catalogs, iroh or HTTP surfaces of ours.
//!
//! Nothing is here yet: GGUF models are not served by this version. What will be: an `engine::Engine` over a stock `llama-server`,
//! found beside the binary or in PATH, listening on a Unix socket or on loopback with a random key, with its context and slots
//! computed from the GGUF header, watched by its token progress, restarted with back-off, and never orphaned.

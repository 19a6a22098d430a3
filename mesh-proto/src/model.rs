//! What a served model is; must not know where its files lie.

use serde::{Deserialize, Serialize};

use crate::ModelId;

/// A model as an engine serves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelDescriptor {
    /// The name that clients use.
    pub id: ModelId,
    /// The engine's kind: `mlx`, `gguf`, `script`.
    pub engine: String,
    /// The family, e.g. `qwen3`.
    pub family: String,
    /// How the weights are stored, e.g. `4-bit affine, group 32`.
    pub quantization: String,
    /// Most tokens of prompt and answer together.
    pub context_tokens: u32,
    /// Entries of the vocabulary; token ids lie below it.
    pub vocab_size: u32,
    /// When it was loaded, Unix seconds.
    pub created: u64,
}

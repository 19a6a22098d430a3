//! Every architecture this engine serves, one short file each; must not know schedulers or files.
//!
//! [`FAMILIES`] is the only list. A family is named after its `model_type`.

mod llama;
mod qwen2;
mod qwen3;

use mlx_rs::Array;

use crate::{config::Config, error::MlxError, layers::RmsNorm, loader::Loader, step::Step, sys::Result};

/// A model's sizes, as the cache needs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ModelShape {
    pub(crate) layers: usize,
    pub(crate) kv_heads: i32,
    pub(crate) head_dim: i32,
    pub(crate) vocab_size: i32,
    /// Positions that the checkpoint was made for; `None`: it does not say.
    pub(crate) max_positions: Option<u32>,
}

/// A loaded model.
pub(crate) trait Model {
    /// Its sizes.
    fn shape(&self) -> ModelShape;

    /// `[tokens]` ids → `[tokens, hidden]`, before the last norm. Reads and extends the step's KV.
    fn hidden(&self, tokens: &Array, step: &mut Step<'_>) -> Result<Array>;

    /// `[rows, hidden]` → `[rows, vocabulary]`: last norm and head, for the rows that choose a token.
    fn logits(&self, hidden: &Array) -> Result<Array>;

    /// The last norm, for who makes vectors of hidden states; `None`: this family has none that is meant for that.
    fn last_norm(&self) -> Option<&RmsNorm> {
        None
    }
}

/// Reads a family's checkpoint.
type Load = fn(&Config, &mut Loader<'_>) -> std::result::Result<Box<dyn Model>, MlxError>;

/// One architecture.
pub(crate) struct Family {
    /// Its `model_type`, and others that are the same thing.
    names: &'static [&'static str],
    load: Load,
}

/// The architectures that can be served.
pub(crate) const FAMILIES: &[Family] = &[
    Family { names: &["llama", "mistral"], load: llama::load },
    Family { names: &["qwen2"], load: qwen2::load },
    Family { names: &["qwen3"], load: qwen3::load },
];

/// Every `model_type` that is served.
pub(crate) fn names() -> Vec<&'static str> {
    FAMILIES.iter().flat_map(|family| family.names).copied().collect()
}

/// Finds a configuration's family.
pub(crate) fn find(model_type: &str) -> std::result::Result<&'static Family, MlxError> {
    FAMILIES.iter().find(|family| family.names.contains(&model_type)).ok_or_else(|| {
        MlxError::Config(format!("`model_type` is `{model_type}`; this version serves {}", names().join(", ")))
    })
}

impl Family {
    /// Reads the checkpoint.
    pub(crate) fn load(
        &self,
        config: &Config,
        loader: &mut Loader<'_>,
    ) -> std::result::Result<Box<dyn Model>, MlxError> {
        (self.load)(config, loader)
    }
}

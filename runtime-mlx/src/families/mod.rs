//! Every architecture this engine serves, one short file each; must not know schedulers or files.
//!
//! [`FAMILIES`] is the only list. A family is named after its `model_type`. Its file reads its arguments from `config.json`
//! (refusing by name what it does not compute), says what each layer remembers ([`LayerCache`]), and builds a
//! [`Stack`](crate::layers::Stack) of layers that each take `[tokens, hidden]` to the same. Its goldens: `tests/golden/README.md`.

mod deepseek_v3;
mod gemma2;
mod gemma3;
mod gemma4;
mod glm4;
mod glm4_moe;
mod glm4_moe_lite;
mod gpt_oss;
mod kimi_linear;
mod lfm2;
mod llama;
mod mistral3;
mod mixtral;
mod olmo2;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen3_5;
mod qwen3_moe;
mod qwen3_next;
mod smollm3;

use mlx_rs::Array;

use crate::{
    config::Config, error::MlxError, kv::LayerCache, layers::RmsNorm, loader::Loader, step::Step, sys::Result,
};

/// A model's sizes, as the cache needs them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelShape {
    /// What each layer remembers of a sequence.
    pub(crate) caches: Vec<LayerCache>,
    pub(crate) vocab_size: i32,
    /// Positions that the checkpoint was made for; `None`: it does not say.
    pub(crate) max_positions: Option<u32>,
}

/// A loaded model.
pub(crate) trait Model {
    /// Its sizes.
    fn shape(&self) -> &ModelShape;

    /// `[tokens]` ids → `[tokens, hidden]`, before the last norm. Reads and extends the rows' memory.
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
    pub(crate) names: &'static [&'static str],
    load: Load,
}

/// The architectures that can be served.
pub(crate) const FAMILIES: &[Family] = &[
    Family { names: &["llama", "mistral", "iquestcoder", "xverse"], load: llama::load },
    Family { names: &["qwen2"], load: qwen2::load },
    Family { names: &["qwen3"], load: qwen3::load },
    Family { names: &["qwen3_moe"], load: qwen3_moe::load },
    Family { names: &["gemma3", "gemma3_text"], load: gemma3::load },
    Family { names: &["deepseek_v3", "kimi_k2", "joyai_llm_flash"], load: deepseek_v3::load },
    Family { names: &["lfm2"], load: lfm2::load },
    Family { names: &["gemma2"], load: gemma2::load },
    Family { names: &["olmo2"], load: olmo2::load },
    Family { names: &["phi3"], load: phi3::load },
    Family { names: &["smollm3"], load: smollm3::load },
    Family { names: &["glm4"], load: glm4::load },
    Family { names: &["gemma4", "gemma4_text", "gemma4_unified"], load: gemma4::load },
    Family { names: &["mistral3", "ministral3", "llava"], load: mistral3::load },
    Family { names: &["qwen3_next"], load: qwen3_next::load },
    Family { names: &["qwen3_5"], load: qwen3_5::load },
    Family { names: &["qwen3_5_moe"], load: qwen3_5::load },
    Family { names: &["kimi_linear"], load: kimi_linear::load },
    Family { names: &["gpt_oss"], load: gpt_oss::load },
    Family { names: &["glm4_moe"], load: glm4_moe::load },
    Family { names: &["glm4_moe_lite"], load: glm4_moe_lite::load },
    Family { names: &["mixtral"], load: mixtral::load },
];

/// Likeness (Jaro-Winkler, 1: the same) from which on a name is told as the nearest. Guess, between
/// `qwen3_vl` and `qwen3` with 0.93 and `mamba2` and `llama` with 0.70.
const NEAR: f64 = 0.75;

/// Every `model_type` that is served.
pub(crate) fn names() -> Vec<&'static str> {
    FAMILIES.iter().flat_map(|family| family.names).copied().collect()
}

/// Finds a configuration's family.
pub(crate) fn find(model_type: &str) -> std::result::Result<&'static Family, MlxError> {
    FAMILIES.iter().find(|family| family.names.contains(&model_type)).ok_or_else(|| {
        let near = names().into_iter().map(|name| (strsim::jaro_winkler(model_type, name), name));
        let near = near.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(likeness, _)| *likeness >= NEAR);
        let near = near.map_or(String::new(), |(_, name)| format!(", of which `{name}` is nearest"));
        MlxError::Config(format!("`model_type` is `{model_type}`; this version serves {}{near}", names().join(", ")))
    })
}

impl Family {
    /// The name that its file has.
    pub(crate) fn name(&self) -> &'static str {
        self.names[0]
    }

    /// Reads the checkpoint.
    pub(crate) fn load(
        &self,
        config: &Config,
        loader: &mut Loader<'_>,
    ) -> std::result::Result<Box<dyn Model>, MlxError> {
        (self.load)(config, loader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(model_type: &str) -> String {
        find(model_type).err().unwrap().to_string()
    }

    #[test]
    fn an_unknown_family_is_told_those_that_are_known_and_the_nearest() {
        let message = refusal("qwen3_vl");
        assert!(message.contains("`qwen3_vl`") && message.contains("llama, mistral"), "{message}");
        assert!(message.ends_with("of which `qwen3` is nearest"), "{message}");
        assert!(!refusal("rwkv7").contains("nearest"));
    }

    #[test]
    fn no_name_stands_for_two_families() {
        let mut names = names();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}

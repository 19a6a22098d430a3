//! From a model folder to a decoder that is ready; must not know names, clients or HTTP.

use std::path::Path;

use bytesize::ByteSize;
use engine::decoder::DecoderLimits;
use mlx_rs::Dtype;

use crate::{
    config::Config,
    decoder::MlxDecoder,
    error::MlxError,
    families,
    kv::Layout,
    loader::{Loader, Residency},
    memory::Budget,
    sys,
    weights::Weights,
};

/// Context of a model whose `config.json` does not say. Origin: llama.cpp's default.
const DEFAULT_CONTEXT: u32 = 4096;

/// A loaded model, not yet warm.
pub(crate) struct Loaded {
    pub(crate) decoder: MlxDecoder,
    pub(crate) family: String,
    pub(crate) quantization: String,
}

/// What the person asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LoadOptions {
    /// Context in tokens; `None`: the model's own, as far as memory allows.
    pub(crate) context_tokens: Option<u32>,
    /// Bytes for weights and caches; `None`: what the machine has.
    pub(crate) max_memory: Option<u64>,
    /// Models that share the machine; 0 counts as 1.
    pub(crate) sharers: u32,
    /// Sequences computed at once, for whose states memory is set aside.
    pub(crate) max_running: u32,
    /// `None`: what suits the device.
    pub(crate) residency: Option<Residency>,
}

/// Reads a checkpoint. Everything that could make serving it fail is an error here, before anything is served.
pub(crate) fn load(dir: &Path, options: LoadOptions, stage: &mut dyn FnMut(&str)) -> Result<Loaded, MlxError> {
    let mut config = Config::read(dir)?;
    let family = families::find(&config.model_type)?;
    let mut weights = Weights::open(dir)?;
    weights.under_model();
    if config.is_headless() && !weights.has("lm_head.weight") {
        config.tie_head();
    }
    let stored_dtype = weights.float_dtype();
    let budget = Budget::new(options.max_memory, options.sharers)?;
    let dense_bytes = weights.dense_f32_bytes(config.quantization.as_ref())?;
    let residency = match options.residency {
        Some(residency) => residency,
        None => residency_for(sys::on_gpu(), dense_bytes, &budget),
    };
    let (dtype, resident_bytes) = match residency {
        Residency::Stored => (stored_dtype, weights.stored_bytes),
        Residency::PackedF32 => (Dtype::Float32, weights.packed_f32_bytes()),
        Residency::DenseF32 => (Dtype::Float32, dense_bytes),
    };
    budget.check_weights(resident_bytes)?;
    budget.limit_buffer_cache()?;
    stage(&format!("reading weights ({})", human(weights.stored_bytes)));
    weights.discard(|name| name.ends_with("rotary_emb.inv_freq"));
    let mut loader = Loader::new(&mut weights, config.quantization.as_ref(), residency);
    let model = family.load(&config, &mut loader)?;
    weights.finish()?;

    let shape = model.shape();
    let kv = Layout::new(&shape.caches, dtype);
    let split = budget.split(resident_bytes);
    let states = kv.fixed_bytes() * u64::from(options.max_running.max(1));
    let kv_budget = split.kv.checked_sub(states).ok_or_else(|| {
        MlxError::DoesNotFit(format!(
            "beside the weights {} are left for sequences, and the states of {} need {}: lower --parallel or raise \
             --max-memory",
            human(split.kv),
            options.max_running,
            human(states)
        ))
    })?;
    let fits = kv_budget.checked_div(kv.bytes_per_token());
    let fits = fits.map_or(u32::MAX, |tokens| u32::try_from(tokens).unwrap_or(u32::MAX));
    let context_tokens = context(options.context_tokens, shape.max_positions, fits)?;
    if let Some(bad) = config.eos.iter().find(|id| id.0 >= shape.vocab_size as u32) {
        return Err(MlxError::Config(format!("`eos_token_id` {} lies outside the vocabulary", bad.0)));
    }
    let limits = DecoderLimits {
        context_tokens,
        vocab_size: shape.vocab_size as u32,
        kv_bytes_per_token: kv.bytes_per_token(),
        kv_budget_bytes: kv_budget,
    };
    let quantization = match &config.quantization {
        Some(quantization) => quantization.describe(),
        None => format!("{stored_dtype:?}").to_lowercase(),
    };
    tracing::info!(
        family = config.model_type,
        quantization,
        ?residency,
        context_tokens,
        weights = resident_bytes,
        kv_budget,
        "model loaded"
    );
    let decoder = MlxDecoder::new(model, kv, limits, split.prefix);
    Ok(Loaded { decoder, family: config.model_type, quantization })
}

/// A CPU computes f32 many times faster than 16-bit floats, and dense matrices faster than packed ones.
fn residency_for(gpu: bool, dense_bytes: u64, budget: &Budget) -> Residency {
    if gpu {
        Residency::Stored
    } else if budget.holds_weights(dense_bytes) {
        Residency::DenseF32
    } else {
        Residency::PackedF32
    }
}

/// The context to serve: what was asked for, or the most that model and memory allow.
fn context(asked: Option<u32>, model: Option<u32>, fits: u32) -> Result<u32, MlxError> {
    let model_max = model.unwrap_or(DEFAULT_CONTEXT);
    match asked {
        Some(0) => Err(MlxError::DoesNotFit("--ctx-size must be at least 1".into())),
        Some(asked) if model.is_some_and(|max| asked > max) => Err(MlxError::DoesNotFit(format!(
            "--ctx-size {asked} is more than the {model_max} tokens that this model was made for"
        ))),
        Some(asked) if asked > fits => Err(MlxError::DoesNotFit(format!(
            "--ctx-size {asked} needs more memory than there is for keys and values: {fits} tokens fit"
        ))),
        Some(asked) => Ok(asked),
        None if fits < model_max.min(DEFAULT_CONTEXT) => Err(MlxError::DoesNotFit(format!(
            "beside the weights only {fits} tokens of context fit into memory: raise --max-memory, ask for a small \
             --ctx-size, or serve a smaller model"
        ))),
        None => {
            if fits < model_max {
                tracing::warn!(fits, model_max, "context cut to what fits into memory");
            }
            Ok(model_max.min(fits))
        }
    }
}

/// Bytes for people.
pub(crate) fn human(bytes: u64) -> impl std::fmt::Display {
    ByteSize::b(bytes).display().iec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_context_is_the_models_unless_memory_or_the_person_says_less() {
        assert_eq!(context(None, Some(40_000), 50_000).unwrap(), 40_000);
        assert_eq!(context(None, Some(40_000), 30_000).unwrap(), 30_000);
        assert_eq!(context(Some(1000), Some(40_000), 30_000).unwrap(), 1000);
        assert!(context(Some(50_000), Some(40_000), 90_000).unwrap_err().to_string().contains("made for"));
        assert!(context(Some(35_000), Some(40_000), 30_000).unwrap_err().to_string().contains("30000 tokens fit"));
        assert!(context(None, Some(40_000), 100).unwrap_err().to_string().contains("--max-memory"));
    }
}

//! Sampling, lengths and stops, which both endpoints have; must not know messages or prompts.

use std::collections::BTreeMap;

use mesh_proto::{Dry, GenerateError, GenerateRequest, LogitBias, Sampling};

use super::{
    super::wire::{Number, Strings, Whole},
    Facts,
    check::{Checked, Low, either, number, or_all, token, whole},
};

/// Most stop strings. OpenAI allows 4; each costs a search in every piece of text.
const MAX_STOPS: usize = 16;
/// Most entries of `logit_bias`; OpenAI's own bound is 300, llama.cpp has none. Each costs an add per token. (guess)
const MAX_BIASES: usize = 4096;
/// Most answers to one prompt. Default 16, a guess: OpenAI takes 128, and each takes a place in the batch.
pub(in crate::api) const MAX_CHOICES: u32 = 16;
/// Largest repetition penalty, DRY multiplier and DRY base: far beyond what leaves text, near enough to keep sums
/// finite. (guess)
const MAX_PENALTY: f64 = 100.0;
/// Most bytes of a text that ends a repetition. (guess; llama.cpp takes 40)
const MAX_BREAKER_BYTES: usize = 256;
/// llama.cpp's defaults of DRY.
const DRY_BASE: f32 = 1.75;
const DRY_ALLOWED_LENGTH: u32 = 2;
const DRY_BREAKERS: [&str; 4] = ["\n", ":", "\"", "*"];

/// The sampling fields of a request.
pub(in crate::api) struct Knobs {
    pub(in crate::api) temperature: Option<Number>,
    pub(in crate::api) top_p: Option<Number>,
    pub(in crate::api) top_k: Option<Whole>,
    pub(in crate::api) min_p: Option<Number>,
    pub(in crate::api) typical_p: Option<Number>,
    pub(in crate::api) seed: Option<Whole>,
    pub(in crate::api) logit_bias: Option<BTreeMap<String, Number>>,
    pub(in crate::api) frequency_penalty: Option<Number>,
    pub(in crate::api) presence_penalty: Option<Number>,
    pub(in crate::api) repetition_penalty: Option<Number>,
    pub(in crate::api) repeat_penalty: Option<Number>,
    pub(in crate::api) repeat_last_n: Option<Whole>,
    pub(in crate::api) dry_multiplier: Option<Number>,
    pub(in crate::api) dry_base: Option<Number>,
    pub(in crate::api) dry_allowed_length: Option<Whole>,
    pub(in crate::api) dry_penalty_last_n: Option<Whole>,
    pub(in crate::api) dry_sequence_breakers: Option<Vec<String>>,
    pub(in crate::api) xtc_probability: Option<Number>,
    pub(in crate::api) xtc_threshold: Option<Number>,
}

/// [`Knobs`] out of a DTO that has fields of the same names.
macro_rules! knobs {
    ($dto:ident) => {
        knobs!($dto; temperature, top_p, top_k, min_p, typical_p, seed, logit_bias, frequency_penalty,
            presence_penalty, repetition_penalty, repeat_penalty, repeat_last_n, dry_multiplier, dry_base,
            dry_allowed_length, dry_penalty_last_n, dry_sequence_breakers, xtc_probability, xtc_threshold)
    };
    ($dto:ident; $($field:ident),*) => { $crate::api::openai::lower::knobs::Knobs { $($field: $dto.$field),* } };
}
pub(in crate::api) use knobs;

impl Knobs {
    pub(in crate::api) fn sampling(mut self, facts: &Facts) -> Checked<Sampling> {
        let mut sampling = facts.defaults.clone();
        let repetition =
            either(("repetition_penalty", self.repetition_penalty), ("repeat_penalty", self.repeat_penalty))?;
        for (place, field, value, low, high) in [
            (&mut sampling.temperature, "temperature", self.temperature, Low::From(0.0), 2.0),
            (&mut sampling.top_p, "top_p", self.top_p, Low::Above(0.0), 1.0),
            (&mut sampling.min_p, "min_p", self.min_p, Low::From(0.0), 1.0),
            (&mut sampling.typical_p, "typical_p", self.typical_p, Low::Above(0.0), 1.0),
            (&mut sampling.frequency_penalty, "frequency_penalty", self.frequency_penalty, Low::From(-2.0), 2.0),
            (&mut sampling.presence_penalty, "presence_penalty", self.presence_penalty, Low::From(-2.0), 2.0),
            (&mut sampling.repetition_penalty, "repetition_penalty", repetition, Low::Above(0.0), MAX_PENALTY),
            (&mut sampling.xtc_probability, "xtc_probability", self.xtc_probability, Low::From(0.0), 1.0),
            (&mut sampling.xtc_threshold, "xtc_threshold", self.xtc_threshold, Low::Above(0.0), 0.5),
        ] {
            *place = number(field, value, low, high)?.unwrap_or(*place);
        }
        if let Some(Whole(k)) = self.top_k {
            // -1 is how vLLM's clients say "off".
            let valid = (-1..=i128::from(u32::MAX)).contains(&k);
            sampling.top_k = valid.then(|| u32::try_from(k.max(0)).unwrap_or(0)).ok_or_else(|| {
                GenerateError::invalid("top_k", format!("`top_k` must be 0 (off) or a number of tokens, not {k}"))
            })?;
        }
        if let Some(last_n) = or_all("repeat_last_n", self.repeat_last_n)? {
            sampling.repeat_last_n = last_n;
        }
        if self.dry_multiplier.is_some() {
            sampling.dry = None;
        }
        if let Some(dry) = self.dry()? {
            sampling.dry = Some(dry);
        }
        if let Some(Whole(seed)) = self.seed {
            sampling.seed = Some(to_seed(seed)?);
        }
        sampling.logit_bias = self.logit_bias.map_or(Ok(Vec::new()), |map| biases(map, facts.vocab_size))?;
        Ok(sampling)
    }

    /// Its fields are checked even where the multiplier leaves it off.
    fn dry(&mut self) -> Checked<Option<Dry>> {
        let multiplier = number("dry_multiplier", self.dry_multiplier, Low::From(0.0), MAX_PENALTY)?.unwrap_or(0.0);
        let base = number("dry_base", self.dry_base, Low::From(1.0), MAX_PENALTY)?.unwrap_or(DRY_BASE);
        let allowed = whole("dry_allowed_length", self.dry_allowed_length, 0..=u32::MAX)?;
        let last_n = or_all("dry_penalty_last_n", self.dry_penalty_last_n)?.unwrap_or(None);
        let breakers = self.dry_sequence_breakers.take();
        let breakers = breakers.unwrap_or_else(|| DRY_BREAKERS.map(str::to_owned).to_vec());
        let field = "dry_sequence_breakers";
        if breakers.len() > Dry::MAX_BREAKERS {
            let message = format!("`{field}` may have {} texts, not {}", Dry::MAX_BREAKERS, breakers.len());
            return Err(GenerateError::invalid(field, message));
        }
        if breakers.iter().any(|text| text.is_empty() || text.len() > MAX_BREAKER_BYTES) {
            let message = format!("each of `{field}` must have 1 to {MAX_BREAKER_BYTES} bytes");
            return Err(GenerateError::invalid(field, message));
        }
        let dry = Dry { multiplier, base, allowed_length: allowed.unwrap_or(DRY_ALLOWED_LENGTH), last_n, breakers };
        Ok((multiplier > 0.0).then_some(dry))
    }
}

/// OpenAI's seeds are signed; every bit pattern is a seed of its own.
fn to_seed(seed: i128) -> Checked<u64> {
    u64::try_from(seed)
        .or_else(|_| i64::try_from(seed).map(i64::cast_unsigned))
        .map_err(|_| GenerateError::invalid("seed", format!("`seed` must be a 64-bit whole number, not {seed}")))
}

fn biases(map: BTreeMap<String, Number>, vocab_size: u32) -> Checked<Vec<LogitBias>> {
    if map.len() > MAX_BIASES {
        return Err(GenerateError::invalid("logit_bias", format!("`logit_bias` may have {MAX_BIASES} entries")));
    }
    map.into_iter()
        .map(|(key, Number(bias))| {
            let token = token(&format!("logit_bias.{key}"), key.parse().ok(), vocab_size)?;
            if !(-100.0..=100.0).contains(&bias) {
                let message = format!("`logit_bias.{key}` must be from -100 to 100, not {bias}");
                return Err(GenerateError::invalid("logit_bias", message));
            }
            Ok(LogitBias { token, bias: bias as f32 })
        })
        .collect()
}

/// Strings that end the answer. An empty one ends nothing and is left out.
pub(in crate::api) fn stops(stop: Option<Strings>) -> Checked<Vec<String>> {
    let stops: Vec<String> =
        stop.map_or_else(Vec::new, |Strings(all)| all).into_iter().filter(|s| !s.is_empty()).collect();
    if stops.len() > MAX_STOPS {
        let message = format!("`stop` may have {MAX_STOPS} strings, not {}", stops.len());
        return Err(GenerateError::invalid("stop", message));
    }
    Ok(stops)
}

/// Tokens before which an answer does not end: no more than it may have.
pub(in crate::api) fn min_tokens(value: Option<Whole>, most: Option<u32>) -> Checked<u32> {
    let min = whole("min_tokens", value, 0..=u32::MAX)?.unwrap_or(0);
    match most {
        Some(most) if min > most => {
            let message = format!("`min_tokens` is {min}, and the answer may have {most} tokens at most");
            Err(GenerateError::invalid("min_tokens", message))
        }
        _ => Ok(min),
    }
}

/// How many answers to each prompt.
pub(in crate::api) fn choices(n: Option<Whole>) -> Checked<u32> {
    Ok(whole("n", n, 1..=MAX_CHOICES)?.unwrap_or(1))
}

/// The requests of one prompt's answers: choice `i` has the seed `seed + i`, or draws its own.
pub(in crate::api) fn several(request: GenerateRequest, n: u32) -> impl Iterator<Item = GenerateRequest> {
    (0..n).map(move |choice| {
        let mut one = request.clone();
        one.sampling.seed = one.sampling.seed.map(|seed| seed.wrapping_add(choice.into()));
        one
    })
}

//! Numbers and switches that both endpoints have; must not know messages or prompts.

use std::collections::BTreeMap;

use mesh_proto::{GenerateError, LogitBias, Sampling, TokenId};
use serde_json::Value;

use super::{
    super::{
        chat::ResponseFormat,
        wire::{Number, Strings, Whole},
    },
    Facts,
};

type Checked<T> = Result<T, GenerateError>;

/// Most stop strings. OpenAI allows 4; each costs a search in every piece of text.
const MAX_STOPS: usize = 16;
/// Most entries of `logit_bias`; OpenAI's own bound is 300, llama.cpp has none. Each costs an add per token. (guess)
const MAX_BIASES: usize = 4096;

/// The sampling fields of a request.
pub(super) struct Knobs {
    pub(super) temperature: Option<Number>,
    pub(super) top_p: Option<Number>,
    pub(super) top_k: Option<Whole>,
    pub(super) min_p: Option<Number>,
    pub(super) seed: Option<Whole>,
    pub(super) logit_bias: Option<BTreeMap<String, Number>>,
}

impl Knobs {
    pub(super) fn sampling(self, facts: &Facts) -> Checked<Sampling> {
        let mut sampling = facts.defaults.clone();
        if let Some(Number(t)) = self.temperature {
            sampling.temperature = ranged("temperature", t, (0.0..=2.0).contains(&t), "from 0 to 2")?;
        }
        if let Some(Number(p)) = self.top_p {
            sampling.top_p = ranged("top_p", p, p > 0.0 && p <= 1.0, "above 0 and at most 1")?;
        }
        if let Some(Number(p)) = self.min_p {
            sampling.min_p = ranged("min_p", p, (0.0..=1.0).contains(&p), "from 0 to 1")?;
        }
        if let Some(Whole(k)) = self.top_k {
            // -1 is how vLLM's clients say "off".
            let valid = (-1..=i128::from(u32::MAX)).contains(&k);
            sampling.top_k = valid.then(|| u32::try_from(k.max(0)).unwrap_or(0)).ok_or_else(|| {
                GenerateError::invalid("top_k", format!("`top_k` must be 0 (off) or a number of tokens, not {k}"))
            })?;
        }
        if let Some(Whole(seed)) = self.seed {
            sampling.seed = Some(to_seed(seed)?);
        }
        sampling.logit_bias = self.logit_bias.map_or(Ok(Vec::new()), |map| biases(map, facts.vocab_size))?;
        Ok(sampling)
    }
}

fn ranged(field: &str, value: f64, valid: bool, range: &str) -> Checked<f32> {
    let error = || GenerateError::invalid(field, format!("`{field}` must be {range}, not {value}"));
    // A value that rounds to 0 as f32 (1e-50) is meant to be small, and 0 is legal wherever small is.
    valid.then_some((value as f32).max(if field == "top_p" { f32::MIN_POSITIVE } else { 0.0 })).ok_or_else(error)
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

/// A token id of this model, standing at `path`.
pub(super) fn token(path: &str, id: Option<i128>, vocab_size: u32) -> Checked<TokenId> {
    let id = id.and_then(|id| u32::try_from(id).ok()).filter(|id| *id < vocab_size);
    id.map(TokenId).ok_or_else(|| {
        let field = path.split(['.', '[']).next().unwrap_or(path);
        GenerateError::invalid(field, format!("`{path}` is not one of this model's token ids, 0 to {}", vocab_size - 1))
    })
}

/// Strings that end the answer. An empty one ends nothing and is left out.
pub(super) fn stops(stop: Option<Strings>) -> Checked<Vec<String>> {
    let stops: Vec<String> =
        stop.map_or_else(Vec::new, |Strings(all)| all).into_iter().filter(|s| !s.is_empty()).collect();
    if stops.len() > MAX_STOPS {
        let message = format!("`stop` may have {MAX_STOPS} strings, not {}", stops.len());
        return Err(GenerateError::invalid("stop", message));
    }
    Ok(stops)
}

/// A limit on the answer. What is above `u32` is above any context, and the context ends the answer then.
pub(super) fn limit(field: &str, value: Option<Whole>) -> Checked<Option<u32>> {
    value
        .map(|Whole(n)| {
            if n < 1 {
                return Err(GenerateError::invalid(field, format!("`{field}` must be at least 1, not {n}")));
            }
            Ok(u32::try_from(n).unwrap_or(u32::MAX))
        })
        .transpose()
}

/// Refuses a number that would do something we cannot do yet.
pub(super) fn only_number(field: &str, value: Option<Number>, neutral: f64) -> Checked<()> {
    only(field, value.is_none_or(|Number(n)| n == neutral), &format!("{neutral}"))
}

/// As [`only_number`], for whole numbers.
pub(super) fn only_whole(field: &str, value: Option<Whole>, neutral: i128) -> Checked<()> {
    only(field, value.is_none_or(|Whole(n)| n == neutral), &format!("{neutral}"))
}

/// As [`only_number`], for anything.
pub(super) fn only(field: &str, is_neutral: bool, neutral: &str) -> Checked<()> {
    if is_neutral {
        return Ok(());
    }
    Err(GenerateError::invalid(field, format!("`{field}` does not work yet: leave it out, or send {neutral}")))
}

/// Refuses a value that says anything at all.
pub(super) fn absent(field: &str, value: Option<&Value>) -> Checked<()> {
    let empty = match value {
        None | Some(Value::Null) => true,
        Some(Value::Array(all)) => all.is_empty(),
        Some(_) => false,
    };
    only(field, empty, "null")
}

/// Penalties and the like, which both endpoints refuse alike.
pub(super) fn penalties(fields: [(&str, Option<Number>, f64); 7]) -> Checked<()> {
    fields.into_iter().try_for_each(|(field, value, neutral)| only_number(field, value, neutral))
}

/// How many answers. One, so far.
pub(super) fn one(field: &str, value: Option<Whole>) -> Checked<()> {
    if let Some(Whole(n)) = value.filter(|Whole(n)| *n < 1) {
        return Err(GenerateError::invalid(field, format!("`{field}` must be at least 1, not {n}")));
    }
    only_whole(field, value, 1)
}

/// The answer's form. Text, so far.
pub(super) fn text_only(format: Option<&ResponseFormat>) -> Checked<()> {
    match format.map_or("text", |f| f.kind.as_str()) {
        "text" => Ok(()),
        kind @ ("json_object" | "json_schema") => {
            let message = format!("`response_format` {kind:?} does not work yet; only \"text\" does");
            Err(GenerateError::invalid("response_format", message))
        }
        kind => {
            let message = format!("`response_format.type` must be \"text\", not {kind:?}");
            Err(GenerateError::invalid("response_format", message))
        }
    }
}

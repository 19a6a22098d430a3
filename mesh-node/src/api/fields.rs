//! A field's value against its range, for every dialect alike; must not know which endpoint it came to.

use mesh_proto::{GenerateError, LogitBias, Sampling};
use serde_json::Value;

use super::openai::wire::{Number, Whole};

pub(super) type Checked<T> = Result<T, GenerateError>;

/// Most stop strings. OpenAI allows 4; each costs a search in every piece of text.
const MAX_STOPS: usize = 16;

/// The sampling fields that the newer dialects have.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Knobs {
    pub(super) temperature: Option<Number>,
    pub(super) top_p: Option<Number>,
    pub(super) top_k: Option<Whole>,
}

impl Knobs {
    /// Over what the model's own defaults say.
    pub(super) fn sampling(self, defaults: &Sampling) -> Checked<Sampling> {
        let mut sampling = Sampling { logit_bias: Vec::<LogitBias>::new(), ..defaults.clone() };
        if let Some(Number(t)) = self.temperature {
            check("temperature", (0.0..=2.0).contains(&t), || format!("must be from 0 to 2, not {t}"))?;
            sampling.temperature = t as f32;
        }
        if let Some(Number(p)) = self.top_p {
            check("top_p", p > 0.0 && p <= 1.0, || format!("must be above 0 and at most 1, not {p}"))?;
            // What rounds to 0 is meant to be small.
            sampling.top_p = (p as f32).max(f32::MIN_POSITIVE);
        }
        if let Some(Whole(k)) = self.top_k {
            let tokens = u32::try_from(k).map_err(|_| {
                GenerateError::invalid("top_k", format!("`top_k` must be 0 (off) or a number of tokens, not {k}"))
            })?;
            sampling.top_k = tokens;
        }
        Ok(sampling)
    }
}

/// Refuses `field` unless it holds; `what` goes on after its name.
pub(super) fn check(field: &str, holds: bool, what: impl FnOnce() -> String) -> Checked<()> {
    if holds { Ok(()) } else { Err(GenerateError::invalid(field, format!("`{field}` {}", what()))) }
}

/// A limit in tokens. What is above `u32` is above any context, and the context ends the answer then.
pub(super) fn limit(field: &str, Whole(n): Whole) -> Checked<u32> {
    check(field, n >= 1, || format!("must be at least 1, not {n}"))?;
    Ok(u32::try_from(n).unwrap_or(u32::MAX))
}

/// Strings that end the answer. An empty one ends nothing and is left out.
pub(super) fn stops(field: &str, all: Option<Vec<String>>) -> Checked<Vec<String>> {
    let stops: Vec<String> = all.unwrap_or_default().into_iter().filter(|stop| !stop.is_empty()).collect();
    check(field, stops.len() <= MAX_STOPS, || format!("may have {MAX_STOPS} strings, not {}", stops.len()))?;
    Ok(stops)
}

/// Refuses what asks for something that does not work here; null and what is empty ask for nothing.
pub(super) fn absent(field: &str, value: Option<&Value>) -> Checked<()> {
    let empty = match value {
        None | Some(Value::Null) => true,
        Some(Value::Array(all)) => all.is_empty(),
        Some(Value::Object(all)) => all.is_empty(),
        Some(_) => false,
    };
    check(field, empty, || "does not work here; leave it out".into())
}

/// A tool's name, standing at `field`.
pub(super) fn tool_name(field: &str, name: &str) -> Checked<()> {
    let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/');
    let good = !name.is_empty() && name.len() <= 128 && name.chars().all(named);
    check(field, good, || "must be 1 to 128 letters, digits, '_' or '-'".into())
}

/// Any JSON, its objects' keys often among `keys`: what property tests of lowering feed.
#[cfg(test)]
pub(super) fn any_json(keys: &'static [&'static str]) -> impl proptest::strategy::Strategy<Value = Value> {
    use proptest::prelude::*;

    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
        proptest::sample::select(keys).prop_map(Value::from),
    ];
    let key = prop_oneof![3 => proptest::sample::select(keys).prop_map(str::to_owned), 1 => ".{0,4}"];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((key.clone(), inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

//! Values held against what they may be, with errors that name the field; must not know any one field.

use std::ops::RangeInclusive;

use mesh_proto::{GenerateError, TokenId};
use serde_json::Value;

use super::super::wire::{Number, Whole};

pub(in crate::api) type Checked<T> = Result<T, GenerateError>;

/// Where a number's range begins.
#[derive(Clone, Copy)]
pub(in crate::api) enum Low {
    /// With this.
    From(f64),
    /// Behind this.
    Above(f64),
}

/// A number between `low` and `high`.
pub(in crate::api) fn number(field: &str, value: Option<Number>, low: Low, high: f64) -> Checked<Option<f32>> {
    let Some(Number(n)) = value else { return Ok(None) };
    let (fits, range) = match low {
        Low::From(low) => ((low..=high).contains(&n), format!("from {low} to {high}")),
        Low::Above(low) => (n > low && n <= high, format!("above {low} and at most {high}")),
    };
    if !fits {
        return Err(GenerateError::invalid(field, format!("`{field}` must be {range}, not {n}")));
    }
    // A value that rounds to 0 as f32 (1e-50) is meant to be small; 0 itself may be out of range.
    let n = n as f32;
    Ok(Some(if matches!(low, Low::Above(0.0)) { n.max(f32::MIN_POSITIVE) } else { n }))
}

/// A whole number within a range.
pub(in crate::api) fn whole(field: &str, value: Option<Whole>, range: RangeInclusive<u32>) -> Checked<Option<u32>> {
    let Some(Whole(n)) = value else { return Ok(None) };
    let fits = u32::try_from(n).ok().filter(|n| range.contains(n));
    fits.map(Some).ok_or_else(|| {
        let range = match range.into_inner() {
            (low, u32::MAX) => format!("at least {low}"),
            (low, high) => format!("from {low} to {high}"),
        };
        GenerateError::invalid(field, format!("`{field}` must be {range}, not {n}"))
    })
}

/// A number of tokens, where −1 sets no limit: `Some(None)`.
pub(in crate::api) fn or_all(field: &str, value: Option<Whole>) -> Checked<Option<Option<u32>>> {
    match value {
        None => Ok(None),
        Some(Whole(-1)) => Ok(Some(None)),
        Some(Whole(n)) if n >= 0 => Ok(Some(Some(u32::try_from(n).unwrap_or(u32::MAX)))),
        Some(Whole(n)) => {
            let message = format!("`{field}` must be a number of tokens, or -1 for no limit, not {n}");
            Err(GenerateError::invalid(field, message))
        }
    }
}

/// A limit on the answer. What is above `u32` is above any context, and the context ends the answer then.
pub(in crate::api) fn limit(field: &str, value: Option<Whole>) -> Checked<Option<u32>> {
    value
        .map(|Whole(n)| {
            if n < 1 {
                return Err(GenerateError::invalid(field, format!("`{field}` must be at least 1, not {n}")));
            }
            Ok(u32::try_from(n).unwrap_or(u32::MAX))
        })
        .transpose()
}

/// The two names of one thing; clients that send both send the same.
pub(in crate::api) fn either<T: PartialEq>(one: (&str, Option<T>), other: (&str, Option<T>)) -> Checked<Option<T>> {
    match (one.1, other.1) {
        (Some(a), Some(b)) if a != b => {
            let message = format!("`{}` and `{}` differ; send one of them", one.0, other.0);
            Err(GenerateError::invalid(one.0, message))
        }
        (a, b) => Ok(a.or(b)),
    }
}

/// A token id of this model, standing at `path`.
pub(in crate::api) fn token(path: &str, id: Option<i128>, vocab_size: u32) -> Checked<TokenId> {
    let id = id.and_then(|id| u32::try_from(id).ok()).filter(|id| *id < vocab_size);
    id.map(TokenId).ok_or_else(|| {
        let field = path.split(['.', '[']).next().unwrap_or(path);
        let last = vocab_size.saturating_sub(1);
        GenerateError::invalid(field, format!("`{path}` is not one of this model's token ids, 0 to {last}"))
    })
}

/// Refuses a value that asks for what does not work here.
pub(in crate::api) fn only(field: &str, is_neutral: bool, neutral: &str) -> Checked<()> {
    if is_neutral {
        return Ok(());
    }
    Err(GenerateError::invalid(field, format!("`{field}` does not work here: leave it out, or send {neutral}")))
}

/// Refuses a value that says anything at all.
pub(in crate::api) fn absent(field: &str, value: Option<&Value>) -> Checked<()> {
    let empty = match value {
        None | Some(Value::Null) => true,
        Some(Value::Array(all)) => all.is_empty(),
        Some(_) => false,
    };
    only(field, empty, "null")
}

//! Models as Anthropic lists them; must not know who serves them.

use axum::Json;
use jiff::Timestamp;
use mesh_proto::GenerateError;
use serde::Serialize;

use crate::{
    api::{
        ApiError,
        uri::{Pairs, pairs},
    },
    router::Listed,
};

/// Models of a page where nothing is said, and at most. Origin: Anthropic.
const LIMIT: (usize, usize) = (20, 1000);

/// A model.
#[derive(Debug, Serialize)]
pub(in crate::api) struct ModelDto {
    #[serde(rename = "type")]
    kind: &'static str,
    id: String,
    display_name: String,
    created_at: String,
    lifecycle: &'static str,
    max_input_tokens: u32,
    max_tokens: u32,
}

/// A page of them.
#[derive(Debug, Serialize)]
pub(in crate::api) struct PageDto {
    data: Vec<ModelDto>,
    first_id: Option<String>,
    last_id: Option<String>,
    has_more: bool,
}

impl From<Listed> for ModelDto {
    fn from(model: Listed) -> Self {
        let created = i64::try_from(model.created).ok().and_then(|second| Timestamp::from_second(second).ok());
        Self {
            kind: "model",
            display_name: model.id.clone(),
            id: model.id,
            created_at: created.unwrap_or_default().to_string(),
            lifecycle: "active",
            max_input_tokens: model.context_tokens,
            // Prompt and answer share the context: an answer may have what is left of it.
            max_tokens: model.context_tokens,
        }
    }
}

/// One model.
pub(in crate::api) fn show(model: Listed) -> Json<ModelDto> {
    Json(model.into())
}

/// A page of the models, in the order of their names.
pub(in crate::api) fn list(models: Vec<Listed>, query: Pairs) -> Result<Json<PageDto>, ApiError> {
    Ok(Json(page(models, &pairs(query)?)?))
}

fn page(models: Vec<Listed>, query: &[(String, String)]) -> Result<PageDto, GenerateError> {
    let refuse = |name: &str, what: String| Err(GenerateError::invalid(name, format!("`{name}` {what}")));
    let (mut limit, mut after, mut before, mut stages) = (LIMIT.0, None, None, Vec::new());
    for (name, value) in query {
        match name.as_str() {
            "limit" => match value.parse() {
                Ok(number) if (1..=LIMIT.1).contains(&number) => limit = number,
                _ => return refuse("limit", format!("must be from 1 to {}, not {value:?}", LIMIT.1)),
            },
            "after_id" => after = Some(value),
            "before_id" => before = Some(value),
            "lifecycle" | "lifecycle[]" => stages.push(value.as_str()),
            "beta" => {}
            _ => return refuse(name, "is not a parameter that works here; leave it out".into()),
        }
    }
    let place = |name: &str, id: &String| match models.iter().position(|model| model.id == *id) {
        Some(at) => Ok(at),
        None => Err(GenerateError::invalid(name, format!("`{name}` {id:?} is no model that is served"))),
    };
    let all = match stages.is_empty() || stages.contains(&"active") {
        true => models.len(),
        false => 0,
    };
    let (from, to) = match (after, before) {
        (None, None) => (0, limit.min(all)),
        (Some(id), None) => {
            let from = (place("after_id", id)? + 1).min(all);
            (from, (from + limit).min(all))
        }
        (None, Some(id)) => {
            let to = place("before_id", id)?.min(all);
            (to.saturating_sub(limit), to)
        }
        (Some(_), Some(_)) => return refuse("before_id", "goes not together with `after_id`".into()),
    };
    // Further on in the direction that was asked for.
    let has_more = if before.is_some() { from > 0 } else { to < all };
    let data: Vec<ModelDto> = models.into_iter().skip(from).take(to - from).map(ModelDto::from).collect();
    let id = |model: Option<&ModelDto>| model.map(|model| model.id.clone());
    Ok(PageDto { first_id: id(data.first()), last_id: id(data.last()), has_more, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn models() -> Vec<Listed> {
        let model = |id: &str| Listed {
            id: id.into(),
            created: 1_790_000_000,
            context_tokens: 4096,
            engine: "mlx".into(),
            family: "f".into(),
            quantization: "q".into(),
            owners: 1,
            capabilities: mesh_proto::record::Capabilities::default(),
        };
        ["a", "b", "c/d", "e"].map(model).into()
    }

    fn ids(query: &[(&str, &str)]) -> Result<(String, bool), String> {
        let query: Vec<(String, String)> = query.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
        let page = page(models(), &query).map_err(|error| error.to_string())?;
        let data: Vec<&str> = page.data.iter().map(|model| model.id.as_str()).collect();
        assert_eq!((page.first_id.as_deref(), page.last_id.as_deref()), (data.first().copied(), data.last().copied()));
        Ok((data.join(" "), page.has_more))
    }

    #[test]
    fn pages_go_both_ways_and_odd_ones_are_refused_by_name() {
        let is =
            |query: &[(&str, &str)], data: &str, more| assert_eq!(ids(query), Ok((data.into(), more)), "{query:?}");
        is(&[], "a b c/d e", false);
        is(&[("limit", "2")], "a b", true);
        is(&[("limit", "2"), ("after_id", "b")], "c/d e", false);
        is(&[("after_id", "e")], "", false);
        is(&[("limit", "1"), ("before_id", "c/d")], "b", true);
        is(&[("before_id", "b")], "a", false);
        is(&[("lifecycle", "retired")], "", false);
        is(&[("lifecycle[]", "retired"), ("lifecycle[]", "active")], "a b c/d e", false);
        for (query, field) in [
            (&[("limit", "0")][..], "`limit`"),
            (&[("limit", "x")], "`limit`"),
            (&[("after_id", "z")], "`after_id`"),
            (&[("before_id", "a"), ("after_id", "b")], "`before_id`"),
            (&[("order", "asc")], "`order`"),
        ] {
            let error = ids(query).unwrap_err();
            assert!(error.contains(field), "{query:?}: {error}");
        }
    }

    #[test]
    fn a_model_says_all_that_the_sdk_knows() {
        let model = models().remove(0);
        insta::assert_json_snapshot!(ModelDto::from(model), @r#"
        {
          "type": "model",
          "id": "a",
          "display_name": "a",
          "created_at": "2026-09-21T14:13:20Z",
          "lifecycle": "active",
          "max_input_tokens": 4096,
          "max_tokens": 4096
        }
        "#);
    }
}

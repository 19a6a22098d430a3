//! Routes that only llama.cpp's server has, for clients that were written for it; must not know how a model answers.
//!
//! `/completion` (its own kind of completion), `/apply-template` and `/v1/chat/completions/input_tokens`. As there, `model`
//! may be left out where one model answers.

pub(super) mod completion;
mod lower;
mod prompt;
mod raise;
mod template;

use axum::{extract::Request, routing::post};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, de::IgnoredAny};

use super::{ApiError, Route, body, openai::parse::parse, tokens};
use crate::router::Router;

/// Its routes.
pub(super) fn table() -> Vec<Route> {
    vec![
        ("/completion", &["POST"], post(completion::serve)),
        ("/apply-template", &["POST"], post(template::apply)),
        ("/v1/chat/completions/input_tokens", &["POST"], post(template::count)),
    ]
}

/// The request's body. One without a model gets the name of the only one there is.
async fn named(router: &Router, request: Request) -> Result<Bytes, ApiError> {
    #[derive(Deserialize)]
    struct Names {
        #[serde(default, deserialize_with = "anything")]
        model: bool,
    }
    fn anything<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
        IgnoredAny::deserialize(value).map(|_| true)
    }
    let bytes = body::read(request).await?;
    if parse::<Names>(&bytes)?.model {
        return Ok(bytes);
    }
    let model = serde_json::Value::from(tokens::only_model(router)?.as_str());
    // What the client wrote stays as it is, order and all: templates may show it to the model.
    let rest = bytes.trim_ascii_start().get(1..).unwrap_or_default();
    let comma = if rest.trim_ascii_start().starts_with(b"}") { "" } else { "," };
    Ok([format!("{{\"model\":{model}{comma}").as_bytes(), rest].concat().into())
}

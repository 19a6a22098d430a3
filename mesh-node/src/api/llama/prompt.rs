//! `prompt` as llama-server takes it: text, tokens, both in turn, or several of these; must not know sampling.

use std::sync::Arc;

use engine::Engine;
use mesh_proto::{GenerateError, Prompt, TokenId};
use serde::Deserialize;
use serde_json::Value;

use crate::api::openai::{
    lower::check::{Checked, token},
    wire::{Object, Whole},
};

/// Most prompts of one request. As of `/v1/completions`.
const MAX_PROMPTS: usize = 256;

/// `prompt`.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "text, token ids, texts and token ids in turn, or an array of these")]
pub(super) enum Given {
    Text(String),
    Held(Object<Held>),
    Several(Vec<Item>),
}

/// A text in an object, where media may stand beside it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Held {
    prompt_string: String,
    multimodal_data: Option<Value>,
}

/// An element of an array.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "text, a token id, or an array of these")]
pub(super) enum Item {
    Token(Whole),
    Text(String),
    Held(Object<Held>),
    Sequence(Vec<Part>),
}

/// Part of one prompt.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "text or a token id")]
pub(super) enum Part {
    Token(Whole),
    Text(String),
}

/// One prompt.
#[derive(Debug)]
pub(super) enum Source {
    Text(String),
    Parts(Vec<Part>),
}

impl Given {
    /// The prompts, and whether the answer is an array of answers.
    pub(super) fn sources(self) -> Checked<(Vec<Source>, bool)> {
        let (sources, many) = match self {
            Self::Text(text) => (vec![Source::Text(text)], false),
            Self::Held(Object(held)) => (vec![held.source("prompt")?], false),
            Self::Several(items) if items.iter().any(|item| matches!(item, Item::Token(_))) => {
                let parts = items.into_iter().map(|item| match item {
                    Item::Token(token) => Ok(Part::Token(token)),
                    Item::Text(text) => Ok(Part::Text(text)),
                    Item::Held(_) | Item::Sequence(_) => {
                        let message = "`prompt`: beside a token id there may be texts and token ids alone";
                        Err(GenerateError::invalid("prompt", message))
                    }
                });
                (vec![Source::Parts(parts.collect::<Checked<_>>()?)], false)
            }
            Self::Several(items) => {
                let sources = items.into_iter().enumerate().map(|(at, item)| match item {
                    Item::Text(text) => Ok(Source::Text(text)),
                    Item::Held(Object(held)) => held.source(&format!("prompt[{at}]")),
                    Item::Sequence(parts) => Ok(Source::Parts(parts)),
                    Item::Token(token) => Ok(Source::Parts(vec![Part::Token(token)])),
                });
                (sources.collect::<Checked<_>>()?, true)
            }
        };
        if sources.is_empty() || sources.len() > MAX_PROMPTS {
            let message = format!("`prompt` must have 1 to {MAX_PROMPTS} prompts, not {}", sources.len());
            return Err(GenerateError::invalid("prompt", message));
        }
        Ok((sources, many))
    }
}

impl Held {
    fn source(self, path: &str) -> Checked<Source> {
        let media = self.multimodal_data.as_ref();
        if media.is_some_and(|media| !media.is_null() && media.as_array().is_none_or(|all| !all.is_empty())) {
            let message = format!("`{path}.multimodal_data`: this model has no eyes and no ears");
            return Err(GenerateError::invalid("prompt", message));
        }
        Ok(Source::Text(self.prompt_string))
    }
}

impl Source {
    /// What the engine is given. Texts between tokens are tokenised by `engine`, where the model is in this process.
    pub(super) async fn prompt(self, engine: Option<&Arc<dyn Engine>>, vocab_size: u32) -> Checked<Prompt> {
        let parts = match self {
            Self::Text(text) => return Ok(Prompt::Text(text)),
            Self::Parts(parts) => parts,
        };
        if parts.is_empty() {
            return Err(GenerateError::invalid("prompt", "`prompt` has an empty array of token ids"));
        }
        let mut tokens: Vec<TokenId> = Vec::new();
        for (at, part) in parts.into_iter().enumerate() {
            match part {
                Part::Token(id) => tokens.push(token(&format!("prompt[{at}]"), Some(id.0), vocab_size)?),
                // The tokenizer's own beginning goes before a text that comes first.
                Part::Text(text) => tokens.extend(local("prompt", engine)?.tokenize(text, at == 0).await?),
            }
        }
        Ok(Prompt::Tokens(tokens))
    }
}

/// The engine, for what only a node can do that has the model itself.
pub(super) fn local<'a>(field: &str, engine: Option<&'a Arc<dyn Engine>>) -> Checked<&'a Arc<dyn Engine>> {
    engine.ok_or_else(|| {
        let message =
            format!("`{field}`: texts become tokens where the model is, and other nodes have it: send token ids");
        GenerateError::invalid(field, message)
    })
}

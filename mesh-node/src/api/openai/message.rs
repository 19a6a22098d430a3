//! Messages and tools as OpenAI's clients send them; must not know what a template makes of them.

use std::fmt;

use mesh_proto::Role;
use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, SeqAccess, Visitor},
};
use serde_json::Value;

use super::wire::Object;

/// One turn. Clients send back what they received, so an assistant's turn may carry all that ours do.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct MessageDto {
    pub(in crate::api) role: Role,
    pub(in crate::api) content: Option<Content>,
    pub(in crate::api) name: Option<String>,
    pub(in crate::api) reasoning_content: Option<String>,
    pub(in crate::api) reasoning: Option<String>,
    pub(in crate::api) tool_calls: Option<Vec<Object<ToolCallDto>>>,
    pub(in crate::api) tool_call_id: Option<String>,
    pub(in crate::api) refusal: Option<String>,
    pub(in crate::api) audio: Option<Value>,
    pub(in crate::api) function_call: Option<Value>,
    // Said of a turn, not to the model; accepted and dropped.
    #[serde(rename = "annotations")]
    _annotations: Option<IgnoredAny>,
    #[serde(rename = "parsed")]
    _parsed: Option<IgnoredAny>,
    #[serde(rename = "cache_control")]
    _cache_control: Option<IgnoredAny>,
    #[serde(rename = "reasoning_details")]
    _reasoning_details: Option<IgnoredAny>,
    #[serde(rename = "provider_specific_fields")]
    _provider_specific_fields: Option<IgnoredAny>,
}

/// A call of an earlier turn. It is history, so fields that we do not know are let through.
#[derive(Debug, Deserialize)]
pub(in crate::api) struct ToolCallDto {
    pub(in crate::api) id: String,
    #[serde(rename = "type")]
    pub(in crate::api) kind: Option<String>,
    pub(in crate::api) function: Object<CalledDto>,
}

/// What was called.
#[derive(Debug, Deserialize)]
pub(in crate::api) struct CalledDto {
    pub(in crate::api) name: String,
    pub(in crate::api) arguments: Arguments,
}

/// Arguments: JSON text, as OpenAI has it; an object, as Ollama's clients send it, becomes text.
#[derive(Debug)]
pub(in crate::api) struct Arguments(pub(in crate::api) String);

impl<'de> Deserialize<'de> for Arguments {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self(text)),
            Value::Null => Ok(Self("{}".into())),
            object @ Value::Object(_) => Ok(Self(object.to_string())),
            _ => Err(de::Error::custom("invalid type: expected JSON text")),
        }
    }
}

/// A turn's content.
#[derive(Debug)]
pub(in crate::api) enum Content {
    /// `"…"`.
    Text(String),
    /// `[{"type": "text", "text": "…"}, …]`.
    Parts(Vec<PartDto>),
}

/// A part of a turn's content.
#[derive(Debug, Deserialize)]
pub(in crate::api) struct PartDto {
    #[serde(rename = "type")]
    pub(in crate::api) kind: String,
    pub(in crate::api) text: Option<String>,
    pub(in crate::api) refusal: Option<String>,
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrParts;
        impl<'de> Visitor<'de> for TextOrParts {
            type Value = Content;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text or an array of parts")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Content, E> {
                Ok(Content::Text(text.to_owned()))
            }
            fn visit_string<E: de::Error>(self, text: String) -> Result<Content, E> {
                Ok(Content::Text(text))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content, A::Error> {
                let mut parts = Vec::new();
                while let Some(Object(part)) = seq.next_element()? {
                    parts.push(part);
                }
                Ok(Content::Parts(parts))
            }
        }
        deserializer.deserialize_any(TextOrParts)
    }
}

/// A function offered to the model, as far as we look into it; the template gets all of it.
#[derive(Debug, Deserialize)]
pub(in crate::api) struct ToolDto {
    pub(in crate::api) function: Object<FunctionDto>,
}

/// The function's definition.
#[derive(Debug, Deserialize)]
pub(in crate::api) struct FunctionDto {
    pub(in crate::api) name: String,
    #[serde(rename = "parameters")]
    _parameters: Option<Object<Value>>,
    #[serde(rename = "description")]
    _description: Option<String>,
}

//! Items as the Responses API's clients send them, new ones and those of earlier answers; must not know what a template
//! makes of them.

use std::fmt;

use mesh_proto::Role;
use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::api::openai::wire::Object;

/// `input`.
#[derive(Debug)]
pub(super) enum Input {
    /// `"…"`: what a person says.
    Text(String),
    /// `[{"type": …}, …]`, each to be read when its type is known.
    Items(Vec<Box<RawValue>>),
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_all(deserializer, "text or an array of items", Input::Text, Input::Items)
    }
}

/// What a message or a tool's result says.
#[derive(Debug)]
pub(super) enum Content {
    /// `"…"`.
    Text(String),
    /// `[{"type": "input_text", "text": "…"}, …]`.
    Parts(Vec<Object<PartDto>>),
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_all(deserializer, "text or an array of parts", Content::Text, Content::Parts)
    }
}

fn text_or_all<'de, D: Deserializer<'de>, T: Deserialize<'de>, R>(
    deserializer: D,
    expected: &'static str,
    text: fn(String) -> R,
    all: fn(Vec<T>) -> R,
) -> Result<R, D::Error> {
    struct TextOrAll<T, R> {
        expected: &'static str,
        text: fn(String) -> R,
        all: fn(Vec<T>) -> R,
    }
    impl<'de, T: Deserialize<'de>, R> Visitor<'de> for TextOrAll<T, R> {
        type Value = R;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.expected)
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<R, E> {
            Ok((self.text)(text.to_owned()))
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<R, A::Error> {
            let mut all = Vec::new();
            while let Some(one) = seq.next_element()? {
                all.push(one);
            }
            Ok((self.all)(all))
        }
    }
    deserializer.deserialize_any(TextOrAll { expected, text, all })
}

/// A part of a message. Parts of earlier answers carry more (`annotations`, `logprobs`), which is let through.
#[derive(Debug, Deserialize)]
pub(super) struct PartDto {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) text: Option<String>,
    pub(super) refusal: Option<String>,
}

/// What tells which item it is.
#[derive(Debug, Deserialize)]
pub(super) struct Kind {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) role: Option<IgnoredAny>,
    pub(super) id: Option<String>,
}

impl Kind {
    /// Its type: a message's and a reference's may be left out.
    pub(super) fn word(&self) -> Option<&str> {
        match (&self.kind, &self.role, &self.id) {
            (Some(kind), ..) => Some(kind),
            (None, Some(_), _) => Some("message"),
            (None, None, Some(_)) => Some("item_reference"),
            (None, None, None) => None,
        }
    }
}

/// `message`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MessageItem {
    pub(super) role: Role,
    pub(super) content: Content,
    #[serde(rename = "type")]
    _kind: Option<IgnoredAny>,
    #[serde(rename = "id")]
    _id: Option<IgnoredAny>,
    #[serde(rename = "status")]
    _status: Option<IgnoredAny>,
    #[serde(rename = "phase")]
    _phase: Option<IgnoredAny>,
}

/// `function_call`, and `custom_tool_call`, which has an `input` in place of arguments. They are history, so fields that
/// we do not know are let through.
#[derive(Debug, Deserialize)]
pub(super) struct CallItem {
    pub(super) call_id: String,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    pub(super) arguments: Option<String>,
    pub(super) input: Option<String>,
}

/// `function_call_output` and `custom_tool_call_output`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OutputItem {
    pub(super) call_id: String,
    pub(super) output: Content,
    #[serde(rename = "type")]
    _kind: Option<IgnoredAny>,
    #[serde(rename = "id")]
    _id: Option<IgnoredAny>,
    #[serde(rename = "status")]
    _status: Option<IgnoredAny>,
    #[serde(rename = "name")]
    _name: Option<IgnoredAny>,
    #[serde(rename = "namespace")]
    _namespace: Option<IgnoredAny>,
    #[serde(rename = "caller")]
    _caller: Option<IgnoredAny>,
}

/// `reasoning`. It is history, as calls are.
#[derive(Debug, Deserialize)]
pub(super) struct ReasoningItem {
    pub(super) content: Option<Vec<Object<PartDto>>>,
    pub(super) summary: Option<Vec<Object<PartDto>>>,
    pub(super) encrypted_content: Option<String>,
}

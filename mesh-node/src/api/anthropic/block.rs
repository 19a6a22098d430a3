//! Messages, their blocks, and tools as Anthropic's clients send them; must not know what a template makes of them.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, SeqAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

use crate::api::openai::wire::Object;

/// One turn.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MessageDto {
    pub(super) role: Speaker,
    pub(super) content: Content,
}

/// Who speaks. `System` among the messages came with Claude Code 2.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Speaker {
    User,
    Assistant,
    System,
}

/// What is said.
#[derive(Debug)]
pub(super) enum Content {
    /// `"…"`.
    Text(String),
    /// `[{"type": …}, …]`, each to be read when its type is known.
    Blocks(Vec<Box<RawValue>>),
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrBlocks;
        impl<'de> Visitor<'de> for TextOrBlocks {
            type Value = Content;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text or an array of content blocks")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Content, E> {
                Ok(Content::Text(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content, A::Error> {
                let mut blocks = Vec::new();
                while let Some(block) = seq.next_element()? {
                    blocks.push(block);
                }
                Ok(Content::Blocks(blocks))
            }
        }
        deserializer.deserialize_any(TextOrBlocks)
    }
}

/// What tells which block, or which tool, it is.
#[derive(Debug, Deserialize)]
pub(super) struct Kind {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
}

/// `text`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TextBlock {
    #[serde(rename = "type")]
    _kind: IgnoredAny,
    pub(super) text: String,
    #[serde(rename = "cache_control")]
    _cache_control: Option<IgnoredAny>,
    #[serde(rename = "citations")]
    _citations: Option<IgnoredAny>,
}

/// `tool_result`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ToolResultBlock {
    #[serde(rename = "type")]
    _kind: IgnoredAny,
    pub(super) tool_use_id: String,
    pub(super) content: Option<Content>,
    pub(super) is_error: Option<bool>,
    #[serde(rename = "cache_control")]
    _cache_control: Option<IgnoredAny>,
}

/// `document`, as far as it is text.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DocumentBlock {
    #[serde(rename = "type")]
    _kind: IgnoredAny,
    pub(super) source: Object<DocumentSource>,
    pub(super) title: Option<String>,
    pub(super) context: Option<String>,
    pub(super) citations: Option<Object<Citations>>,
    #[serde(rename = "cache_control")]
    _cache_control: Option<IgnoredAny>,
}

/// Where a document's text is.
#[derive(Debug, Deserialize)]
pub(super) struct DocumentSource {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) data: Option<String>,
}

/// `citations` of a document.
#[derive(Debug, Deserialize)]
pub(super) struct Citations {
    pub(super) enabled: Option<bool>,
}

/// A block of an earlier answer. It is history, ours or another server's, so fields that we do not know are let through.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Said {
    /// What was said.
    Text {
        /// The text.
        text: String,
    },
    /// What was thought.
    Thinking {
        /// The thought; empty where the client wanted to see none.
        thinking: String,
        /// What carries it then.
        signature: Option<String>,
    },
    /// A call.
    ToolUse {
        /// Links it to its result.
        id: String,
        /// The tool.
        name: String,
        /// Its arguments.
        input: Value,
    },
}

/// `tools[…]` of a client's own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ToolDto {
    #[serde(rename = "type")]
    _kind: Option<IgnoredAny>,
    pub(super) name: String,
    pub(super) description: Option<String>,
    pub(super) input_schema: Box<RawValue>,
    pub(super) strict: Option<bool>,
    // How a service would send, cache and find it; and examples, which templates have no place for.
    #[serde(rename = "cache_control")]
    _cache_control: Option<IgnoredAny>,
    #[serde(rename = "eager_input_streaming")]
    _eager_input_streaming: Option<IgnoredAny>,
    #[serde(rename = "defer_loading")]
    _defer_loading: Option<IgnoredAny>,
    #[serde(rename = "allowed_callers")]
    _allowed_callers: Option<IgnoredAny>,
    #[serde(rename = "input_examples")]
    _input_examples: Option<IgnoredAny>,
}

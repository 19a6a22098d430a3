//! A conversation as templates see it: OpenAI-shaped dictionaries; must not know how a template is run.

use mesh_proto::{ChatPrompt, GenerateError, Message, Role, ToolDefinition};
use minijinja::Value;
use serde_json::Value as Json;

use super::json::to_value;

/// The offered tools, in the client's own key order; `None` when there are none.
///
/// # Errors
/// `Invalid` on `tools` when a definition is no JSON.
pub(crate) fn tools(tools: &[ToolDefinition]) -> Result<Option<Value>, GenerateError> {
    if tools.is_empty() {
        return Ok(None);
    }
    let mut values = Vec::with_capacity(tools.len());
    for tool in tools {
        let json: Json = serde_json::from_str(&tool.json)
            .map_err(|error| GenerateError::invalid("tools", format!("tool `{}` is no JSON: {error}", tool.name)))?;
        values.push(to_value(&json));
    }
    Ok(Some(Value::from(values)))
}

/// Messages that are JSON already, with their reasoning under the names that transformers adds.
pub(crate) fn from_json(messages: &Json) -> Value {
    let mut messages = messages.clone();
    for message in messages.as_array_mut().into_iter().flatten().filter_map(Json::as_object_mut) {
        let names = ["reasoning_content", "thinking", "reasoning"];
        let found = names.iter().find_map(|name| message.get(*name).filter(|reasoning| !reasoning.is_null()));
        if let Some(reasoning) = found.cloned() {
            if !message.contains_key("thinking") {
                message.shift_insert(0, "thinking".to_owned(), reasoning.clone());
            }
            message.insert("reasoning_content".to_owned(), reasoning);
        }
    }
    to_value(&messages)
}

/// How the messages may be put, best first. Clients send `content: null` with tool calls, and templates differ in
/// what they make of it and of the calls' arguments; so a rendering that fails is tried again
///
/// 1. with `""` for contents that are null (templates that concatenate the content),
/// 2. with arguments as JSON text rather than objects (templates that concatenate the arguments),
/// 3. with both.
///
/// Variants that would be the same as one before are left out.
pub(crate) fn variants(chat: &ChatPrompt, template: &str) -> impl Iterator<Item = Value> {
    // In quotes, as a role that it compares: a tool or a comment may have the word too.
    let knows_developer = template.contains("'developer'") || template.contains("\"developer\"");
    let short_ids = template.contains("length != 9");
    let null = chat.messages.iter().any(|message| message.content.is_none());
    let objects = chat.messages.iter().flat_map(|message| &message.tool_calls).any(|call| is_object(&call.arguments));
    let forms = [(true, true), (false, true), (true, false), (false, false)];
    forms.into_iter().filter(move |(keep_null, keep_objects)| (null || *keep_null) && (objects || *keep_objects)).map(
        move |(keep_null, keep_objects)| {
            let form = Form { knows_developer, short_ids, keep_null, keep_objects };
            Value::from(chat.messages.iter().map(|message| form.message(message)).collect::<Vec<_>>())
        },
    )
}

#[derive(Clone, Copy)]
struct Form {
    knows_developer: bool,
    /// Mistral's templates refuse ids of any other shape; a conversation that another model began has others.
    short_ids: bool,
    keep_null: bool,
    keep_objects: bool,
}

impl Form {
    fn message(self, message: &Message) -> Value {
        let role = match message.role {
            Role::Developer if self.knows_developer => "developer",
            Role::System | Role::Developer => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        };
        let content = match &message.content {
            Some(text) => Value::from(text),
            None if self.keep_null => Value::from(()),
            None => Value::from(""),
        };
        let mut dict = Vec::new();
        // Under both names, as transformers does: gpt-oss's template reads the older one.
        if let Some(reasoning) = &message.reasoning {
            dict.push(("thinking", Value::from(reasoning)));
            dict.push(("reasoning_content", Value::from(reasoning)));
        }
        dict.push(("role", Value::from(role)));
        dict.push(("content", content));
        if !message.tool_calls.is_empty() {
            let calls = message.tool_calls.iter().map(|call| {
                let function = vec![("name", Value::from(&call.name)), ("arguments", self.arguments(&call.arguments))];
                dictionary(vec![
                    ("id", Value::from(self.id(&call.id))),
                    ("type", Value::from("function")),
                    ("function", dictionary(function)),
                ])
            });
            dict.push(("tool_calls", Value::from(calls.collect::<Vec<_>>())));
        }
        if let Some(id) = &message.tool_call_id {
            dict.push(("tool_call_id", Value::from(self.id(id))));
        }
        if let Some(name) = &message.name {
            dict.push(("name", Value::from(name)));
        }
        dictionary(dict)
    }

    fn id(self, id: &str) -> String {
        if !self.short_ids || (id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric())) {
            return id.to_owned();
        }
        // FNV-1a: the same on every host, so that a request which moves renders the same prompt.
        let hash = id
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        let digits = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        (0..9)
            .scan(hash, |rest, _| {
                let digit = digits.get((*rest % 62) as usize).copied().unwrap_or(b'0');
                *rest /= 62;
                Some(char::from(digit))
            })
            .collect()
    }

    fn arguments(self, text: &str) -> Value {
        match serde_json::from_str::<Json>(text) {
            Ok(json) if self.keep_objects && json.is_object() => to_value(&json),
            _ => Value::from(text),
        }
    }
}

fn is_object(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

fn dictionary(entries: Vec<(&'static str, Value)>) -> Value {
    Value::from_pairs(entries)
}

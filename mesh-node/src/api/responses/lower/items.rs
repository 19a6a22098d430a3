//! A conversation's items; must not know tools or sampling.

use mesh_proto::{GenerateError, Message, Role, ToolCall};
use serde_json::{Value, json, value::RawValue};

use super::{
    super::{
        item::{CallItem, Content, Kind, MessageItem, OutputItem, PartDto, ReasoningItem},
        store::Item,
    },
    tools::flat,
};
use crate::api::{
    ApiError,
    openai::{parse::parse_at, wire::Object},
    thought, turns,
};

type Lowered<T> = Result<T, ApiError>;

/// The turns that instructions and items make.
pub(super) fn turns(
    instructions: Option<&str>,
    earlier: &[Box<RawValue>],
    input: &[Box<RawValue>],
) -> Lowered<Vec<Message>> {
    let mut all: Vec<Message> = instructions.map(|text| Message::text(Role::System, text)).into_iter().collect();
    for (at, item) in earlier.iter().enumerate() {
        // It was taken once, so it is not refused now.
        all.extend(turn(&format!("previous_response_id.items[{at}]"), item)?);
    }
    for (at, item) in input.iter().enumerate() {
        all.extend(turn(&format!("input[{at}]"), item)?);
    }
    if all.iter().all(|turn| matches!(turn.role, Role::System | Role::Developer)) {
        let message = "`input` must say something; instructions alone ask for nothing";
        return Err(GenerateError::invalid("input", message).into());
    }
    Ok(turns::settle(all))
}

/// The turn that an item makes; some make none.
fn turn(path: &str, item: &RawValue) -> Lowered<Option<Message>> {
    let kind: Kind = parse_at(path, item.get())?;
    let field = format!("{path}.type");
    let Some(kind) = kind.word() else {
        return Err(GenerateError::invalid(&field, format!("`{field}` is missing")).into());
    };
    match kind {
        "message" => message(path, parse_at(path, item.get())?).map(Some),
        "function_call" | "custom_tool_call" => call(path, kind, parse_at(path, item.get())?).map(Some),
        "function_call_output" | "custom_tool_call_output" => {
            let OutputItem { call_id, output, .. } = parse_at(path, item.get())?;
            let said = text(&format!("{path}.output"), output)?;
            Ok(Some(Message { tool_call_id: Some(call_id), ..Message::text(Role::Tool, said) }))
        }
        "reasoning" => Ok(reasoning(parse_at(path, item.get())?)),
        // The doings of a service's own tool: what it found went into the answer.
        "web_search_call" => Ok(None),
        other => {
            let message =
                format!("`{field}` {other:?} does not work here; messages, calls, their outputs and reasoning do");
            Err(GenerateError::invalid(field, message).into())
        }
    }
}

fn message(path: &str, dto: MessageItem) -> Lowered<Message> {
    if dto.role == Role::Tool {
        let field = format!("{path}.role");
        let message =
            format!("`{field}` must be user, assistant, system or developer; a tool's output is an item of its own");
        return Err(GenerateError::invalid(field, message).into());
    }
    Ok(Message::text(dto.role, text(&format!("{path}.content"), dto.content)?))
}

fn call(path: &str, kind: &str, dto: CallItem) -> Lowered<Message> {
    let CallItem { call_id, namespace, name, arguments, input } = dto;
    let missing = |field: &str| {
        let field = format!("{path}.{field}");
        GenerateError::invalid(&field, format!("`{field}` is missing"))
    };
    let arguments = if kind == "function_call" {
        arguments.ok_or_else(|| missing("arguments"))?
    } else {
        json!({ "input": input.ok_or_else(|| missing("input"))? }).to_string()
    };
    let name = flat(namespace.as_deref(), &name);
    let tool_calls = vec![ToolCall { id: call_id, name, arguments }];
    Ok(Message { content: None, tool_calls, ..Message::text(Role::Assistant, "") })
}

/// Reasoning in clear, or as we sealed it; a summary is better than nothing.
fn reasoning(dto: ReasoningItem) -> Option<Message> {
    let texts = |parts: Option<Vec<Object<PartDto>>>| -> String {
        parts.unwrap_or_default().into_iter().filter_map(|Object(part)| part.text).collect::<Vec<_>>().join("\n")
    };
    let sealed = || dto.encrypted_content.as_deref().and_then(thought::open);
    let clear = Some(texts(dto.content)).filter(|text| !text.is_empty());
    let thought = clear.or_else(sealed).unwrap_or_else(|| texts(dto.summary));
    let told = Message { content: None, ..Message::text(Role::Assistant, "") };
    (!thought.is_empty()).then_some(Message { reasoning: Some(thought), ..told })
}

fn text(path: &str, content: Content) -> Lowered<String> {
    match content {
        Content::Text(text) => Ok(text),
        Content::Parts(parts) => {
            parts.into_iter().enumerate().map(|(at, Object(dto))| part(&format!("{path}[{at}]"), dto)).collect()
        }
    }
}

fn part(path: &str, dto: PartDto) -> Lowered<String> {
    let lacks = match dto.kind.as_str() {
        "input_text" | "output_text" | "text" => {
            let field = format!("{path}.text");
            let missing = || GenerateError::invalid(&field, format!("`{field}` is missing"));
            return Ok(dto.text.ok_or_else(missing)?);
        }
        "refusal" => return Ok(dto.refusal.unwrap_or_default()),
        "input_audio" => "has no ears",
        "input_file" => "reads no files",
        _ => "has no eyes",
    };
    let message = format!("`{path}` is of type {:?}, and this model {lacks}; it reads \"input_text\"", dto.kind);
    Err(GenerateError::invalid(path, message).into())
}

/// A person's words as an item.
pub(in super::super) fn said(text: &str) -> Lowered<Box<RawValue>> {
    raw(&json!({ "type": "message", "role": "user", "content": [{ "type": "input_text", "text": text }] }))
        .ok_or_else(ApiError::bug)
}

fn raw(value: &Value) -> Option<Box<RawValue>> {
    serde_json::value::to_raw_value(value).ok()
}

/// Items as they are kept and listed: each with an id, a type and a status, a message's content in parts.
pub(in super::super) fn resources(number: &str, items: &[Box<RawValue>]) -> Vec<Item> {
    let resource = |(at, item): (usize, &RawValue)| {
        let mut value: Value = serde_json::from_str(item.get()).ok()?;
        let fields = value.as_object_mut()?;
        let kind = fields.get("type").and_then(Value::as_str).unwrap_or("message").to_owned();
        let prefix = match kind.as_str() {
            "message" => "msg",
            "reasoning" => "rs",
            "function_call" => "fc",
            "function_call_output" => "fco",
            _ => "item",
        };
        let id = fields.get("id").and_then(Value::as_str).map(str::to_owned);
        let id = id.filter(|id| !id.is_empty()).unwrap_or_else(|| format!("{prefix}_{number}in{at}"));
        fields.insert("id".into(), id.clone().into());
        fields.insert("type".into(), kind.clone().into());
        if kind == "message" {
            fields.entry("status").or_insert_with(|| "completed".into());
            let says =
                if fields.get("role").is_some_and(|role| role == "assistant") { "output_text" } else { "input_text" };
            if let Some(Value::String(text)) = fields.get("content") {
                let mut part = json!({ "type": says, "text": text });
                if let ("output_text", Some(part)) = (says, part.as_object_mut()) {
                    part.insert("annotations".into(), json!([]));
                }
                fields.insert("content".into(), Value::Array(vec![part]));
            }
        }
        Some(Item { id, json: raw(&value)? })
    };
    items.iter().map(|item| &**item).enumerate().filter_map(resource).collect()
}

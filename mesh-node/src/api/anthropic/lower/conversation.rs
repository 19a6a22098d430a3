//! The conversation: system, messages and their blocks; must not know tools or sampling.

use mesh_proto::{GenerateError, Message, Role, ToolCall};
use serde_json::{Value, value::RawValue};

use super::super::{
    block::{Content, DocumentBlock, Kind, MessageDto, Said, Speaker, TextBlock, ToolResultBlock},
    messages::EditDto,
};
use crate::api::{
    ApiError,
    fields::check,
    openai::{parse::parse_at, wire::Object},
    thought, turns,
};

/// What stands between blocks of text that a client sends.
const BETWEEN: &str = "\n";
/// A system block that begins so is Claude Code's accounting, and differs from request to request: in the prompt it
/// would say nothing to the model, and keep its KV from ever being used again.
const ACCOUNTING: &str = "x-anthropic-billing-header:";

type Lowered<T> = Result<T, ApiError>;

pub(super) fn turns(
    system: Option<Content>,
    messages: Vec<Object<MessageDto>>,
    edits: Vec<Object<EditDto>>,
) -> Lowered<Vec<Message>> {
    if messages.is_empty() {
        return Err(GenerateError::invalid("messages", "`messages` must have at least one message").into());
    }
    let last = messages.len() - 1;
    // No engine goes on within a turn that it did not begin; nor do Anthropic's newer models.
    check("messages", messages[last].0.role != Speaker::Assistant, || {
        "must end with a user's message: an answer that is begun already (prefill) cannot be gone on with".into()
    })?;
    let mut all = Vec::new();
    if let Some(system) = system {
        let text = texts("system", system)?;
        if !text.is_empty() {
            all.push(Message::text(Role::System, text));
        }
    }
    for (at, Object(message)) in messages.into_iter().enumerate() {
        let path = format!("messages[{at}].content");
        match message.role {
            Speaker::System => all.push(Message::text(Role::System, texts(&path, message.content)?)),
            Speaker::User => user(&path, message.content, &mut all)?,
            Speaker::Assistant => all.push(assistant(&path, message.content)?),
        }
    }
    for (at, Object(edit)) in edits.into_iter().enumerate() {
        forget(&format!("context_management.edits[{at}]"), &edit, &mut all)?;
    }
    Ok(turns::settle(all))
}

/// The blocks' raw texts with their paths.
fn each(path: &str, blocks: Vec<Box<RawValue>>) -> impl Iterator<Item = (String, Box<RawValue>)> {
    blocks.into_iter().enumerate().map(move |(at, raw)| (format!("{path}[{at}]"), raw))
}

fn kind(path: &str, raw: &RawValue) -> Lowered<String> {
    let Kind { kind } = parse_at(path, raw.get())?;
    let field = format!("{path}.type");
    kind.ok_or_else(|| GenerateError::invalid(&field, format!("`{field}` is missing")).into())
}

/// Content that is only text.
fn texts(path: &str, content: Content) -> Lowered<String> {
    let blocks = match content {
        Content::Text(text) => return Ok(text),
        Content::Blocks(blocks) => blocks,
    };
    let mut texts = Vec::new();
    for (path, raw) in each(path, blocks) {
        let kind = kind(&path, &raw)?;
        let text = text(&path, &kind, &raw)?;
        if !text.starts_with(ACCOUNTING) {
            texts.push(text);
        }
    }
    Ok(texts.join(BETWEEN))
}

/// A block that is, or holds, text; whatever else there is is refused by its type.
fn text(path: &str, kind: &str, raw: &RawValue) -> Lowered<String> {
    match kind {
        "text" => Ok(parse_at::<TextBlock>(path, raw.get())?.text),
        "document" => document(path, parse_at(path, raw.get())?),
        "image" => Err(blind(path, kind)),
        _ => {
            let message = format!("`{path}` is of type {kind:?}, which does not work here; it takes text");
            Err(GenerateError::invalid(path, message).into())
        }
    }
}

fn blind(path: &str, kind: &str) -> ApiError {
    let message = format!("`{path}` is of type {kind:?}, and this model has no eyes; it reads text");
    GenerateError::invalid(path, message).into()
}

fn document(path: &str, dto: DocumentBlock) -> Lowered<String> {
    let cited = dto.citations.is_some_and(|Object(citations)| citations.enabled == Some(true));
    check(&format!("{path}.citations"), !cited, || "does not work here; leave it out".into())?;
    let Object(source) = dto.source;
    match (source.kind.as_str(), source.data) {
        ("text", Some(data)) => {
            let parts = [dto.title, dto.context, Some(data)];
            Ok(parts.into_iter().flatten().collect::<Vec<_>>().join(BETWEEN))
        }
        (kind, _) => Err(blind(&format!("{path}.source"), kind)),
    }
}

/// A person's turn: results of tools each become a turn of their own, and what is said besides comes after them.
fn user(path: &str, content: Content, all: &mut Vec<Message>) -> Lowered<()> {
    let blocks = match content {
        Content::Text(text) => {
            all.push(Message::text(Role::User, text));
            return Ok(());
        }
        Content::Blocks(blocks) => blocks,
    };
    let mut said = Vec::new();
    let results = all.len();
    for (path, raw) in each(path, blocks) {
        match kind(&path, &raw)?.as_str() {
            "tool_result" => all.push(result(&path, parse_at(&path, raw.get())?)?),
            kind => said.push(text(&path, kind, &raw)?),
        }
    }
    if !said.is_empty() || all.len() == results {
        all.push(Message::text(Role::User, said.join(BETWEEN)));
    }
    Ok(())
}

fn result(path: &str, dto: ToolResultBlock) -> Lowered<Message> {
    let blocks = match dto.content {
        None => Vec::new(),
        Some(Content::Text(text)) => vec![text],
        Some(Content::Blocks(blocks)) => each(&format!("{path}.content"), blocks)
            .map(|(path, raw)| text(&path, &kind(&path, &raw)?, &raw))
            .collect::<Lowered<_>>()?,
    };
    let mut content = blocks.join(BETWEEN);
    // Templates know no failed results, so it is said.
    if dto.is_error == Some(true) {
        content.insert_str(0, "Error: ");
    }
    Ok(Message { tool_call_id: Some(dto.tool_use_id), ..Message::text(Role::Tool, content) })
}

/// An earlier answer, put together as it was said.
fn assistant(path: &str, content: Content) -> Lowered<Message> {
    let blocks = match content {
        Content::Text(text) => return Ok(Message::text(Role::Assistant, text)),
        Content::Blocks(blocks) => blocks,
    };
    let (mut said, mut thoughts, mut tool_calls) = (Vec::new(), Vec::new(), Vec::new());
    for (path, raw) in each(path, blocks) {
        let kind = kind(&path, &raw)?;
        match kind.as_str() {
            "text" | "thinking" | "tool_use" => {}
            // Locked up by Anthropic's servers, or their tools' doings: nobody here can read what they hold.
            "redacted_thinking" | "server_tool_use" => continue,
            kind if kind.ends_with("_tool_result") => continue,
            _ => return Err(text(&path, &kind, &raw).err().unwrap_or_else(|| blind(&path, &kind))),
        }
        match parse_at(&path, raw.get())? {
            Said::Text { text } => said.push(text),
            Said::Thinking { thinking, signature } if thinking.is_empty() => {
                thoughts.extend(signature.as_deref().and_then(thought::open));
            }
            Said::Thinking { thinking, .. } => thoughts.push(thinking),
            Said::ToolUse { id, name, input } => {
                check(&format!("{path}.input"), input.is_object(), || "must be an object".into())?;
                tool_calls.push(ToolCall { id, name, arguments: input.to_string() });
            }
        }
    }
    let (said, thoughts) = (said.concat(), thoughts.join(BETWEEN));
    Ok(Message {
        content: (!said.is_empty() || tool_calls.is_empty()).then_some(said),
        reasoning: (!thoughts.is_empty()).then_some(thoughts),
        tool_calls,
        ..Message::text(Role::Assistant, "")
    })
}

/// `context_management.edits`: the one that there is forgets old thoughts.
fn forget(path: &str, edit: &EditDto, all: &mut [Message]) -> Lowered<()> {
    let field = format!("{path}.type");
    check(&field, edit.kind == "clear_thinking_20251015", || {
        format!("{:?} does not work here; \"clear_thinking_20251015\" does", edit.kind)
    })?;
    let field = format!("{path}.keep");
    let keep = match &edit.keep {
        None | Some(Value::Null) => 1,
        Some(Value::String(word)) if word == "all" => return Ok(()),
        Some(Value::Object(kept)) => match (kept.get("type").and_then(Value::as_str), kept.get("value")) {
            (Some("all"), _) => return Ok(()),
            (Some("thinking_turns"), Some(value)) => {
                let turns = value.as_u64().and_then(|turns| usize::try_from(turns).ok()).filter(|turns| *turns > 0);
                turns.ok_or_else(|| GenerateError::invalid(&field, format!("`{field}.value` must be at least 1")))?
            }
            _ => return Err(keeps(&field)),
        },
        Some(_) => return Err(keeps(&field)),
    };
    let thoughts = all.iter_mut().rev().filter(|turn| turn.reasoning.is_some());
    thoughts.skip(keep).for_each(|turn| turn.reasoning = None);
    Ok(())
}

fn keeps(field: &str) -> ApiError {
    let message = format!("`{field}` must be \"all\" or {{\"type\": \"thinking_turns\", \"value\": N}}");
    GenerateError::invalid(field, message).into()
}

//! A chat's turns; must not know its other fields.

use mesh_proto::{GenerateError, Message, Role, ToolCall};

use super::{
    super::{
        message::{Content, MessageDto, PartDto, ToolCallDto},
        wire::Object,
    },
    check::Checked,
};

pub(in crate::api) fn message(index: usize, dto: MessageDto) -> Checked<Message> {
    let at = |field: &str| format!("messages[{index}].{field}");
    let missing = |field: &str, who: &str| {
        let field = at(field);
        Err(GenerateError::invalid(&field, format!("`{field}` is missing; {who} message has one")))
    };
    if dto.audio.as_ref().is_some_and(|v| !v.is_null()) {
        return Err(GenerateError::invalid(at("audio"), "this model has no ears: `audio` must be null"));
    }
    if dto.function_call.as_ref().is_some_and(|v| !v.is_null()) {
        return Err(GenerateError::invalid(at("function_call"), "`function_call` is no more; use `tool_calls`"));
    }
    let calls = dto.tool_calls.unwrap_or_default().into_iter().enumerate();
    let tool_calls: Vec<ToolCall> =
        calls.map(|(i, call)| tool_call(&at(&format!("tool_calls[{i}]")), call.0)).collect::<Checked<_>>()?;
    if !tool_calls.is_empty() && dto.role != Role::Assistant {
        return Err(GenerateError::invalid(at("tool_calls"), "only an assistant message calls tools"));
    }
    let content = dto.content.map(|content| text(&at("content"), content)).transpose()?;
    match dto.role {
        Role::Assistant => {}
        Role::Tool if dto.tool_call_id.is_none() => return missing("tool_call_id", "a tool"),
        _ if content.is_none() => return missing("content", "every such"),
        _ => {}
    }
    Ok(Message {
        role: dto.role,
        // An assistant that refused said that instead.
        content: content.or(dto.refusal),
        reasoning: dto.reasoning_content.or(dto.reasoning).filter(|text| !text.is_empty()),
        tool_calls,
        tool_call_id: dto.tool_call_id,
        name: dto.name,
    })
}

fn tool_call(path: &str, dto: ToolCallDto) -> Checked<ToolCall> {
    if dto.kind.as_deref().is_some_and(|kind| kind != "function") {
        let field = format!("{path}.type");
        return Err(GenerateError::invalid(&field, format!("`{field}` must be \"function\"")));
    }
    let Object(called) = dto.function;
    Ok(ToolCall { id: dto.id, name: called.name, arguments: called.arguments.0 })
}

fn text(path: &str, content: Content) -> Checked<String> {
    match content {
        Content::Text(text) => Ok(text),
        Content::Parts(parts) => parts.into_iter().enumerate().map(|(i, p)| part(&format!("{path}[{i}]"), p)).collect(),
    }
}

fn part(path: &str, part: PartDto) -> Checked<String> {
    match part.kind.as_str() {
        "text" => part.text.ok_or_else(|| {
            let field = format!("{path}.text");
            GenerateError::invalid(&field, format!("`{field}` is missing"))
        }),
        "refusal" => Ok(part.refusal.unwrap_or_default()),
        kind => {
            let lacks = if kind.contains("audio") { "ears" } else { "eyes" };
            let message = format!("`{path}` is of type {kind:?}, and this model has no {lacks}; it reads \"text\"");
            Err(GenerateError::invalid(path, message))
        }
    }
}

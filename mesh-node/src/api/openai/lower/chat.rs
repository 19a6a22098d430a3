//! A chat's fields; must not know sampling's ranges.

use std::collections::BTreeMap;

use mesh_proto::{
    ChatPrompt, GenerateError, GenerateRequest, Message, ModelId, Prompt, RequestId, Role, ToolCall, ToolChoice,
    ToolDefinition,
};
use serde_json::{Value, value::RawValue};

use super::{
    super::{
        chat::ChatRequest,
        message::{Content, MessageDto, PartDto, ToolCallDto, ToolDto},
        parse::parse_at,
        wire::{Object, Whole},
    },
    AskedChat, Facts,
    knobs::{Knobs, absent, limit, one, only, only_whole, penalties, stops, text_only},
};
use crate::api::ApiError;

type Checked<T> = Result<T, GenerateError>;

pub(in super::super) fn chat(dto: ChatRequest, id: RequestId, facts: &Facts) -> Result<AskedChat, ApiError> {
    refuse_what_does_not_work(&dto)?;
    let tools = tools(dto.tools.unwrap_or_default())?;
    let tool_choice = tool_choice(dto.tool_choice.as_ref())?;
    let messages = dto.messages.into_iter().enumerate();
    let messages: Vec<Message> = messages.map(|(i, m)| message(i, m.0)).collect::<Checked<_>>()?;
    if messages.is_empty() {
        return Err(GenerateError::invalid("messages", "`messages` must have at least one message").into());
    }
    let enable_thinking = thinking(dto.chat_template_kwargs, dto.reasoning_effort.as_deref())?;
    let knobs = Knobs {
        temperature: dto.temperature,
        top_p: dto.top_p,
        top_k: dto.top_k,
        min_p: dto.min_p,
        seed: dto.seed,
        logit_bias: dto.logit_bias,
    };
    let request = GenerateRequest {
        id,
        model: ModelId::new(dto.model),
        prompt: Prompt::Chat(ChatPrompt { messages, tools, enable_thinking, ..ChatPrompt::default() }),
        sampling: knobs.sampling(facts)?,
        tool_choice,
        parallel_tool_calls: true,
        constraint: None,
        logprobs: None,
        min_tokens: 0,
        max_tokens: max_tokens(dto.max_tokens, dto.max_completion_tokens)?,
        stop: stops(dto.stop)?,
        ignore_eos: dto.ignore_eos.unwrap_or(false),
        resume: Vec::new(),
        local_time_s: None,
        seed_drawn: false,
    };
    Ok(AskedChat {
        request,
        stream: dto.stream.unwrap_or(false),
        include_usage: dto.stream_options.is_some_and(|o| o.0.include_usage == Some(true)),
    })
}

fn refuse_what_does_not_work(dto: &ChatRequest) -> Checked<()> {
    one("n", dto.n)?;
    only("logprobs", dto.logprobs != Some(true), "false")?;
    only_whole("top_logprobs", dto.top_logprobs, 0)?;
    text_only(dto.response_format.as_ref().map(|f| &f.0))?;
    only("parallel_tool_calls", dto.parallel_tool_calls != Some(false), "true")?;
    only_whole("min_tokens", dto.min_tokens, 0)?;
    penalties([
        ("frequency_penalty", dto.frequency_penalty, 0.0),
        ("presence_penalty", dto.presence_penalty, 0.0),
        ("repetition_penalty", dto.repetition_penalty, 1.0),
        ("repeat_penalty", dto.repeat_penalty, 1.0),
        ("typical_p", dto.typical_p, 1.0),
        ("xtc_probability", dto.xtc_probability, 0.0),
        ("dry_multiplier", dto.dry_multiplier, 0.0),
    ])?;
    absent("functions", dto.functions.as_ref())?;
    absent("function_call", dto.function_call.as_ref())?;
    let text_alone = dto.modalities.as_ref().is_none_or(|all| all.iter().all(|one| one == "text"));
    only("modalities", text_alone, "[\"text\"]")?;
    absent("audio", dto.audio.as_ref())?;
    absent("prediction", dto.prediction.as_ref())?;
    absent("web_search_options", dto.web_search_options.as_ref())
}

/// The two names of one thing; clients that send both send the same number.
fn max_tokens(old: Option<Whole>, new: Option<Whole>) -> Checked<Option<u32>> {
    let (old, new) = (limit("max_tokens", old)?, limit("max_completion_tokens", new)?);
    match (old, new) {
        (Some(old), Some(new)) if old != new => {
            let message = "`max_tokens` and `max_completion_tokens` differ; send one of them";
            Err(GenerateError::invalid("max_tokens", message))
        }
        _ => Ok(new.or(old)),
    }
}

/// Thinking on or off, if the request says so. Efforts other than "none" leave the choice to the template: they ask
/// for more or less of it, and no model here can be told how much.
fn thinking(kwargs: Option<BTreeMap<String, Value>>, effort: Option<&str>) -> Checked<Option<bool>> {
    let by_effort = match effort {
        None | Some("minimal" | "low" | "medium" | "high" | "xhigh" | "max") => None,
        Some("none") => Some(false),
        Some(other) => {
            let known = "none, minimal, low, medium, high, xhigh or max";
            let message = format!("`reasoning_effort` must be {known}, not {other:?}");
            return Err(GenerateError::invalid("reasoning_effort", message));
        }
    };
    let mut by_template = None;
    for (key, value) in kwargs.unwrap_or_default() {
        let field = format!("chat_template_kwargs.{key}");
        by_template = match (key.as_str(), value) {
            ("enable_thinking", Value::Bool(on)) => Some(on),
            ("enable_thinking", Value::Null) => None,
            ("enable_thinking", _) => {
                return Err(GenerateError::invalid(&field, format!("`{field}` must be true or false")));
            }
            _ => {
                return Err(GenerateError::invalid(
                    &field,
                    format!("`{field}` does not work here; enable_thinking does"),
                ));
            }
        };
    }
    Ok(by_template.or(by_effort))
}

fn tool_choice(choice: Option<&Value>) -> Checked<ToolChoice> {
    let refuse = |message: String| Err(GenerateError::invalid("tool_choice", message));
    match choice {
        None | Some(Value::Null) => Ok(ToolChoice::Auto),
        Some(Value::String(word)) => match word.as_str() {
            "auto" => Ok(ToolChoice::Auto),
            "none" => Ok(ToolChoice::None),
            "required" => refuse("`tool_choice` \"required\" does not work yet; \"auto\" and \"none\" do".into()),
            other => refuse(format!("`tool_choice` must be \"auto\" or \"none\", not {other:?}")),
        },
        Some(Value::Object(_)) => refuse("a named `tool_choice` does not work yet; \"auto\" and \"none\" do".into()),
        Some(_) => refuse("`tool_choice` must be \"auto\" or \"none\"".into()),
    }
}

fn tools(raw: Vec<Box<RawValue>>) -> Result<Vec<ToolDefinition>, ApiError> {
    raw.iter().enumerate().map(|(i, raw)| tool(&format!("tools[{i}]"), raw.get())).collect()
}

fn tool(path: &str, json: &str) -> Result<ToolDefinition, ApiError> {
    let dto: ToolDto = parse_at(path, json)?;
    let refuse = |field: &str, message: &str| -> Result<ToolDefinition, ApiError> {
        let field = format!("{path}.{field}");
        Err(GenerateError::invalid(&field, format!("`{field}` {message}")).into())
    };
    if dto.kind != "function" {
        return refuse("type", "must be \"function\"");
    }
    let Object(function) = dto.function;
    let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/');
    if function.name.is_empty() || function.name.len() > 128 || !function.name.chars().all(named) {
        return refuse("function.name", "must be 1 to 128 letters, digits, '_' or '-'");
    }
    Ok(ToolDefinition { name: function.name, json: json.to_owned() })
}

fn message(index: usize, dto: MessageDto) -> Checked<Message> {
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

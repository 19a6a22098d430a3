//! DTO to [`GenerateRequest`], pure: every field is honoured or refused by name; must not know engines or HTTP.

mod conversation;
mod tools;

use mesh_proto::{
    ChatPrompt, Constraint, GenerateError, GenerateRequest, ModelId, Prompt, RequestId, Sampling, ToolChoice,
};

use super::{
    Thinking,
    error::no_thread,
    messages::{MessagesRequest, OutputConfig, OutputFormat, ThinkingDto},
};
use crate::api::{
    ApiError,
    fields::{Checked, Knobs, absent, check, limit, stops},
    openai::wire::Object,
};

/// A conversation, lowered.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) request: GenerateRequest,
    pub(super) max_tokens: u32,
    pub(super) stream: bool,
    pub(super) thinking: Thinking,
    pub(super) session: Option<String>,
}

/// What `/v1/messages` asks for.
pub(super) fn messages(dto: MessagesRequest, id: RequestId, defaults: &Sampling) -> Result<Asked, ApiError> {
    let Some(most) = dto.max_tokens else {
        return Err(GenerateError::invalid("max_tokens", "`max_tokens` is missing").into());
    };
    let most = limit("max_tokens", most)?;
    lowered(dto, id, defaults, most)
}

/// What `/v1/messages/count_tokens` asks for: the same prompt, and no answer.
pub(super) fn count(dto: MessagesRequest, id: RequestId, defaults: &Sampling) -> Result<Asked, ApiError> {
    lowered(dto, id, defaults, 0)
}

fn lowered(dto: MessagesRequest, id: RequestId, defaults: &Sampling, max_tokens: u32) -> Result<Asked, ApiError> {
    absent("container", dto.container.as_ref())?;
    absent("mcp_servers", dto.mcp_servers.as_ref())?;
    absent("thread", dto.thread.as_ref()).map_err(no_thread)?;
    let tools = tools::tools(dto.tools.unwrap_or_default())?;
    let (tool_choice, parallel_tool_calls) = tools::choice(dto.tool_choice.map(|Object(choice)| choice), &tools)?;
    let (enable_thinking, reasoning_budget, thinking) = thought(dto.thinking.map(|Object(dto)| dto))?;
    let (effort, format) = match dto.output_config {
        Some(Object(OutputConfig { effort, format })) => (effort, format.map(|f| ("output_config.format", f))),
        None => (None, None),
    };
    let format = format.or(dto.output_format.map(|f| ("output_format", f)));
    let constraint = format.map(|(field, Object(format))| constraint(field, format, &tool_choice)).transpose()?;
    let knobs = Knobs { temperature: dto.temperature, top_p: dto.top_p, top_k: dto.top_k };
    let edits = dto.context_management.and_then(|Object(management)| management.edits).unwrap_or_default();
    let messages = conversation::turns(dto.system, dto.messages, edits)?;
    let chat = ChatPrompt {
        messages,
        tools,
        enable_thinking,
        reasoning_effort: effort.map(known_effort).transpose()?,
        reasoning_budget,
        ..ChatPrompt::default()
    };
    let request = GenerateRequest {
        id,
        sampling: knobs.sampling(defaults)?,
        tool_choice,
        parallel_tool_calls,
        constraint,
        max_tokens: Some(max_tokens),
        stop: stops("stop_sequences", dto.stop_sequences)?,
        ..GenerateRequest::new(ModelId::new(dto.model), Prompt::Chat(chat))
    };
    let session = dto.metadata.and_then(|Object(metadata)| metadata.user_id);
    Ok(Asked { request, max_tokens, stream: dto.stream.unwrap_or(false), thinking, session })
}

/// The template's switch, the most tokens of thought, and what the client sees of it. Anthropic's models do not think
/// unless asked to, and sample code reads the first block of an answer as its text.
fn thought(dto: Option<ThinkingDto>) -> Checked<(Option<bool>, Option<u32>, Thinking)> {
    let Some(dto) = dto else { return Ok((Some(false), None, Thinking::Hidden)) };
    let shown = match dto.display.as_deref() {
        None | Some("summarized" | "full") => Thinking::Shown,
        Some("omitted") => Thinking::Sealed,
        Some(other) => {
            let message = format!("`thinking.display` must be \"summarized\" or \"omitted\", not {other:?}");
            return Err(GenerateError::invalid("thinking.display", message));
        }
    };
    let budget = dto.budget_tokens;
    let field = "thinking.budget_tokens";
    match dto.kind.as_str() {
        "enabled" => {
            let Some(budget) = budget else {
                return Err(GenerateError::invalid(field, format!("`{field}` is missing; enabled thinking has one")));
            };
            Ok((Some(true), Some(limit(field, budget)?), shown))
        }
        kind @ ("adaptive" | "disabled") => {
            check(field, budget.is_none(), || format!("goes with \"enabled\", not with {kind:?}"))?;
            Ok(if kind == "adaptive" { (Some(true), None, shown) } else { (Some(false), None, Thinking::Hidden) })
        }
        other => {
            let message = format!("`thinking.type` must be enabled, adaptive or disabled, not {other:?}");
            Err(GenerateError::invalid("thinking.type", message))
        }
    }
}

fn known_effort(effort: String) -> Checked<String> {
    let known = matches!(effort.as_str(), "low" | "medium" | "high" | "xhigh" | "max");
    check("output_config.effort", known, || format!("must be low, medium, high, xhigh or max, not {effort:?}"))?;
    Ok(effort)
}

fn constraint(field: &str, format: OutputFormat, choice: &ToolChoice) -> Checked<Constraint> {
    let kind = &format.kind;
    check(&format!("{field}.type"), kind == "json_schema", || format!("must be \"json_schema\", not {kind:?}"))?;
    let called = matches!(choice, ToolChoice::Required | ToolChoice::Named(_));
    check(field, !called, || "cannot be had together with a `tool_choice` that wants a call".into())?;
    let field = format!("{field}.schema");
    let Some(schema) = format.schema else {
        return Err(GenerateError::invalid(&field, format!("`{field}` is missing")));
    };
    Ok(Constraint::JsonSchema(schema.get().to_owned()))
}

#[cfg(test)]
mod tests;

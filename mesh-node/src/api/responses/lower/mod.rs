//! DTO to [`GenerateRequest`], pure: every field is honoured or refused by name; must not know engines or HTTP.

mod items;
mod tools;

use std::collections::BTreeMap;

use mesh_proto::{
    ChatPrompt, Constraint, GenerateError, GenerateRequest, ModelId, Prompt, RequestId, Sampling, ToolChoice,
};
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};

pub(super) use items::{resources, said};
#[cfg(test)]
pub(super) use tools::Known;
pub(super) use tools::Names;

use super::create::{CreateRequest, FormatDto, ReasoningDto, TextDto};
use crate::api::{
    ApiError,
    fields::{Checked, Knobs, absent, check, limit},
    openai::wire::{Object, Whole},
};

/// A response, asked for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) request: GenerateRequest,
    pub(super) stream: bool,
    pub(super) echo: Echo,
    pub(super) names: Names,
    /// The client wants reasoning in a form that it can send back.
    pub(super) seals: bool,
    /// A conversation that is too long loses its beginning.
    pub(super) truncates: bool,
}

/// What a response tells back of its request.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Echo {
    pub(super) instructions: Option<String>,
    pub(super) max_output_tokens: Option<u32>,
    pub(super) max_tool_calls: Option<u32>,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) parallel_tool_calls: bool,
    pub(super) previous_response_id: Option<String>,
    pub(super) prompt_cache_key: Option<String>,
    pub(super) reasoning: ReasoningEcho,
    pub(super) safety_identifier: Option<String>,
    pub(super) service_tier: &'static str,
    pub(super) store: bool,
    pub(super) temperature: f32,
    pub(super) text: Value,
    pub(super) tool_choice: Value,
    pub(super) tools: Vec<Box<RawValue>>,
    pub(super) top_logprobs: u8,
    pub(super) top_p: f32,
    pub(super) truncation: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct ReasoningEcho {
    effort: Option<String>,
    summary: Option<String>,
}

/// What may be included; the others belong to tools that are not here, and have nothing to include.
const LOGPROBS: &str = "message.output_text.logprobs";
const SEALED: &str = "reasoning.encrypted_content";
const NOTHING: [&str; 6] = [
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
];

/// What the request asks for. `earlier`: the conversation's items before it; `input`: its own.
pub(super) fn response(
    dto: CreateRequest,
    earlier: &[Box<RawValue>],
    input: &[Box<RawValue>],
    id: RequestId,
    defaults: &Sampling,
) -> Result<Asked, ApiError> {
    refuse_what_does_not_work(&dto)?;
    let tools::Offered { tools, names, raw } = tools::offered(dto.tools.unwrap_or_default())?;
    let choice = tools::choice(dto.tool_choice, tools, &names)?;
    let (constraint, text) = form(dto.text.map(|Object(text)| text))?;
    let called = matches!(choice.lowered, ToolChoice::Required | ToolChoice::Named(_));
    check("text.format", constraint.is_none() || !called, || {
        "cannot be had together with a `tool_choice` that wants a call".into()
    })?;
    let messages = items::turns(dto.instructions.as_deref(), earlier, input)?;
    let (enable_thinking, reasoning) = reasoning(dto.reasoning.map(|Object(reasoning)| reasoning))?;
    let (includes_logprobs, seals) = included(dto.include.unwrap_or_default())?;
    let top_logprobs = top_logprobs(dto.top_logprobs)?;
    let truncates = match dto.truncation.as_deref() {
        None | Some("disabled") => false,
        Some("auto") => true,
        Some(other) => {
            let message = format!("`truncation` must be \"auto\" or \"disabled\", not {other:?}");
            return Err(GenerateError::invalid("truncation", message).into());
        }
    };
    let max_tokens = dto.max_output_tokens.map(|most| limit("max_output_tokens", most)).transpose()?;
    let sampling = Knobs { temperature: dto.temperature, top_p: dto.top_p, top_k: None }.sampling(defaults)?;
    let effort = reasoning.effort.clone().filter(|_| enable_thinking != Some(false));
    let echo = Echo {
        instructions: dto.instructions,
        max_output_tokens: max_tokens,
        max_tool_calls: dto.max_tool_calls.map(|most| limit("max_tool_calls", most)).transpose()?,
        metadata: dto.metadata.unwrap_or_default(),
        parallel_tool_calls: dto.parallel_tool_calls.unwrap_or(true),
        previous_response_id: dto.previous_response_id,
        prompt_cache_key: dto.prompt_cache_key,
        reasoning,
        safety_identifier: dto.safety_identifier,
        service_tier: "default",
        store: dto.store.unwrap_or(true),
        temperature: sampling.temperature,
        text,
        tool_choice: choice.told,
        tools: raw,
        top_logprobs: top_logprobs.unwrap_or(0),
        top_p: sampling.top_p,
        truncation: if truncates { "auto" } else { "disabled" },
        user: dto.user,
    };
    let chat = ChatPrompt {
        messages,
        tools: choice.tools,
        enable_thinking,
        reasoning_effort: effort,
        ..ChatPrompt::default()
    };
    let request = GenerateRequest {
        id,
        sampling,
        tool_choice: choice.lowered,
        parallel_tool_calls: echo.parallel_tool_calls,
        constraint,
        logprobs: top_logprobs.filter(|most| *most > 0).or(includes_logprobs.then_some(top_logprobs.unwrap_or(0))),
        max_tokens,
        ..GenerateRequest::new(ModelId::new(dto.model), Prompt::Chat(chat))
    };
    Ok(Asked { request, stream: dto.stream.unwrap_or(false), echo, names, seals, truncates })
}

fn refuse_what_does_not_work(dto: &CreateRequest) -> Checked<()> {
    let background = dto.background.as_ref().filter(|value| **value != Value::Bool(false));
    absent("background", background)?;
    absent("conversation", dto.conversation.as_ref())?;
    absent("prompt", dto.prompt.as_ref())?;
    absent("context_management", dto.context_management.as_ref())?;
    absent("moderation", dto.moderation.as_ref())
}

/// The answer's form, and how it is told back.
fn form(text: Option<TextDto>) -> Checked<(Option<Constraint>, Value)> {
    let plain = || json!({ "format": { "type": "text" } });
    let Some(Object(FormatDto { kind, name, description, schema, strict })) = text.and_then(|text| text.format) else {
        return Ok((None, plain()));
    };
    match kind.as_str() {
        "text" => Ok((None, plain())),
        "json_object" => Ok((Some(Constraint::JsonObject), json!({ "format": { "type": "json_object" } }))),
        "json_schema" => {
            let missing = |field: &str| {
                let field = format!("text.format.{field}");
                GenerateError::invalid(&field, format!("`{field}` is missing"))
            };
            let name = name.ok_or_else(|| missing("name"))?;
            let schema = schema.ok_or_else(|| missing("schema"))?.get().to_owned();
            let told = serde_json::from_str::<Value>(&schema).unwrap_or_default();
            check("text.format.schema", told.is_object(), || "must be a JSON schema, which is an object".into())?;
            let mut format = json!({ "type": kind, "name": name, "schema": told, "strict": strict });
            if let (Some(description), Some(format)) = (description, format.as_object_mut()) {
                format.insert("description".into(), description.into());
            }
            Ok((Some(Constraint::JsonSchema(schema)), json!({ "format": format })))
        }
        other => {
            let message = format!("`text.format.type` must be text, json_object or json_schema, not {other:?}");
            Err(GenerateError::invalid("text.format.type", message))
        }
    }
}

/// Thinking on or off, if the request says so, and how much of it.
fn reasoning(dto: Option<ReasoningDto>) -> Checked<(Option<bool>, ReasoningEcho)> {
    let Some(ReasoningDto { effort, summary, .. }) = dto else { return Ok((None, ReasoningEcho::default())) };
    let efforts = ["none", "minimal", "low", "medium", "high", "xhigh", "max"];
    if let Some(effort) = &effort {
        let known = efforts.contains(&effort.as_str());
        check("reasoning.effort", known, || format!("must be {}, not {effort:?}", efforts.join(", ")))?;
    }
    if let Some(summary) = &summary {
        let known = ["auto", "concise", "detailed"].contains(&summary.as_str());
        check("reasoning.summary", known, || format!("must be auto, concise or detailed, not {summary:?}"))?;
    }
    let off = (effort.as_deref() == Some("none")).then_some(false);
    Ok((off, ReasoningEcho { effort, summary }))
}

/// Whether likelihoods are told, and reasoning is sealed.
fn included(all: Vec<String>) -> Checked<(bool, bool)> {
    for (at, word) in all.iter().enumerate() {
        let known = [LOGPROBS, SEALED].contains(&word.as_str()) || NOTHING.contains(&word.as_str());
        check(&format!("include[{at}]"), known, || format!("{word:?} cannot be included"))?;
    }
    let has = |word: &str| all.iter().any(|one| one == word);
    Ok((has(LOGPROBS), has(SEALED)))
}

fn top_logprobs(value: Option<Whole>) -> Checked<Option<u8>> {
    let most = GenerateRequest::MAX_LOGPROBS;
    value
        .map(|Whole(n)| {
            let count = u8::try_from(n).ok().filter(|n| *n <= most);
            count.ok_or_else(|| {
                GenerateError::invalid("top_logprobs", format!("`top_logprobs` must be from 0 to {most}, not {n}"))
            })
        })
        .transpose()
}

#[cfg(test)]
mod tests;

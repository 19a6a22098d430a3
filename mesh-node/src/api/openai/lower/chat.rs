//! A chat's fields; must not know sampling's ranges.

use std::collections::BTreeMap;

use mesh_proto::{ChatPrompt, GenerateError, GenerateRequest, Message, ModelId, Prompt, RequestId, ToolChoice};
use serde_json::Value;

use super::{
    super::{chat::ChatRequest, wire::Whole},
    AskedChat, Facts, Told,
    check::{Checked, absent, either, limit, only, or_all, whole},
    form::form,
    knobs::{choices, knobs, min_tokens, several, stops},
    message::message,
    tools::{Tools, tool_choice, tools},
};
use crate::api::ApiError;

/// What a template knows already, or what decides how its answer is read.
const RESERVED: [&str; 4] = ["messages", "tools", "add_generation_prompt", "continue_final_message"];

pub(in crate::api) fn chat(mut dto: ChatRequest, id: RequestId, facts: &Facts) -> Result<AskedChat, ApiError> {
    refuse_what_does_not_work(&dto)?;
    let Tools { mut offered, left_out } = tools(dto.tools.take().unwrap_or_default())?;
    let tool_choice = tool_choice(dto.tool_choice.as_ref(), &mut offered)?;
    let messages = dto.messages.into_iter().enumerate();
    let messages: Vec<Message> = messages.map(|(i, m)| message(i, m.0)).collect::<Checked<_>>()?;
    if messages.is_empty() {
        return Err(GenerateError::invalid("messages", "`messages` must have at least one message").into());
    }
    let mut prompt = ChatPrompt { messages, tools: offered, ..ChatPrompt::default() };
    reasoning(&mut prompt, dto.chat_template_kwargs, dto.reasoning_effort)?;
    let budget =
        either(("reasoning_budget", dto.reasoning_budget), ("thinking_budget_tokens", dto.thinking_budget_tokens))?;
    prompt.reasoning_budget = or_all("reasoning_budget", budget)?.flatten();
    let max_tokens = either(
        ("max_tokens", limit("max_tokens", dto.max_tokens)?),
        ("max_completion_tokens", limit("max_completion_tokens", dto.max_completion_tokens)?),
    )?;
    let form = form!(dto);
    let constraint = form.constraint()?;
    if let Some((field, _)) = &constraint
        && matches!(tool_choice, ToolChoice::Required | ToolChoice::Named(_))
    {
        let message =
            format!("`{field}` and a `tool_choice` that asks for a call cannot both be met; send one of them");
        return Err(GenerateError::invalid(*field, message).into());
    }
    let request = GenerateRequest {
        id,
        prompt: Prompt::Chat(prompt),
        sampling: knobs!(dto).sampling(facts)?,
        tool_choice,
        parallel_tool_calls: dto.parallel_tool_calls.unwrap_or(true),
        constraint: constraint.map(|(_, constraint)| constraint),
        logprobs: logprobs(dto.logprobs, dto.top_logprobs)?,
        max_tokens,
        min_tokens: min_tokens(dto.min_tokens, max_tokens)?,
        stop: stops(dto.stop)?,
        ignore_eos: dto.ignore_eos.unwrap_or(false),
        ..GenerateRequest::new(ModelId::new(dto.model), Prompt::Text(String::new()))
    };
    let told = Told {
        stream: dto.stream.unwrap_or(false),
        usage: super::usage(dto.stream_options),
        logprobs: request.logprobs.is_some(),
        choices: choices(dto.n)?,
    };
    Ok(AskedChat { requests: several(request, told.choices).collect(), told, left_out })
}

fn refuse_what_does_not_work(dto: &ChatRequest) -> Checked<()> {
    absent("functions", dto.functions.as_ref())?;
    absent("function_call", dto.function_call.as_ref())?;
    let text_alone = dto.modalities.as_ref().is_none_or(|all| all.iter().all(|one| one == "text"));
    only("modalities", text_alone, "[\"text\"]")?;
    absent("audio", dto.audio.as_ref())?;
    absent("prediction", dto.prediction.as_ref())?;
    absent("web_search_options", dto.web_search_options.as_ref())
}

/// How many of the likeliest tokens are told beside each; `None`: nothing is.
fn logprobs(asked: Option<bool>, top: Option<Whole>) -> Checked<Option<u8>> {
    let top = whole("top_logprobs", top, 0..=GenerateRequest::MAX_LOGPROBS.into())?.unwrap_or(0);
    match asked {
        Some(true) => Ok(u8::try_from(top).ok()),
        _ if top == 0 => Ok(None),
        _ => Err(GenerateError::invalid("top_logprobs", "`top_logprobs` needs `logprobs`: true")),
    }
}

/// What the template is told of reasoning, and whatever else the client tells it.
fn reasoning(prompt: &mut ChatPrompt, kwargs: Option<BTreeMap<String, Value>>, effort: Option<String>) -> Checked<()> {
    for (key, value) in kwargs.unwrap_or_default() {
        let field = format!("chat_template_kwargs.{key}");
        match (key.as_str(), value) {
            (_, Value::Null) => {}
            ("enable_thinking", Value::Bool(on)) => prompt.enable_thinking = Some(on),
            ("enable_thinking", _) => {
                return Err(GenerateError::invalid(&field, format!("`{field}` must be true or false")));
            }
            (key, _) if RESERVED.contains(&key) => {
                return Err(GenerateError::invalid(&field, format!("`{field}` is not the client's to set")));
            }
            (_, value) => prompt.variables.push((key, value.to_string())),
        }
    }
    if prompt.variables.len() > ChatPrompt::MAX_VARIABLES {
        let message = format!("`chat_template_kwargs` may have {} entries", ChatPrompt::MAX_VARIABLES);
        return Err(GenerateError::invalid("chat_template_kwargs", message));
    }
    match effort.as_deref() {
        None => {}
        Some("none") => prompt.enable_thinking = prompt.enable_thinking.or(Some(false)),
        Some("minimal" | "low" | "medium" | "high" | "xhigh" | "max") => prompt.reasoning_effort = effort,
        Some(other) => {
            let known = "none, minimal, low, medium, high, xhigh or max";
            let message = format!("`reasoning_effort` must be {known}, not {other:?}");
            return Err(GenerateError::invalid("reasoning_effort", message));
        }
    }
    Ok(())
}

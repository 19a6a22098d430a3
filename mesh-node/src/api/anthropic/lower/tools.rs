//! Tools and how they may be called; must not know the conversation.

use mesh_proto::{GenerateError, ToolChoice, ToolDefinition};
use serde_json::value::RawValue;

use super::super::{
    block::{Kind, ToolDto},
    messages::ToolChoiceDto,
};
use crate::api::{
    ApiError,
    definition::{Definition, is_schema},
    fields::{Checked, check, tool_name},
    openai::parse::parse_at,
};

/// Tools that Anthropic's own servers run. No node can; beside a client's own tools they are left out, since agents
/// offer them always and live without them, and the model is not told of what it does not have.
const SERVED: [&str; 5] = ["web_search_", "web_fetch_", "code_execution_", "tool_search_tool_", "advisor_"];

pub(super) fn tools(raw: Vec<Box<RawValue>>) -> Result<Vec<ToolDefinition>, ApiError> {
    let mut tools = Vec::new();
    let mut left_out = None;
    for (at, raw) in raw.iter().enumerate() {
        let path = format!("tools[{at}]");
        let Kind { kind } = parse_at(&path, raw.get())?;
        match kind.as_deref() {
            None | Some("custom") => tools.push(tool(&path, raw.get())?),
            Some(kind) if SERVED.iter().any(|served| kind.starts_with(served)) => {
                left_out.get_or_insert((path, kind.to_owned()));
            }
            Some(kind) => {
                let field = format!("{path}.type");
                let message = format!(
                    "`{field}` {kind:?} is a tool that only Anthropic's models know; offer it with a name and an input_schema"
                );
                return Err(GenerateError::invalid(field, message).into());
            }
        }
    }
    match left_out {
        // The model could only pretend.
        Some((path, kind)) if tools.is_empty() => {
            let field = format!("{path}.type");
            let message = format!("`{field}` {kind:?} is run by Anthropic's servers, and nothing here can run it");
            Err(GenerateError::invalid(field, message).into())
        }
        _ => Ok(tools),
    }
}

fn tool(path: &str, json: &str) -> Result<ToolDefinition, ApiError> {
    let dto: ToolDto = parse_at(path, json)?;
    tool_name(&format!("{path}.name"), &dto.name)?;
    let schema = format!("{path}.input_schema");
    is_schema(&schema, &dto.input_schema)?;
    let definition = Definition {
        name: &dto.name,
        description: dto.description.as_deref(),
        parameters: &dto.input_schema,
        strict: dto.strict,
    };
    definition.tool()
}

/// Whether tools may be called, and several at once.
pub(super) fn choice(dto: Option<ToolChoiceDto>, tools: &[ToolDefinition]) -> Checked<(ToolChoice, bool)> {
    let Some(dto) = dto else { return Ok((ToolChoice::Auto, true)) };
    let parallel = dto.disable_parallel_tool_use != Some(true);
    let named = dto.name.is_some();
    check("tool_choice.name", !named || dto.kind == "tool", || "goes with `tool_choice.type` \"tool\"".into())?;
    let choice = match (dto.kind.as_str(), dto.name) {
        ("auto", _) => ToolChoice::Auto,
        ("none", _) => ToolChoice::None,
        ("any", _) => {
            check("tool_choice", !tools.is_empty(), || "wants a call, and `tools` offers none".into())?;
            ToolChoice::Required
        }
        ("tool", Some(name)) => {
            let offered = tools.iter().any(|tool| tool.name == name);
            check("tool_choice.name", offered, || format!("is {name:?}, which is none of `tools`"))?;
            ToolChoice::Named(name)
        }
        ("tool", None) => {
            return Err(GenerateError::invalid("tool_choice.name", "`tool_choice.name` is missing"));
        }
        (other, _) => {
            let message = format!("`tool_choice.type` must be auto, any, tool or none, not {other:?}");
            return Err(GenerateError::invalid("tool_choice.type", message));
        }
    };
    Ok((choice, parallel))
}

//! Tools and the choice among them; must not know what a template makes of them.

use mesh_proto::{GenerateError, ToolChoice, ToolDefinition};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{
    super::{message::ToolDto, parse::parse_at, wire::Object},
    check::Checked,
};
use crate::api::ApiError;

/// Tools that a service would run by itself, or that stand for many. Agents send them to every server alike and do
/// without where they are not offered to the model: they are left out, and the log says so.
const LEFT_OUT: [&str; 11] = [
    "web_search",
    "file_search",
    "code_interpreter",
    "image_generation",
    "computer",
    "computer_use_preview",
    "mcp",
    "namespace",
    "local_shell",
    "shell",
    "tool_search",
];

/// Whether a tool of this type is left out rather than refused.
pub(in crate::api) fn is_left_out(kind: &str) -> bool {
    // With a date behind it, too, and as a preview.
    LEFT_OUT.contains(&kind) || kind.starts_with("web_search_")
}

/// The tools that are offered, and the types of those that are left out.
#[derive(Debug, Default)]
pub(in crate::api) struct Tools {
    pub(in crate::api) offered: Vec<ToolDefinition>,
    pub(in crate::api) left_out: Vec<String>,
}

#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: String,
}

/// Reads `tools`.
pub(in crate::api) fn tools(raw: Vec<Box<RawValue>>) -> Result<Tools, ApiError> {
    let mut tools = Tools::default();
    for (at, raw) in raw.iter().enumerate() {
        let (path, json) = (format!("tools[{at}]"), raw.get());
        let Kind { kind } = parse_at(&path, json)?;
        if is_left_out(&kind) {
            tools.left_out.push(kind);
        } else {
            tools.offered.push(tool(&path, &kind, json)?);
        }
    }
    Ok(tools)
}

fn tool(path: &str, kind: &str, json: &str) -> Result<ToolDefinition, ApiError> {
    let refuse = |field: &str, message: &str| -> Result<ToolDefinition, ApiError> {
        let field = format!("{path}.{field}");
        Err(GenerateError::invalid(&field, format!("`{field}` {message}")).into())
    };
    if kind != "function" {
        return refuse("type", "must be \"function\"");
    }
    let dto: ToolDto = parse_at(path, json)?;
    let Object(function) = dto.function;
    if !is_name(&function.name) {
        return refuse("function.name", "must be 1 to 128 letters, digits, '_' or '-'");
    }
    // The template gets all of it, fields that nobody here looks at too.
    if serde_json::from_str::<Value>(json).is_err() {
        return refuse("function", "is nested too deeply, or has numbers that nobody can hold");
    }
    Ok(ToolDefinition { name: function.name, json: json.to_owned() })
}

/// Whether a function may be called this. More than OpenAI lets through: agents name their servers before a `.` or `/`.
pub(in crate::api) fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/');
    !name.is_empty() && name.len() <= 128 && name.chars().all(fits)
}

/// `tool_choice`, held against the tools that are offered; a choice of some leaves the others out.
pub(in crate::api) fn tool_choice(choice: Option<&Value>, tools: &mut Vec<ToolDefinition>) -> Checked<ToolChoice> {
    let chosen = match choice {
        None | Some(Value::Null) => ToolChoice::Auto,
        Some(Value::String(word)) => by_word("tool_choice", word)?,
        Some(Value::Object(object)) => match object.get("type").and_then(Value::as_str) {
            Some("function") => named(object.get("function"), tools)?,
            Some("allowed_tools") => allowed(object.get("allowed_tools").unwrap_or(&Value::Null), tools)?,
            _ => return refuse("tool_choice.type", "must be \"function\" or \"allowed_tools\""),
        },
        Some(_) => return refuse("tool_choice", WORDS),
    };
    if chosen == ToolChoice::Required && tools.is_empty() {
        return refuse("tool_choice", "asks for a call, and `tools` offers none");
    }
    Ok(chosen)
}

const WORDS: &str = "must be \"auto\", \"none\", \"required\" or an object that names a function";

fn refuse<T>(field: &str, message: &str) -> Checked<T> {
    Err(GenerateError::invalid(field, format!("`{field}` {message}")))
}

fn by_word(field: &str, word: &str) -> Checked<ToolChoice> {
    match word {
        "auto" => Ok(ToolChoice::Auto),
        "none" => Ok(ToolChoice::None),
        "required" => Ok(ToolChoice::Required),
        other => refuse(field, &format!("{WORDS}, not {other:?}")),
    }
}

fn named(function: Option<&Value>, tools: &[ToolDefinition]) -> Checked<ToolChoice> {
    let Some(name) = function.and_then(|function| function.get("name")).and_then(Value::as_str) else {
        return refuse("tool_choice.function.name", "is missing");
    };
    offered("tool_choice.function.name", name, tools)?;
    Ok(ToolChoice::Named(name.to_owned()))
}

/// Whether a tool that a choice names is there.
pub(in crate::api) fn offered(field: &str, name: &str, tools: &[ToolDefinition]) -> Checked<()> {
    if tools.iter().any(|tool| tool.name == name) {
        return Ok(());
    }
    refuse(field, &format!("is {name:?}, which is none of `tools`"))
}

fn allowed(choice: &Value, tools: &mut Vec<ToolDefinition>) -> Checked<ToolChoice> {
    let mode = choice.get("mode").and_then(Value::as_str).unwrap_or_default();
    if !matches!(mode, "auto" | "required") {
        return refuse("tool_choice.allowed_tools.mode", "must be \"auto\" or \"required\"");
    }
    let Some(list) = choice.get("tools").and_then(Value::as_array) else {
        return refuse("tool_choice.allowed_tools.tools", "must be an array");
    };
    let mut names = Vec::new();
    for (at, one) in list.iter().enumerate() {
        let field = format!("tool_choice.allowed_tools.tools[{at}].function.name");
        let Some(name) = one.get("function").and_then(|f| f.get("name")).and_then(Value::as_str) else {
            return refuse(&field, "is missing");
        };
        offered(&field, name, tools)?;
        names.push(name);
    }
    tools.retain(|tool| names.contains(&tool.name.as_str()));
    by_word("tool_choice.allowed_tools.mode", mode)
}

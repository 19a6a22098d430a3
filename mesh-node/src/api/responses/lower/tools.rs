//! Tools of all kinds that clients offer, as functions, and how they may be called; must not know the conversation.

use std::collections::BTreeMap;

use mesh_proto::{GenerateError, ToolChoice, ToolDefinition};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json, value::RawValue};

use crate::api::{
    ApiError,
    definition::{Definition, is_schema},
    fields::{Checked, check, tool_name},
    openai::{parse::parse_at, wire::Object},
};

/// Tools that OpenAI's servers run, or that only its models know. Beside tools that work they are left out, since agents
/// offer them always and live without them, and the model is not told of what it does not have.
const LEFT_OUT: [&str; 6] =
    ["web_search", "local_shell", "shell", "image_generation", "tool_search", "programmatic_tool_calling"];

/// What a function's name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Known {
    pub(in super::super) namespace: Option<String>,
    pub(in super::super) name: String,
    /// It takes text, not arguments: offered as a function of one parameter, `input`.
    pub(in super::super) is_custom: bool,
}

/// Functions that are not simply functions to the client, by the names that the model knows.
pub(in super::super) type Names = BTreeMap<String, Known>;

/// What the model may be offered.
#[derive(Debug)]
pub(super) struct Offered {
    pub(super) tools: Vec<ToolDefinition>,
    pub(super) names: Names,
    /// As the client sent them, for telling back.
    pub(super) raw: Vec<Box<RawValue>>,
}

/// A tool of a namespace, as the model knows it.
pub(super) fn flat(namespace: Option<&str>, name: &str) -> String {
    match namespace {
        None | Some("") => name.to_owned(),
        // What MCP clients make of a server's name ends so already.
        Some(space) if space.ends_with("__") => format!("{space}{name}"),
        Some(space) => format!("{space}__{name}"),
    }
}

#[derive(Debug, Deserialize)]
struct KindDto {
    #[serde(rename = "type")]
    kind: String,
}

/// A function, flat: not within a `function`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FunctionDto {
    #[serde(rename = "type")]
    _kind: IgnoredAny,
    name: String,
    description: Option<String>,
    parameters: Option<Box<RawValue>>,
    strict: Option<bool>,
    // How a service would find it, who may call it there, and what comes out, which templates have no place for.
    #[serde(rename = "defer_loading")]
    _defer_loading: Option<IgnoredAny>,
    #[serde(rename = "allowed_callers")]
    _allowed_callers: Option<IgnoredAny>,
    #[serde(rename = "output_schema")]
    _output_schema: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CustomDto {
    #[serde(rename = "type")]
    _kind: IgnoredAny,
    name: String,
    description: Option<String>,
    format: Option<Object<CustomFormat>>,
    #[serde(rename = "defer_loading")]
    _defer_loading: Option<IgnoredAny>,
    #[serde(rename = "allowed_callers")]
    _allowed_callers: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CustomFormat {
    #[serde(rename = "type")]
    kind: String,
    syntax: Option<String>,
    definition: Option<String>,
}

#[derive(Debug, Deserialize)]
struct NamespaceDto {
    name: String,
    tools: Vec<Box<RawValue>>,
}

pub(super) fn offered(raw: Vec<Box<RawValue>>) -> Result<Offered, ApiError> {
    let mut offered = Offered { tools: Vec::new(), names: Names::new(), raw: Vec::new() };
    let mut left_out = None;
    for (at, json) in raw.iter().enumerate() {
        let path = format!("tools[{at}]");
        let KindDto { kind } = parse_at(&path, json.get())?;
        if LEFT_OUT.iter().any(|left| kind == *left || kind.starts_with("web_search")) {
            left_out.get_or_insert((path, kind));
        } else {
            offered.add(&path, &kind, json, None)?;
        }
    }
    if let (Some((path, kind)), true) = (left_out, offered.tools.is_empty()) {
        // The model could only pretend.
        let field = format!("{path}.type");
        let message = format!("`{field}` {kind:?} is run by OpenAI's servers, and nothing here can run it");
        return Err(GenerateError::invalid(field, message).into());
    }
    offered.raw = raw;
    Ok(offered)
}

impl Offered {
    fn add(&mut self, path: &str, kind: &str, json: &RawValue, space: Option<&str>) -> Result<(), ApiError> {
        match (kind, space) {
            ("function", _) => {
                let dto: FunctionDto = parse_at(path, json.get())?;
                let empty = empty()?;
                let parameters = dto.parameters.as_ref().filter(|raw| raw.get() != "null").unwrap_or(&empty);
                is_schema(&format!("{path}.parameters"), parameters)?;
                let known = Known { namespace: space.map(str::to_owned), name: dto.name, is_custom: false };
                let description = dto.description.as_deref();
                self.push(path, known, Definition { name: "", description, parameters, strict: dto.strict })
            }
            ("custom", _) => {
                let dto: CustomDto = parse_at(path, json.get())?;
                let parameters = input(path, dto.format.map(|Object(format)| format))?;
                let known = Known { namespace: space.map(str::to_owned), name: dto.name, is_custom: true };
                let (description, parameters) = (dto.description.as_deref(), &*parameters);
                self.push(path, known, Definition { name: "", description, parameters, strict: None })
            }
            ("namespace", None) => {
                let dto: NamespaceDto = parse_at(path, json.get())?;
                tool_name(&format!("{path}.name"), &dto.name)?;
                for (at, json) in dto.tools.iter().enumerate() {
                    let path = format!("{path}.tools[{at}]");
                    let KindDto { kind } = parse_at(&path, json.get())?;
                    self.add(&path, &kind, json, Some(&dto.name))?;
                }
                Ok(())
            }
            (other, _) => {
                let field = format!("{path}.type");
                let message = format!("`{field}` {other:?} does not work here; function, custom and namespace do");
                Err(GenerateError::invalid(field, message).into())
            }
        }
    }

    /// `definition` is without its name.
    fn push(&mut self, path: &str, known: Known, definition: Definition<'_>) -> Result<(), ApiError> {
        let field = format!("{path}.name");
        let name = flat(known.namespace.as_deref(), &known.name);
        tool_name(&field, &name)?;
        check(&field, self.tools.iter().all(|tool| tool.name != name), || format!("{name:?} is offered twice"))?;
        self.tools.push(Definition { name: &name, ..definition }.tool()?);
        if known.is_custom || known.namespace.is_some() {
            self.names.insert(name, known);
        }
        Ok(())
    }
}

fn empty() -> Result<Box<RawValue>, ApiError> {
    to_raw(&json!({ "type": "object", "properties": {} }))
}

fn to_raw(value: &Value) -> Result<Box<RawValue>, ApiError> {
    serde_json::value::to_raw_value(value).map_err(|_| ApiError::bug())
}

/// The one parameter of a tool that takes text. A grammar that the text should follow is told to the model.
fn input(path: &str, format: Option<CustomFormat>) -> Result<Box<RawValue>, ApiError> {
    let mut input = json!({ "type": "string" });
    match format {
        None => {}
        Some(CustomFormat { kind, .. }) if kind == "text" => {}
        Some(CustomFormat { kind, syntax: Some(syntax), definition: Some(definition) }) if kind == "grammar" => {
            input["description"] = format!("Text that follows this {syntax} grammar:\n{definition}").into();
        }
        Some(_) => {
            let field = format!("{path}.format");
            let message = format!("`{field}` must be of type \"text\", or \"grammar\" with a syntax and a definition");
            return Err(GenerateError::invalid(field, message).into());
        }
    }
    to_raw(&json!({ "type": "object", "properties": { "input": input }, "required": ["input"] }))
}

/// How tools may be called.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) lowered: ToolChoice,
    /// Those that may be called at all.
    pub(super) tools: Vec<ToolDefinition>,
    pub(super) told: Value,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChoiceDto {
    #[serde(rename = "type")]
    kind: String,
    name: Option<String>,
    namespace: Option<String>,
    mode: Option<String>,
    tools: Option<Vec<Value>>,
}

pub(super) fn choice(choice: Option<Value>, tools: Vec<ToolDefinition>, names: &Names) -> Checked<Choice> {
    let told = choice.filter(|choice| !choice.is_null()).unwrap_or_else(|| "auto".into());
    let refuse = |message: String| Err(GenerateError::invalid("tool_choice", message));
    if let Some(word) = told.as_str() {
        let lowered = mode(word, &tools)?;
        return Ok(Choice { lowered, tools, told });
    }
    let dto: ChoiceDto = match serde_json::from_value(told.clone()) {
        Ok(dto) if told.is_object() => dto,
        _ => return refuse("`tool_choice` must be a word or an object with a type".into()),
    };
    match (dto.kind.as_str(), dto.name, dto.tools) {
        ("function" | "custom", Some(name), None) => {
            let name = flat(dto.namespace.as_deref(), &name);
            let offered = tools.iter().any(|tool| tool.name == name);
            check("tool_choice.name", offered, || format!("is {name:?}, which is none of `tools`"))?;
            Ok(Choice { lowered: ToolChoice::Named(name), tools, told })
        }
        ("function" | "custom", None, _) => {
            Err(GenerateError::invalid("tool_choice.name", "`tool_choice.name` is missing"))
        }
        ("allowed_tools", None, Some(allowed)) => {
            let allowed = allowed.iter().enumerate().map(|(at, one)| allowed_name(at, one, &tools, names));
            let allowed: Vec<String> = allowed.collect::<Checked<_>>()?;
            let tools: Vec<ToolDefinition> = tools.into_iter().filter(|tool| allowed.contains(&tool.name)).collect();
            let word = dto.mode.as_deref().unwrap_or("auto");
            check("tool_choice.mode", matches!(word, "auto" | "required"), || {
                format!("must be auto or required, not {word:?}")
            })?;
            Ok(Choice { lowered: mode(word, &tools)?, tools, told })
        }
        ("allowed_tools", ..) => Err(GenerateError::invalid("tool_choice.tools", "`tool_choice.tools` is missing")),
        (kind, ..) => refuse(format!("`tool_choice` cannot ask for {kind:?}; it can for a function or custom tool")),
    }
}

fn mode(word: &str, tools: &[ToolDefinition]) -> Checked<ToolChoice> {
    match word {
        "auto" => Ok(ToolChoice::Auto),
        "none" => Ok(ToolChoice::None),
        "required" => {
            check("tool_choice", !tools.is_empty(), || "wants a call, and `tools` offers none".into())?;
            Ok(ToolChoice::Required)
        }
        other => {
            let message = format!("`tool_choice` must be auto, none, required or an object, not {other:?}");
            Err(GenerateError::invalid("tool_choice", message))
        }
    }
}

/// The name, as the model knows it, of an allowed tool; a kind that is left out may be named, and is.
fn allowed_name(at: usize, allowed: &Value, tools: &[ToolDefinition], names: &Names) -> Checked<String> {
    let field = format!("tool_choice.tools[{at}]");
    let word = |key: &str| allowed.get(key).and_then(Value::as_str);
    let (Some(kind), name) = (word("type"), word("name")) else {
        return Err(GenerateError::invalid(&field, format!("`{field}.type` is missing")));
    };
    if LEFT_OUT.contains(&kind) || kind.starts_with("web_search") {
        return Ok(String::new());
    }
    let name = flat(word("namespace"), name.unwrap_or_default());
    let is_custom = names.get(&name).is_some_and(|known| known.is_custom);
    let offered = tools.iter().any(|tool| tool.name == name) && (kind == "custom") == is_custom;
    check(&field, offered, || format!("is {kind} {name:?}, which is none of `tools`"))?;
    Ok(name)
}

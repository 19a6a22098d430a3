//! A function's definition in the form that templates read; must not know which dialect it was offered in.

use mesh_proto::ToolDefinition;
use serde::Serialize;
use serde_json::{Value, value::RawValue};

use super::{
    ApiError,
    fields::{Checked, check},
};

/// What is said of a function, as OpenAI's chat completions have it.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Definition<'a> {
    pub(super) name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) description: Option<&'a str>,
    pub(super) parameters: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) strict: Option<bool>,
}

#[derive(Serialize)]
struct Tool<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    function: Definition<'a>,
}

/// Whether a function's parameters, standing at `field`, are a schema that can be read: an object, and not so deep that
/// templates and grammars would give it up.
pub(super) fn is_schema(field: &str, parameters: &RawValue) -> Checked<()> {
    let text = parameters.get();
    check(field, text.starts_with('{'), || "must be a JSON schema, which is an object".into())?;
    // As deep as it will stand in the tool.
    let read = serde_json::from_str::<Value>(&format!("[[{text}]]"));
    check(field, read.is_ok(), || "is nested too deeply, or has numbers that nobody can hold".into())
}

impl Definition<'_> {
    /// The tool that is offered to the model.
    pub(super) fn tool(self) -> Result<ToolDefinition, ApiError> {
        let json = serde_json::to_string(&Tool { kind: "function", function: self }).map_err(|_| ApiError::bug())?;
        Ok(ToolDefinition { name: self.name.to_owned(), json })
    }
}

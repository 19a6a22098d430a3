//! What an answer must look like, and what is told of its tokens; must not know messages or prompts.

use mesh_proto::{Constraint, GenerateError};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    super::wire::Object,
    check::{Checked, either},
};

/// `response_format`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct ResponseFormat {
    #[serde(rename = "type")]
    kind: String,
    json_schema: Option<Object<JsonSchema>>,
    /// Beside `json_object`, as llama-server has it.
    schema: Option<Box<RawValue>>,
}

/// `response_format.json_schema`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonSchema {
    name: String,
    schema: Option<Box<RawValue>>,
    // A schema is always kept to, strict or not; what it describes is for models that were trained to read it.
    #[serde(rename = "strict")]
    _strict: Option<bool>,
    #[serde(rename = "description")]
    _description: Option<String>,
}

/// The fields that say what the content must look like; one of them at most.
pub(in crate::api) struct Form {
    pub(in crate::api) response_format: Option<Object<ResponseFormat>>,
    pub(in crate::api) regex: Option<String>,
    pub(in crate::api) guided_regex: Option<String>,
    pub(in crate::api) lark: Option<String>,
    /// llama-server's, beside `response_format`.
    pub(in crate::api) json_schema: Option<Box<RawValue>>,
}

/// [`Form`] out of a DTO that has fields of the same names.
macro_rules! form {
    ($dto:ident) => {
        $crate::api::openai::lower::form::Form {
            response_format: $dto.response_format,
            regex: $dto.regex,
            guided_regex: $dto.guided_regex,
            lark: $dto.lark,
            json_schema: $dto.json_schema,
        }
    };
}
pub(in crate::api) use form;

impl Form {
    /// The constraint, and the field that asks for it.
    pub(in crate::api) fn constraint(self) -> Checked<Option<(&'static str, Constraint)>> {
        let format = self.response_format.map(|Object(format)| format.constraint()).transpose()?.flatten();
        let schema = self.json_schema.map(|schema| schema_text("json_schema", &schema)).transpose()?;
        let regex = either(("regex", self.regex), ("guided_regex", self.guided_regex))?;
        let asked = [
            ("response_format", format),
            ("regex", regex.map(Constraint::Regex)),
            ("lark", self.lark.map(Constraint::Lark)),
            ("json_schema", schema),
        ];
        let mut asked = asked.into_iter().filter_map(|(field, constraint)| Some((field, constraint?)));
        let Some((field, constraint)) = asked.next() else { return Ok(None) };
        if let Some((other, _)) = asked.next() {
            let message = format!("`{other}` and `{field}` both say what the answer must look like; send one of them");
            return Err(GenerateError::invalid(other, message));
        }
        bounded(field, &constraint)?;
        Ok(Some((field, constraint)))
    }
}

fn bounded(field: &str, constraint: &Constraint) -> Checked<()> {
    let bytes = constraint.text().len();
    if bytes > Constraint::MAX_BYTES {
        let message = format!("`{field}` may have {} bytes, not {bytes}", Constraint::MAX_BYTES);
        return Err(GenerateError::invalid(field, message));
    }
    Ok(())
}

impl ResponseFormat {
    fn constraint(self) -> Checked<Option<Constraint>> {
        let only_with = |field: &str, kind: &str| {
            let field = format!("response_format.{field}");
            Err(GenerateError::invalid(&field, format!("`{field}` goes with the type {kind:?}")))
        };
        if self.json_schema.is_some() && self.kind != "json_schema" {
            return only_with("json_schema", "json_schema");
        }
        if self.schema.is_some() && self.kind != "json_object" {
            return only_with("schema", "json_object");
        }
        match self.kind.as_str() {
            "text" => Ok(None),
            "json_object" => match self.schema {
                None => Ok(Some(Constraint::JsonObject)),
                Some(schema) => schema_text("response_format.schema", &schema).map(Some),
            },
            "json_schema" => {
                let path = "response_format.json_schema";
                let missing = |path: &str| GenerateError::invalid(path, format!("`{path}` is missing"));
                let Some(Object(named)) = self.json_schema else { return Err(missing(path)) };
                schema_name(&format!("{path}.name"), &named.name)?;
                let path = format!("{path}.schema");
                let schema = named.schema.ok_or_else(|| missing(&path))?;
                schema_text(&path, &schema).map(Some)
            }
            kind => {
                let field = "response_format.type";
                let message = format!("`{field}` must be \"text\", \"json_object\" or \"json_schema\", not {kind:?}");
                Err(GenerateError::invalid(field, message))
            }
        }
    }
}

/// A schema's name, by OpenAI's rule.
pub(in crate::api) fn schema_name(path: &str, name: &str) -> Checked<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
        return Err(GenerateError::invalid(path, format!("`{path}` must be 1 to 64 letters, digits, '_' or '-'")));
    }
    Ok(())
}

/// A schema as the client wrote it, key order and all. Whether it is one, the engine says.
pub(in crate::api) fn schema_text(path: &str, schema: &RawValue) -> Checked<Constraint> {
    let text = schema.get();
    if !text.starts_with('{') && !matches!(text, "true" | "false") {
        return Err(GenerateError::invalid(path, format!("`{path}` must be a JSON schema, an object")));
    }
    let constraint = Constraint::JsonSchema(text.to_owned());
    bounded(path, &constraint)?;
    Ok(constraint)
}

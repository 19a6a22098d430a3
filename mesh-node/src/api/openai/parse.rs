//! Bytes to a DTO, or a 400 that names the field; must not know any field.

use mesh_proto::GenerateError;
use serde::de::DeserializeOwned;

use super::wire::Object;
use crate::api::ApiError;

/// Reads a JSON object.
pub(in crate::api) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    if bytes.trim_ascii().is_empty() {
        return Err(ApiError::malformed("the body is empty; it must be a JSON object"));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let Object(value) = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        explain(&path, &error.into_inner())
    })?;
    json.end().map_err(|error| explain(".", &error))?;
    Ok(value)
}

/// Reads a value at `path` of a body that was read before.
pub(in crate::api) fn parse_at<T: DeserializeOwned>(path: &str, json: &str) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_str(json);
    let Object(value) = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let inner = error.path().to_string();
        explain(&if inner == "." { path.to_owned() } else { format!("{path}.{inner}") }, &error.into_inner())
    })?;
    Ok(value)
}

fn explain(path: &str, error: &serde_json::Error) -> ApiError {
    let text = error.to_string();
    if !error.is_data() {
        return ApiError::malformed(format!("the body is not valid JSON: {text}"));
    }
    // serde_json says where in the text it stood, which helps nobody who knows the field.
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(said, _)| said);
    if let Some(name) = quoted(text, "missing field `") {
        let field = join(path, name);
        return GenerateError::invalid(&field, format!("`{field}` is missing")).into();
    }
    if let Some(name) = quoted(text, "unknown field `") {
        let field = if path.ends_with(name) { path.to_owned() } else { join(path, name) };
        let message = format!("`{field}` is not a parameter that works here; leave it out");
        return GenerateError::invalid(field, message).into();
    }
    if path == "." {
        return ApiError::malformed(format!("the body must be a JSON object: {text}"));
    }
    GenerateError::invalid(path, format!("`{path}`: {text}")).into()
}

fn quoted<'a>(text: &'a str, lead: &str) -> Option<&'a str> {
    text.strip_prefix(lead)?.split('`').next()
}

fn join(path: &str, name: &str) -> String {
    if path == "." { name.to_owned() } else { format!("{path}.{name}") }
}

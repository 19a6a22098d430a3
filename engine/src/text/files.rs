//! The text files of a model folder; must not know what is done with them.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::Value as Json;
use tokenizers::Tokenizer;

use crate::text::{ChatTemplates, TextError};

/// Reads a file that may be missing.
fn read(file: &Path) -> Result<Option<String>, TextError> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TextError::Read { file: file.to_owned(), source }),
    }
}

fn malformed(file: &Path, message: impl ToString) -> TextError {
    TextError::Malformed { file: file.to_owned(), message: message.to_string() }
}

/// Reads a JSON object that may be missing; `Null` then.
fn read_json(file: &Path) -> Result<Json, TextError> {
    let Some(text) = read(file)? else { return Ok(Json::Null) };
    let json: Json = serde_json::from_str(&text).map_err(|error| malformed(file, error))?;
    if json.is_object() { Ok(json) } else { Err(malformed(file, "a JSON object is expected")) }
}

/// The tokenizer, without the truncation and padding that some were saved with.
pub(crate) fn tokenizer(dir: &Path) -> Result<Tokenizer, TextError> {
    let file = dir.join("tokenizer.json");
    let text = fs::read(&file).map_err(|source| TextError::Read { file: file.clone(), source })?;
    let mut tokenizer = Tokenizer::from_bytes(text).map_err(|error| malformed(&file, error))?;
    tokenizer.with_truncation(None).map_err(|error| malformed(&file, error))?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

/// What `tokenizer_config.json` and its neighbours say.
pub(crate) struct Config {
    /// `bos_token`, `eos_token`, … by name.
    pub(crate) special_tokens: BTreeMap<String, String>,
    /// The chat template, if the model has one.
    pub(crate) templates: Option<ChatTemplates>,
}

impl Config {
    /// Reads them all. `tokenizer`: the model's.
    pub(crate) fn read(dir: &Path, tokenizer: &Tokenizer) -> Result<Self, TextError> {
        let file = dir.join("tokenizer_config.json");
        let config = read_json(&file)?;
        let map = read_json(&dir.join("special_tokens_map.json"))?;
        let mut special_tokens = BTreeMap::new();
        for (name, token) in [&map, &config].into_iter().filter_map(Json::as_object).flatten() {
            // A token is its text, or an object that says how it is matched.
            let text = token.as_str().or_else(|| token["content"].as_str());
            if let (Some(text), true) = (text, name.ends_with("_token")) {
                special_tokens.insert(name.clone(), text.to_owned());
            } else if token.is_null() {
                special_tokens.remove(name);
            }
        }
        Ok(Self { special_tokens, templates: usable(templates(dir, &file, &config), tokenizer)? })
    }
}

/// A template that does not parse is one of a language that this program does not know all of; where another is sure to be
/// understood by the model, it can be served.
fn usable(
    found: Result<Option<ChatTemplates>, TextError>,
    tokenizer: &Tokenizer,
) -> Result<Option<ChatTemplates>, TextError> {
    match found {
        Err(error @ TextError::Template { .. }) => {
            let Some(templates) = ChatTemplates::fallback(|token| tokenizer.token_to_id(token).is_some()) else {
                return Err(error);
            };
            tracing::warn!(%error, "this chat template cannot be used: conversations are written in ChatML");
            Ok(Some(templates))
        }
        found => found,
    }
}

/// Finds the chat templates as transformers does: the `.jinja` files, or `chat_template.json`, or what
/// `tokenizer_config.json` (`config`, read from `config_file`) holds.
fn templates(dir: &Path, config_file: &Path, config: &Json) -> Result<Option<ChatTemplates>, TextError> {
    let mut sources = jinja_files(dir)?;
    let json_file = dir.join("chat_template.json");
    for (file, json) in [(json_file.as_path(), None), (config_file, Some(config))] {
        if !sources.is_empty() {
            break;
        }
        let read;
        let json = match json {
            Some(json) => json,
            None => {
                read = read_json(file)?;
                &read
            }
        };
        sources = named(&json["chat_template"])
            .map_err(|message| malformed(file, message))?
            .into_iter()
            .map(|(name, source)| (file.to_owned(), name, source))
            .collect();
    }
    if sources.is_empty() {
        return Ok(None);
    }
    // One at a time first, so that an error names its file.
    for (file, name, source) in &sources {
        ChatTemplates::compile(vec![(name.clone(), source.clone())]).map_err(|error| TextError::Template {
            file: file.clone(),
            name: name.clone(),
            line: error.line,
            message: error.message,
        })?;
    }
    let sources = sources.into_iter().map(|(_, name, source)| (name, source)).collect();
    ChatTemplates::compile(sources).map(Some).map_err(|error| malformed(dir, error.message))
}

/// `chat_template.jinja`, and the named ones of `additional_chat_templates/`.
fn jinja_files(dir: &Path) -> Result<Vec<(PathBuf, String, String)>, TextError> {
    let mut sources = Vec::new();
    let main = dir.join("chat_template.jinja");
    if let Some(source) = read(&main)? {
        sources.push((main, "default".to_owned(), source));
    }
    let mut more: Vec<PathBuf> = match fs::read_dir(dir.join("additional_chat_templates")) {
        Ok(entries) => entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect(),
        Err(_) => Vec::new(),
    };
    more.sort();
    for file in more.into_iter().filter(|file| file.extension().is_some_and(|extension| extension == "jinja")) {
        let name = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        if let Some(source) = read(&file)? {
            sources.push((file, name, source));
        }
    }
    Ok(sources)
}

/// A `chat_template` value: nothing, a string, a list of `{name, template}`, or a dictionary of them.
fn named(value: &Json) -> Result<Vec<(String, String)>, String> {
    let pair = |name: &Json, template: &Json| match (name.as_str(), template.as_str()) {
        (Some(name), Some(template)) => Ok((name.to_owned(), template.to_owned())),
        _ => Err("`chat_template` is a list whose items are not all {\"name\", \"template\"}".to_owned()),
    };
    match value {
        Json::Null => Ok(Vec::new()),
        Json::String(template) => Ok(vec![("default".to_owned(), template.clone())]),
        Json::Array(items) => items.iter().map(|item| pair(&item["name"], &item["template"])).collect(),
        Json::Object(items) => {
            items.iter().map(|(name, template)| pair(&Json::String(name.clone()), template)).collect()
        }
        _ => Err("`chat_template` is neither a string nor a list".to_owned()),
    }
}

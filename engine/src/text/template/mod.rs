//! A model's chat template: compiled once, rendered for each conversation; must not know tokens.
//!
//! What Hugging Face's `apply_chat_template` does, in minijinja: the same block trimming, the same variables, the
//! same `tojson`. [`pythonic`] holds what templates expect of Python, [`rewrite`] what minijinja
//! cannot be taught otherwise, [`messages`] what they see of a conversation, [`switches`] what else they are told.

mod fallback;
mod json;
mod messages;
mod pythonic;
mod rewrite;
mod switches;

use std::{collections::BTreeMap, error::Error as _, io};

use jiff::civil::DateTime;
use mesh_proto::{ChatPrompt, GenerateError};
use minijinja::{Environment, Error, ErrorKind, Value};
use serde_json::Value as Json;

/// Instructions that one rendering may take. A template takes some hundred per message, the worst of them for each pair
/// of messages: enough for a thousand turns even so (guess), and one that never ends is stopped after seconds.
const FUEL: u64 = 50_000_000;

/// Bytes that one rendering may write: 32 times the text of a context of a million tokens (guess).
const MAX_OUTPUT_BYTES: usize = 128 << 20;

/// Depth of calls and includes; templates need two or three. Bounds the stack that a macro calling itself takes.
const RECURSION: usize = 500;

/// What a template is rendered with besides the conversation.
#[derive(Clone, Debug, Default)]
pub struct TemplateContext {
    /// `bos_token`, `eos_token` and the like, by the name that templates know them by.
    pub special_tokens: BTreeMap<String, String>,
}

/// A conversation as JSON, for [`ChatTemplates::render_json`].
#[derive(Clone, Copy, Debug)]
pub struct TemplateInput<'a> {
    /// The messages, a list of objects.
    pub messages: &'a Json,
    /// The tools, a list of objects; `None`: none offered.
    pub tools: Option<&'a Json>,
    /// Whether the text ends where the assistant speaks.
    pub add_generation_prompt: bool,
    /// What else the template is told, e.g. `enable_thinking`.
    pub variables: &'a serde_json::Map<String, Json>,
}

/// The chat templates of one model: one, or several by name.
pub struct ChatTemplates {
    environment: Environment<'static>,
    names: Vec<String>,
    text: String,
}

/// A template that does not parse.
#[derive(Debug)]
pub struct TemplateSyntax {
    /// Line of the template, from 1.
    pub line: usize,
    /// What is wrong there.
    pub message: String,
}

impl ChatTemplates {
    /// Compiles `sources` (name, text); a single one is called `default`.
    ///
    /// # Errors
    /// The first one that does not parse, with the line.
    pub fn compile(sources: Vec<(String, String)>) -> Result<Self, TemplateSyntax> {
        let syntax = |error: &Error| TemplateSyntax {
            line: error.line().unwrap_or(1),
            message: error.detail().map_or_else(|| error.kind().to_string(), str::to_owned),
        };
        let mut environment = pythonic::environment().map_err(|error| syntax(&error))?;
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION);
        let mut names = Vec::new();
        let mut text = String::new();
        for (name, source) in sources {
            environment.add_template_owned(name.clone(), rewrite::rewrite(&source)).map_err(|error| syntax(&error))?;
            text.push_str(&source);
            names.push(name);
        }
        Ok(Self { environment, names, text })
    }

    /// The templates' own text, for looking which markup they speak of.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Renders a conversation up to where the assistant speaks. `with_tools`: whether its tools are shown.
    ///
    /// # Errors
    /// `Invalid` on `messages` with the template's own words when it refuses the conversation, or naming the variable
    /// that cannot be told it; `Engine` when it asks for something that this program does not have.
    pub fn render(
        &self,
        chat: &ChatPrompt,
        with_tools: bool,
        context: &TemplateContext,
        now: DateTime,
    ) -> Result<String, GenerateError> {
        let tools = messages::tools(if with_tools { &chat.tools } else { &[] })?;
        let mut variables = switches::variables(chat, &self.text, context)?;
        variables.insert("add_generation_prompt".to_owned(), Value::from(true));
        let mut first_error = None;
        for messages in messages::variants(chat, &self.text) {
            let mut variables = variables.clone();
            variables.insert("messages".to_owned(), messages);
            match self.run(tools.clone(), variables, context, now) {
                Ok(text) => return Ok(text),
                Err(error) => first_error.get_or_insert(error),
            };
        }
        Err(first_error.map_or_else(|| GenerateError::invalid("messages", "there are none"), |error| refusal(&error)))
    }

    /// Renders JSON as it is, as `apply_chat_template` would.
    ///
    /// # Errors
    /// As [`ChatTemplates::render`]; nothing is tried a second time.
    pub fn render_json(
        &self,
        input: &TemplateInput<'_>,
        context: &TemplateContext,
        now: DateTime,
    ) -> Result<String, GenerateError> {
        let mut variables: BTreeMap<String, Value> =
            input.variables.iter().map(|(name, value)| (name.clone(), json::to_value(value))).collect();
        variables.insert("messages".to_owned(), messages::from_json(input.messages));
        variables.insert("add_generation_prompt".to_owned(), Value::from(input.add_generation_prompt));
        self.run(input.tools.map(json::to_value), variables, context, now).map_err(|error| refusal(&error))
    }

    fn run(
        &self,
        tools: Option<Value>,
        variables: BTreeMap<String, Value>,
        context: &TemplateContext,
        now: DateTime,
    ) -> Result<String, Error> {
        let mut root: BTreeMap<String, Value> =
            context.special_tokens.iter().map(|(name, token)| (name.clone(), Value::from(token))).collect();
        let template = self.environment.get_template(self.choose(tools.is_some())?)?;
        root.insert("tools".into(), tools.unwrap_or(Value::from(())));
        root.insert("documents".into(), Value::from(()));
        root.insert("strftime_now".into(), pythonic::strftime_now(now));
        root.extend(variables);
        let mut out = Capped(Vec::new());
        // minijinja is not free of panics (slices, in 3.0.5), and a template is anybody's text.
        let render = || template.render_captured_to(Value::from(root), &mut out).map(drop);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(render))
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::WriteFailure, "the template engine panicked")))?;
        String::from_utf8(out.0).map_err(|_| Error::new(ErrorKind::WriteFailure, "the template wrote no UTF-8"))
    }

    /// As transformers chooses: `tool_use` for tools where there is one, `default` otherwise.
    fn choose(&self, tools: bool) -> Result<&str, Error> {
        let find = |wanted: &str| self.names.iter().find(|name| *name == wanted);
        let found = tools.then(|| find("tool_use")).flatten().or_else(|| find("default"));
        let only = || self.names.first().filter(|_| self.names.len() == 1);
        found.or_else(only).map(String::as_str).ok_or_else(|| {
            let names = self.names.join(", ");
            Error::new(ErrorKind::TemplateNotFound, format!("none of its chat templates is called `default` ({names})"))
        })
    }
}

/// Says whose fault a failed rendering is.
fn refusal(error: &Error) -> GenerateError {
    let mut cause = Some(error as &(dyn std::error::Error + 'static));
    while let Some(error) = cause {
        if let Some(raised) = error.downcast_ref::<pythonic::Raised>() {
            return GenerateError::invalid("messages", raised.0.clone());
        }
        cause = error.source();
    }
    let mut at = error;
    while let Some(inner) = at.source().and_then(|source| source.downcast_ref::<Error>()) {
        at = inner;
    }
    let message = format!("the model's chat template fails on this conversation: {at}");
    match at.kind() {
        ErrorKind::UnknownFilter
        | ErrorKind::UnknownTest
        | ErrorKind::UnknownFunction
        | ErrorKind::TemplateNotFound
        | ErrorKind::WriteFailure
        | ErrorKind::OutOfFuel => GenerateError::Engine(message),
        _ => GenerateError::invalid("messages", message),
    }
}

/// A buffer that fails beyond [`MAX_OUTPUT_BYTES`].
struct Capped(Vec<u8>);

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT_BYTES {
            return Err(io::Error::other(format!("the chat template wrote more than {MAX_OUTPUT_BYTES} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//! What a template is told besides the conversation: how to reason, and the client's own variables; must not know messages.

use std::collections::BTreeMap;

use mesh_proto::{ChatPrompt, GenerateError};
use minijinja::Value;
use serde_json::Value as Json;

use super::{TemplateContext, json::to_value};

/// The effort that means none.
const NO_EFFORT: &str = "none";

/// Names that are not the client's to set, besides those of special tokens.
const TAKEN: [&str; 5] = ["messages", "tools", "add_generation_prompt", "strftime_now", "raise_exception"];

/// The variables of a rendering, messages and tools apart. Families name the same switch differently; a name that a
/// template does not speak of says nothing to it.
///
/// # Errors
/// `Invalid`, naming the variable, where the client sets one that is not his, or one that is no JSON.
pub(crate) fn variables(
    chat: &ChatPrompt,
    template: &str,
    context: &TemplateContext,
) -> Result<BTreeMap<String, Value>, GenerateError> {
    let mut variables = BTreeMap::new();
    let mut set = |name: &str, value: Value| variables.insert(name.to_owned(), value);
    let effort = chat.reasoning_effort.as_deref();
    let thinking = chat.enable_thinking.or((effort == Some(NO_EFFORT)).then_some(false));
    if let Some(thinking) = thinking {
        set("enable_thinking", Value::from(thinking));
        // DeepSeek, Granite, Kimi
        set("thinking", Value::from(thinking));
        // MiniMax M3
        set("thinking_mode", Value::from(if thinking { "enabled" } else { "disabled" }));
    }
    // Cohere's off switch is an effort; others would print the word.
    let knows_none = template.contains("\"none\"") || template.contains("'none'");
    let effort = if thinking == Some(false) { Some(NO_EFFORT).filter(|_| knows_none) } else { effort };
    if let Some(effort) = effort {
        set("reasoning_effort", Value::from(effort));
        // Kimi K3
        set("thinking_effort", Value::from(effort));
    }
    let budget = if thinking == Some(false) { Some(0) } else { chat.reasoning_budget };
    if let Some(budget) = budget {
        // Seed
        set("thinking_budget", Value::from(budget));
        // Nemotron
        set("reasoning_budget", Value::from(budget));
    }
    for (name, text) in &chat.variables {
        let field = || format!("chat_template_kwargs.{name}");
        if TAKEN.contains(&name.as_str()) || name.ends_with("_token") || context.special_tokens.contains_key(name) {
            let message = "this is the server's to say: the model's files and the request's own fields set it";
            return Err(GenerateError::invalid(field(), message));
        }
        let json: Json = serde_json::from_str(text)
            .map_err(|error| GenerateError::invalid(field(), format!("its value is no JSON: {error}")))?;
        variables.insert(name.clone(), to_value(&json));
    }
    Ok(variables)
}

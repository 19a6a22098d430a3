//! A conversation in the shape that chat templates read; must not know any API's JSON.

use serde::{Deserialize, Deserializer, Serialize};

use crate::codec::{CapError, at_most, cap, weighed};

/// A conversation to be rendered by the model's own chat template.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ChatPrompt {
    /// The turns, oldest first.
    #[serde(deserialize_with = "messages")]
    pub messages: Vec<Message>,
    /// The functions the model may call; empty: none offered.
    #[serde(deserialize_with = "at_most::<{ ChatPrompt::MAX_TOOLS }, _, _>")]
    pub tools: Vec<ToolDefinition>,
    /// `enable_thinking` of the template; `None` leaves the template's own default.
    pub enable_thinking: Option<bool>,
    /// `reasoning_effort` of the template (`low`, `medium`, `high`, …), for families that know it.
    pub reasoning_effort: Option<String>,
    /// Most tokens of reasoning: at that many it is closed as the family closes it, and the content begins.
    pub reasoning_budget: Option<u32>,
    /// What else the template is told: a variable's name, and its value as JSON text.
    #[serde(deserialize_with = "at_most::<{ ChatPrompt::MAX_VARIABLES }, _, _>")]
    pub variables: Vec<(String, String)>,
}

impl ChatPrompt {
    /// Most turns, each call in one of them counted like a turn. Guess: a hundred times a long day's conversation.
    pub const MAX_MESSAGES: usize = 16_384;
    /// Most functions. Guess: thirty times what OpenAI takes.
    pub const MAX_TOOLS: usize = 4_096;
    /// Most variables for the template.
    pub const MAX_VARIABLES: usize = 64;

    pub(crate) fn check(&self) -> Result<(), CapError> {
        cap("messages", self.messages.iter().map(Message::weight).sum(), Self::MAX_MESSAGES)?;
        cap("tools", self.tools.len(), Self::MAX_TOOLS)?;
        cap("template variables", self.variables.len(), Self::MAX_VARIABLES)?;
        self.messages.iter().try_for_each(|message| cap("tool_calls", message.tool_calls.len(), Message::MAX_CALLS))
    }
}

fn messages<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Message>, D::Error> {
    weighed(deserializer, ChatPrompt::MAX_MESSAGES, Message::weight)
}

/// Who speaks. `Developer` is what newer clients say for `System`; templates see `system`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions.
    System,
    /// Instructions, under the newer name.
    Developer,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// A function's result.
    Tool,
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// The text; `None` on an assistant turn that only calls tools.
    pub content: Option<String>,
    /// What the assistant thought, for templates that keep it.
    pub reasoning: Option<String>,
    /// The calls of an assistant turn.
    #[serde(deserialize_with = "at_most::<{ Message::MAX_CALLS }, _, _>")]
    pub tool_calls: Vec<ToolCall>,
    /// On a tool turn: the call it answers.
    pub tool_call_id: Option<String>,
    /// The speaker's name, where the client gives one.
    pub name: Option<String>,
}

impl Message {
    /// Most calls of one turn.
    pub const MAX_CALLS: usize = 4_096;

    /// What it counts as among a conversation's turns.
    fn weight(&self) -> usize {
        1 + self.tool_calls.len()
    }

    /// A plain text turn.
    pub fn text(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: Some(content.into()),
            reasoning: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            name: None,
        }
    }
}

/// A call that the model made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Links the call to its result.
    pub id: String,
    /// The function.
    pub name: String,
    /// Its arguments: JSON text, as the model or the client wrote it.
    pub arguments: String,
}

/// A function offered to the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolDefinition {
    /// The function's name.
    pub name: String,
    /// The whole definition as the client sent it (`{"type":"function","function":{…}}`), JSON text:
    /// templates print it, key order and all.
    pub json: String,
}

//! From a request to a prompt in tokens, and to the form that its answer must have; must not know devices.

use std::sync::Arc;

use jiff::civil::DateTime;
use mesh_proto::{ChatPrompt, Constraint, GenerateError, GenerateRequest, Prompt, TokenId, ToolChoice};

use crate::text::{
    TextModel,
    constraint::{Form, Reasoning, Wanted, field, grammar},
    split::{Markup, ThinkTags},
    tools::Offer,
};

/// What a request says of its prompt and of its answer's form.
#[derive(Clone, Copy, Debug)]
pub struct TextRequest<'a> {
    /// What to continue.
    pub prompt: &'a Prompt,
    /// Whether tools may, or must, be called.
    pub tool_choice: &'a ToolChoice,
    /// Whether one answer may hold several calls.
    pub parallel_tool_calls: bool,
    /// What the content must look like.
    pub constraint: Option<&'a Constraint>,
}

impl<'a> TextRequest<'a> {
    /// A prompt whose answer is free.
    pub fn new(prompt: &'a Prompt) -> Self {
        Self { prompt, tool_choice: &ToolChoice::Auto, parallel_tool_calls: true, constraint: None }
    }
}

impl<'a> From<&'a GenerateRequest> for TextRequest<'a> {
    fn from(request: &'a GenerateRequest) -> Self {
        let GenerateRequest { prompt, tool_choice, parallel_tool_calls, constraint, .. } = request;
        Self { prompt, tool_choice, parallel_tool_calls: *parallel_tool_calls, constraint: constraint.as_ref() }
    }
}

/// What an answer must look like: a grammar in llguidance's variant of Lark, over the answer's whole text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grammar(pub String);

/// A prompt in tokens, and how its answer is to be read.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The prompt, at least one token.
    pub tokens: Vec<TokenId>,
    /// What the answer must look like, if anything; with its reasoning and markup.
    pub grammar: Option<Grammar>,
    pub(super) markup: Markup,
    /// Whether the answer is a text of its own, rather than the prompt's continuation.
    pub(super) fresh: bool,
}

impl TextModel {
    /// Renders and tokenises a prompt. A chat goes through the model's template, and no special tokens are added to
    /// what that writes; text gets those of the tokenizer itself; tokens are checked against the vocabulary. Tools are
    /// shown, and calls read, unless [`ToolChoice::None`] is chosen. `now` is the wall clock, for templates that tell the date.
    ///
    /// Takes milliseconds for long prompts: not for an async thread.
    ///
    /// # Errors
    /// `Invalid`, naming the field: no chat template, a conversation that the template refuses, tokens beyond the
    /// vocabulary, nothing to continue, a tool that is chosen and not offered, a schema or grammar that cannot be
    /// compiled. `Engine`: the template or the tokenizer itself fails.
    pub fn prepare(&self, request: TextRequest<'_>, now: DateTime) -> Result<Prepared, GenerateError> {
        self.prepare_with(request, now, |text, specials| self.encode(text, specials))
    }

    /// [`TextModel::prepare`] with another tokenizer: text, and whether it adds its special tokens, to tokens.
    ///
    /// # Errors
    /// As there, and `encode`'s own.
    pub fn prepare_with(
        &self,
        request: TextRequest<'_>,
        now: DateTime,
        encode: impl Fn(&str, bool) -> Result<Vec<TokenId>, GenerateError>,
    ) -> Result<Prepared, GenerateError> {
        let TextRequest { prompt, tool_choice, parallel_tool_calls, constraint } = request;
        let forced = matches!(tool_choice, ToolChoice::Required | ToolChoice::Named(_));
        if let (true, Some(constraint)) = (forced, constraint) {
            let message = "a form of the content goes not with a tool_choice that leaves no content";
            return Err(GenerateError::invalid(field(constraint), message));
        }
        let (tokens, markup, reasoning, wanted, fresh) = match prompt {
            Prompt::Chat(chat) => {
                let offer = self.offer(chat, tool_choice)?;
                let text = self.render(chat, offer.is_some(), now)?;
                let reasoning = Reasoning::after(&text, self.frame);
                let thinking = matches!(reasoning, Reasoning::Open(_));
                let markup = Markup { frame: self.frame, thinking, offer };
                let wanted = match tool_choice {
                    ToolChoice::Required => Wanted::Some { many: parallel_tool_calls },
                    ToolChoice::Named(name) => Wanted::This(name),
                    ToolChoice::Auto | ToolChoice::None if parallel_tool_calls => Wanted::Free,
                    ToolChoice::Auto | ToolChoice::None => Wanted::AtMostOne,
                };
                (encode(&text, false)?, markup, reasoning, wanted, true)
            }
            _ if forced => {
                return Err(GenerateError::invalid("tool_choice", "a plain prompt offers no tools to choose from"));
            }
            Prompt::Text(text) => (encode(text, true)?, Markup::default(), Reasoning::None, Wanted::Free, false),
            Prompt::Tokens(tokens) => {
                if let Some(TokenId(id)) = tokens.iter().find(|token| token.0 >= self.vocab_size()) {
                    let size = self.vocab_size();
                    let message = format!("token {id} is not in the vocabulary: this model's tokens lie below {size}");
                    return Err(GenerateError::invalid("prompt", message));
                }
                (tokens.clone(), Markup::default(), Reasoning::None, Wanted::Free, false)
            }
        };
        if tokens.is_empty() {
            let field = if matches!(prompt, Prompt::Chat(_)) { "messages" } else { "prompt" };
            return Err(GenerateError::invalid(field, "there is nothing to continue: the prompt has no tokens"));
        }
        let (reasoning, marks) = match reasoning {
            Reasoning::May(tags) if forced || constraint.is_some() => self.opened_by_token(tags),
            reasoning => (reasoning, self.marks.to_vec()),
        };
        let form = grammar(&markup, Form { reasoning, wanted, constraint }, &self.checked, &marks)?;
        Ok(Prepared { tokens, grammar: form.map(Grammar), markup, fresh })
    }

    /// A conversation as the model's template writes it, tools and all: what [`TextModel::prepare`] tokenises.
    ///
    /// # Errors
    /// As there.
    pub fn rendered(&self, request: TextRequest<'_>, now: DateTime) -> Result<String, GenerateError> {
        let Prompt::Chat(chat) = request.prompt else {
            return Err(GenerateError::invalid("messages", "only a conversation is rendered"));
        };
        let offer = self.offer(chat, request.tool_choice)?;
        self.render(chat, offer.is_some(), now)
    }

    /// Reasoning before a form, where the model may begin it: with the tag's own token, if it has one. Spelled out, the tag
    /// begins like any text, and a model that would rather write something else altogether takes that way and never ends.
    fn opened_by_token(&self, tags: ThinkTags) -> (Reasoning, Vec<(u32, String)>) {
        let mut marks = self.marks.to_vec();
        let id = self.vocabulary.tokenizer().token_to_id(tags.open);
        marks.extend(id.filter(|id| marks.iter().all(|(mark, _)| mark != id)).map(|id| (id, tags.open.to_owned())));
        (Reasoning::May(tags), marks)
    }

    /// The tools that may be called, if any.
    fn offer(&self, chat: &ChatPrompt, choice: &ToolChoice) -> Result<Option<Arc<Offer>>, GenerateError> {
        match choice {
            ToolChoice::None => return Ok(None),
            ToolChoice::Required if chat.tools.is_empty() => {
                return Err(GenerateError::invalid("tool_choice", "a call is required, and no tools are offered"));
            }
            ToolChoice::Named(name) if chat.tools.iter().all(|tool| tool.name != *name) => {
                let message = format!("it names `{name}`, which is none of the offered tools");
                return Err(GenerateError::invalid("tool_choice", message));
            }
            _ if chat.tools.is_empty() => return Ok(None),
            _ => {}
        }
        Offer::new(self.dialect, &chat.tools).map(Arc::new).map(Some)
    }
}

impl Prepared {
    /// Whether the prompt's end has opened the model's reasoning: the answer's first text is reasoning then.
    pub fn is_reasoning(&self) -> bool {
        self.markup.thinking
    }
}

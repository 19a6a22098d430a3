//! `TextModel`: what a model folder says about text, and what is done with it; must not know devices or requests.

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc};

use jiff::civil::DateTime;
use mesh_proto::{ChatPrompt, Constraint, GenerateError, GenerateRequest, Prompt, TokenId, ToolChoice};
use tokenizers::Tokenizer;

use crate::text::{
    Answer, ChatTemplates, TemplateContext, TextError,
    detok::Detokenizer,
    files,
    split::{Markup, Splitter, THINK_TAGS, ThinkTags},
    tool_call,
    vocabulary::{Spelling, Vocabulary, spelled},
};

/// A model's tokenizer, chat template and special tokens. Immutable and shared.
pub struct TextModel {
    vocabulary: Arc<Vocabulary>,
    templates: Option<ChatTemplates>,
    context: TemplateContext,
    think: Option<ThinkTags>,
    marks: Arc<[(u32, String)]>,
}

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
    markup: Markup,
    /// Whether the answer is a text of its own, rather than the prompt's continuation.
    fresh: bool,
}

impl TextModel {
    /// Reads a model folder: `tokenizer.json`; `tokenizer_config.json` and `special_tokens_map.json` where they are; and
    /// the chat template from `chat_template.jinja` (with `additional_chat_templates/`), else `chat_template.json`, else
    /// `tokenizer_config.json`.
    ///
    /// # Errors
    /// Names the file that is missing or cannot be used, and what is wrong with it; for a template, the line.
    pub fn load(dir: &Path) -> Result<Self, TextError> {
        let tokenizer = files::tokenizer(dir)?;
        let config = files::Config::read(dir)?;
        Ok(Self::new(tokenizer, config.templates, config.special_tokens))
    }

    /// A model of these parts. `special_tokens`: `bos_token`, `eos_token` and the like, by the name that templates know
    /// them by. A tokenizer that only decodes will do for whoever brings tokens himself ([`TextModel::prepare_with`]).
    pub fn new(
        tokenizer: Tokenizer,
        templates: Option<ChatTemplates>,
        special_tokens: BTreeMap<String, String>,
    ) -> Self {
        let vocabulary = Vocabulary::new(tokenizer);
        let markup = templates.as_ref().map_or("", ChatTemplates::text);
        let spoken_of = |tags: &&ThinkTags| markup.contains(tags.open) || markup.contains(tags.close);
        let in_vocabulary = |tags: &&ThinkTags| vocabulary.tokenizer().token_to_id(tags.close).is_some();
        let think = THINK_TAGS.iter().find(spoken_of).or_else(|| THINK_TAGS.iter().find(in_vocabulary)).copied();
        let tags = [Some(tool_call::OPEN), Some(tool_call::CLOSE), think.map(|t| t.open), think.map(|t| t.close)];
        let marks = vocabulary
            .special_tokens()
            .filter(|(_, token)| tags.iter().flatten().any(|tag| tag.contains(token.as_str())))
            .collect();
        let context = TemplateContext { special_tokens };
        Self { vocabulary: Arc::new(vocabulary), templates, context, think, marks }
    }

    /// Renders and tokenises a prompt. A chat goes through the model's template, and no special tokens are added to
    /// what that writes; text gets those of the tokenizer itself; tokens are checked against the vocabulary. Tools are
    /// shown, and calls read, unless [`ToolChoice::None`] is chosen. `now` is the wall clock, for templates that tell the date.
    ///
    /// Takes milliseconds for long prompts: not for an async thread.
    ///
    /// # Errors
    /// `Invalid`, naming the field: no chat template, a conversation that the template refuses, tokens beyond the
    /// vocabulary, nothing to continue. `Engine`: the template or the tokenizer itself fails.
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
        let TextRequest { prompt, tool_choice, constraint, .. } = request;
        let prepared = match prompt {
            Prompt::Chat(chat) => {
                let tools = *tool_choice != ToolChoice::None && !chat.tools.is_empty();
                let text = self.render(chat, tools, now)?;
                let thinking = self.think.is_some_and(|tags| text.trim_end().ends_with(tags.open));
                let markup = Markup { think: self.think, thinking, tools };
                Prepared { tokens: encode(&text, false)?, grammar: None, markup, fresh: true }
            }
            Prompt::Text(text) => Prepared::plain(encode(text, true)?),
            Prompt::Tokens(tokens) => {
                if let Some(TokenId(id)) = tokens.iter().find(|token| token.0 >= self.vocab_size()) {
                    let size = self.vocab_size();
                    let message = format!("token {id} is not in the vocabulary: this model's tokens lie below {size}");
                    return Err(GenerateError::invalid("prompt", message));
                }
                Prepared::plain(tokens.clone())
            }
        };
        if prepared.tokens.is_empty() {
            let field = if matches!(prompt, Prompt::Chat(_)) { "messages" } else { "prompt" };
            return Err(GenerateError::invalid(field, "there is nothing to continue: the prompt has no tokens"));
        }
        let grammar = match constraint {
            None => None,
            Some(Constraint::JsonObject) => Some("start: %json {\"type\":\"object\"}".to_owned()),
            Some(Constraint::JsonSchema(schema)) => Some(format!("start: %json {schema}")),
            Some(Constraint::Regex(regex)) => Some(format!("start: /{}/", llguidance::regex_to_lark(regex, ""))),
            Some(Constraint::Lark(lark)) => Some(lark.clone()),
        };
        Ok(Prepared { grammar: grammar.map(Grammar), ..prepared })
    }

    /// A conversation as the model's template writes it.
    ///
    /// # Errors
    /// As [`TextModel::prepare`].
    pub fn render(&self, chat: &ChatPrompt, tools: bool, now: DateTime) -> Result<String, GenerateError> {
        let Some(templates) = &self.templates else {
            return Err(GenerateError::invalid(
                "messages",
                "this model has no chat template: use /v1/completions with a prompt of your own making, or put a \
                 chat_template.jinja into the model's folder",
            ));
        };
        templates.render(chat, tools, &self.context, now)
    }

    /// The parser of one answer to a prepared prompt. `stop`: strings that end its content.
    pub fn answer(self: &Arc<Self>, prepared: &Prepared, stop: &[String]) -> Answer {
        let end: Vec<u32> = match prepared.fresh {
            true => Vec::new(),
            false => prepared.tokens.iter().map(|token| token.0).collect(),
        };
        let detok = Detokenizer::new(self.vocabulary.clone(), &end);
        Answer::new(self.vocabulary.clone(), self.marks.clone(), detok, Splitter::new(prepared.markup), stop)
    }

    /// What closes this model's reasoning, as it writes it: for whoever cuts the reasoning short. Special tokens are
    /// spelled out, and [`TextModel::encode`] makes them tokens. `None`: it does not reason.
    pub fn reasoning_close(&self) -> Option<&str> {
        self.think.map(|tags| tags.close)
    }

    /// Entries of the vocabulary, added tokens included: one more than the highest id.
    pub fn vocab_size(&self) -> u32 {
        self.vocabulary.size()
    }

    /// Whether conversations can be rendered.
    pub fn has_chat_template(&self) -> bool {
        self.templates.is_some()
    }

    /// The tokenizer's own end-of-sequence token; none or one. What `generation_config.json` says goes before it.
    pub fn eos_from_tokenizer(&self) -> Vec<TokenId> {
        let eos = self.special_token("eos_token").and_then(|token| self.vocabulary.tokenizer().token_to_id(token));
        eos.map(TokenId).into_iter().collect()
    }

    /// A special token's text by its name in `tokenizer_config.json`: `bos_token`, `eos_token`, `pad_token`, …
    pub fn special_token(&self, name: &str) -> Option<&str> {
        self.context.special_tokens.get(name).map(String::as_str)
    }

    /// Tokenises text; with `specials`, the tokenizer adds its own (a beginning-of-sequence token, mostly).
    ///
    /// # Errors
    /// `Engine` when the tokenizer fails.
    pub fn encode(&self, text: &str, specials: bool) -> Result<Vec<TokenId>, GenerateError> {
        let encoding = self
            .vocabulary
            .tokenizer()
            .encode_fast(text, specials)
            .map_err(|error| GenerateError::Engine(format!("the tokenizer failed: {error}")))?;
        Ok(encoding.get_ids().iter().copied().map(TokenId).collect())
    }

    /// The text of some tokens, as the tokenizer's own decoder has it; with `specials`, special tokens are shown.
    ///
    /// # Errors
    /// `Engine` when the tokenizer fails.
    pub fn decode(&self, tokens: &[TokenId], specials: bool) -> Result<String, GenerateError> {
        if tokens.is_empty() {
            return Ok(String::new());
        }
        let ids: Vec<u32> = tokens.iter().map(|token| token.0).collect();
        let text = self.vocabulary.tokenizer().decode(&ids, !specials);
        text.map_err(|error| GenerateError::Engine(format!("the tokenizer failed: {error}")))
    }

    /// What a single token is called in the vocabulary; `None` beyond it.
    pub fn token_name(&self, token: TokenId) -> Option<String> {
        self.vocabulary.tokenizer().id_to_token(token.0)
    }

    /// The bytes that a token always stands for; `None` for markup, and where a token's text depends on its neighbours.
    pub fn token_bytes(&self, token: TokenId) -> Option<&[u8]> {
        match self.vocabulary.spelling() {
            Spelling::Bytes { bytes, ends, .. } if !self.vocabulary.is_special(token.0) => {
                Some(spelled(bytes, ends, token.0))
            }
            _ => None,
        }
    }

    /// Whether a token is markup that text leaves out.
    pub fn is_special(&self, token: TokenId) -> bool {
        self.vocabulary.is_special(token.0)
    }

    /// The special tokens by name, as templates see them.
    pub fn special_tokens(&self) -> &BTreeMap<String, String> {
        &self.context.special_tokens
    }
}

impl Prepared {
    /// A prompt whose answer is plain text that goes on where it ends.
    fn plain(tokens: Vec<TokenId>) -> Self {
        Self { tokens, grammar: None, markup: Markup::default(), fresh: false }
    }
}

impl fmt::Debug for TextModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextModel")
            .field("vocab_size", &self.vocab_size())
            .field("has_chat_template", &self.has_chat_template())
            .field("think", &self.think)
            .finish_non_exhaustive()
    }
}

//! `TextModel`: what a model folder says about text, and what is done with it; must not know devices or requests.

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc};

use jiff::civil::DateTime;
use mesh_proto::{ChatPrompt, GenerateError, TokenId};
use tokenizers::Tokenizer;

use crate::text::{
    Answer, ChatTemplates, Prepared, TemplateContext, TextError,
    constraint::Checked,
    detok::Detokenizer,
    files,
    split::{Frame, Splitter, THINK_TAGS, ThinkTags},
    tools::{self, Dialect, harmony::Harmony},
    vocabulary::{Spelling, Vocabulary, spelled},
};

/// A model's tokenizer, chat template and special tokens. Immutable and shared.
pub struct TextModel {
    pub(super) vocabulary: Arc<Vocabulary>,
    templates: Option<ChatTemplates>,
    context: TemplateContext,
    /// How an answer to a conversation is laid out.
    pub(super) frame: Frame,
    pub(super) dialect: &'static dyn Dialect,
    /// Special tokens that may be markup.
    pub(super) marks: Arc<[(u32, String)]>,
    pub(super) checked: Checked,
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
        let config = files::Config::read(dir, &tokenizer)?;
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
        let shown = templates.as_ref().map_or("", ChatTemplates::text);
        let has_token = |token: &str| vocabulary.tokenizer().token_to_id(token).is_some();
        let spoken_of = |tags: &&ThinkTags| shown.contains(tags.open) || shown.contains(tags.close);
        let in_vocabulary = |tags: &&ThinkTags| has_token(tags.close);
        let think = || THINK_TAGS.iter().find(spoken_of).or_else(|| THINK_TAGS.iter().find(in_vocabulary)).copied();
        let frame = if Harmony::lays_out(shown) { Frame::Harmony } else { Frame::Message(think()) };
        let dialect = tools::choose(shown, has_token);
        let marks = marks(&vocabulary, frame, dialect);
        let context = TemplateContext { special_tokens };
        let checked = Checked::default();
        Self { vocabulary: Arc::new(vocabulary), templates, context, frame, dialect, marks, checked }
    }

    /// The dialect in which this model writes tool calls: chosen from its template and vocabulary.
    pub fn tool_dialect(&self) -> &'static str {
        self.dialect.name()
    }

    /// Chooses the dialect of tool calls by its name, for a model whose template does not tell.
    ///
    /// # Errors
    /// [`TextError::Dialect`], with the names there are.
    pub fn with_tool_dialect(mut self, name: &str) -> Result<Self, TextError> {
        self.dialect = tools::named(name).ok_or_else(|| TextError::Dialect {
            name: name.to_owned(),
            known: tools::DIALECTS.map(Dialect::name).join(", "),
        })?;
        self.marks = marks(&self.vocabulary, self.frame, self.dialect);
        Ok(self)
    }

    /// A conversation as the model's template writes it; in ChatML where that asks for something that this program does not
    /// have, and the vocabulary has ChatML's marks.
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
        match templates.render(chat, tools, &self.context, now) {
            // The template itself fails, not this conversation. Calls would be read as that one shows them.
            Err(error @ GenerateError::Engine(_)) if !tools => {
                let has_token = |token: &str| self.vocabulary.tokenizer().token_to_id(token).is_some();
                let Some(fallback) = ChatTemplates::fallback(has_token) else { return Err(error) };
                tracing::warn!(%error, "this conversation is written in ChatML");
                fallback.render(chat, false, &self.context, now).map_err(|_| error)
            }
            rendered => rendered,
        }
    }

    /// The parser of one answer to a prepared prompt. `stop`: strings that end its content.
    pub fn answer(self: &Arc<Self>, prepared: &Prepared, stop: &[String]) -> Answer {
        let end: Vec<u32> = match prepared.fresh {
            true => Vec::new(),
            false => prepared.tokens.iter().map(|token| token.0).collect(),
        };
        let detok = Detokenizer::new(self.vocabulary.clone(), &end);
        let split = Splitter::new(prepared.markup.clone());
        Answer::new(self.vocabulary.clone(), self.marks.clone(), detok, split, stop).with_ids(self.dialect.ids())
    }

    /// What closes this model's reasoning, as it writes it: for whoever cuts the reasoning short. Special tokens are
    /// spelled out, and [`TextModel::encode`] makes them tokens. `None`: it does not reason.
    pub fn reasoning_close(&self) -> Option<&str> {
        self.frame.reasoning_close()
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

impl fmt::Debug for TextModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextModel")
            .field("vocab_size", &self.vocab_size())
            .field("has_chat_template", &self.has_chat_template())
            .field("frame", &self.frame)
            .field("tool_dialect", &self.dialect.name())
            .finish_non_exhaustive()
    }
}

/// The special tokens that are part of a model's markup.
fn marks(vocabulary: &Vocabulary, frame: Frame, dialect: &dyn Dialect) -> Arc<[(u32, String)]> {
    let layout: &[&str] = if frame == Frame::Harmony { Harmony::MARKS } else { &[] };
    let think = [frame.reasoning_open(), frame.reasoning_close()];
    let tags = || think.into_iter().flatten().chain(layout.iter().copied()).chain(dialect.marks().iter().copied());
    vocabulary.special_tokens().filter(|(_, token)| tags().any(|tag| tag.contains(token.as_str()))).collect()
}

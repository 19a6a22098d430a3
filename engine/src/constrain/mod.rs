//! What an answer may look like, token by token: grammars compiled and followed; must not know batches, devices or
//! requests.
//!
//! [`Grammars`] belongs to a model: its vocabulary as a trie, built when the first grammar comes, and the threads that
//! compute masks. [`Grammars::guide`] compiles a grammar into a [`Guide`], which follows one answer: it takes each token,
//! says when the grammar allows no more, and computes what may come next beside the device's step.
//!
//! Compiling takes milliseconds to a second and the first time longer: not for an async thread. What a grammar may cost
//! is bounded ([`MAX_GRAMMAR_BYTES`], [`limits`]); beyond that it is refused, or its answer fails with the reason.

mod guide;
mod masks;
mod vocabulary;

use std::{
    collections::{BTreeSet, VecDeque},
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use llguidance::{
    Matcher, ParserFactory,
    api::{ParserLimits, TopLevelGrammar},
};
use mesh_proto::TokenId;

pub use guide::Guide;
use masks::Masks;

use crate::text::{Grammar, TextModel};

/// Most bytes of a grammar. Unit: bytes; twice what a request's own schema may have (`Constraint::MAX_BYTES`), for the
/// schemas of its tools and what is written around them. A guess.
pub const MAX_GRAMMAR_BYTES: usize = 2 << 20;

/// Compiled grammars kept for requests that bring the same again (an agent's tools, a service's one schema). Unit:
/// grammars; default 8; a guess. More of it: memory, some megabytes each for large schemas.
const KEPT_GRAMMARS: usize = 8;

/// Bytes of an error that a client is told; llguidance's can quote the grammar.
const MAX_ERROR_BYTES: usize = 1000;

/// What compiling and following one grammar may cost; the units are llguidance's own. Its defaults, but for: lexer states
/// (a fifth of 250,000; one takes one or two kilobytes, so that a request's stay below 100 MB), and errors, which are to
/// name the place and not print the grammar.
fn limits() -> ParserLimits {
    ParserLimits { max_lexer_states: 50_000, verbose_errors: false, ..ParserLimits::default() }
}

/// One model's grammars.
pub struct Grammars {
    text: Arc<TextModel>,
    eos: Arc<BTreeSet<TokenId>>,
    vocab_size: u32,
    factory: OnceLock<Result<ParserFactory, String>>,
    /// As compiled, before their first token; the newest last.
    kept: Mutex<VecDeque<(Grammar, Matcher)>>,
    masks: Arc<Masks>,
}

impl Grammars {
    /// Of a model with `vocab_size` logits, whose answers end with one of `eos`. Builds nothing yet.
    pub fn new(text: Arc<TextModel>, eos: Arc<BTreeSet<TokenId>>, vocab_size: u32) -> Self {
        let (factory, kept) = (OnceLock::new(), Mutex::default());
        Self { text, eos, vocab_size, factory, kept, masks: Arc::default() }
    }

    /// Compiles a grammar for one answer.
    ///
    /// # Errors
    /// What is wrong with it, in llguidance's words; or with the model's vocabulary.
    pub fn guide(&self, grammar: &Grammar) -> Result<Guide, String> {
        if grammar.0.len() > MAX_GRAMMAR_BYTES {
            return Err(format!("a grammar of {} bytes is more than {MAX_GRAMMAR_BYTES}", grammar.0.len()));
        }
        Ok(Guide::new(self.matcher(grammar)?, self.masks.clone()))
    }

    fn matcher(&self, grammar: &Grammar) -> Result<Matcher, String> {
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, matcher)) = kept().iter().find(|(other, _)| other == grammar) {
            // Deep: what is shared would be locked by one request's mask for another's.
            return Ok(matcher.deep_clone());
        }
        let factory =
            self.factory.get_or_init(|| vocabulary::factory(&self.text, &self.eos, self.vocab_size, limits()));
        let factory = factory.as_ref().map_err(Clone::clone)?;
        let matcher = Matcher::new(factory.create_parser(TopLevelGrammar::from_lark(grammar.0.clone())));
        if let Some(error) = matcher.get_error() {
            return Err(in_short(&error));
        }
        let mut kept = kept();
        if kept.len() >= KEPT_GRAMMARS {
            kept.pop_front();
        }
        kept.push_back((grammar.clone(), matcher.deep_clone()));
        Ok(matcher)
    }
}

impl fmt::Debug for Grammars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammars").field("built", &self.factory.get().is_some()).finish_non_exhaustive()
    }
}

/// An error of llguidance for somebody's eyes: no backtrace, and no more than fits a message.
fn in_short(error: &str) -> String {
    let error = error.split("\n<backtrace>").next().unwrap_or_default().trim();
    let end = (0..=error.len().min(MAX_ERROR_BYTES)).rev().find(|end| error.is_char_boundary(*end)).unwrap_or(0);
    error[..end].to_owned()
}

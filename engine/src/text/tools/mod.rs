//! Tool calls as each family writes them, one dialect a file; must not know tokens, or where in an answer a call stands.
//!
//! A [`Dialect`] reads calls as they come ([`Dialect::read`]: the name as soon as it is certain, then the arguments as
//! JSON text), and writes the grammar of calls of given tools ([`Dialect::grammar`]). [`DIALECTS`] is the only list.

mod cohere;
mod deepseek;
mod dsml;
mod functionary;
mod gemma;
mod glm;
mod granite;
pub(crate) mod harmony;
mod hermes;
mod ids;
mod json;
mod kimi;
mod lfm2;
mod literal;
mod llama;
mod minicpm;
mod minimax;
mod mistral;
mod offer;
mod pythonic;
mod qwen3_coder;
mod seed;
mod tagged;

use std::{fmt, future::Future, pin::Pin};

pub(crate) use ids::new_id;
pub(crate) use offer::{Offer, Tool};

use crate::text::{grammar::Writer, reader::Reader};

/// What came of an attempt to read calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// Calls were given out.
    Calls,
    /// This is none, or none more: what was consumed since the last one is text.
    Nothing,
}

/// Reading, boxed: dialects are chosen when a model is loaded.
pub(crate) type Reads<'a> = Pin<Box<dyn Future<Output = Read> + Send + 'a>>;

/// The grammar of calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Calls {
    /// The tag that opens them; empty where they stand bare, at the content's start.
    pub(crate) open: &'static str,
    /// What follows it: a Lark expression.
    pub(crate) rest: String,
}

/// How a family writes tool calls.
pub(crate) trait Dialect: Sync + fmt::Debug {
    /// What it is called, for whoever chooses it.
    fn name(&self) -> &'static str;

    /// Whether a model with this chat template writes it.
    fn is_spoken_in(&self, template: &str) -> bool;

    /// A token that only the vocabularies of its models have, where templates do not tell.
    fn token(&self) -> Option<&'static str> {
        None
    }

    /// The tags that open calls.
    fn opens(&self) -> &'static [&'static str];

    /// What calls start with that stand bare, at the content's start.
    fn bare(&self) -> &'static [&'static str] {
        &[]
    }

    /// All its markup, in which special tokens are looked for.
    fn marks(&self) -> &'static [&'static str];

    /// Reads calls behind `open`, one of [`Dialect::opens`] or empty.
    fn read<'a>(&'a self, reader: &'a Reader, offer: &'a Offer, open: &'static str) -> Reads<'a>;

    /// The grammar of calls of `tools`: one, or with `many` one or more.
    fn grammar(&self, tools: &[&Tool], many: bool, writer: &mut Writer<'_>) -> Calls;

    /// The grammar of what follows [`Dialect::opens`]' first (or stands bare) in one call of anything, up to its end; or
    /// `None` where an answer holds no more than one anyway.
    fn one(&self, writer: &mut Writer<'_>) -> Option<String>;

    /// What makes ids for calls that the model gave none.
    fn ids(&self) -> fn() -> String {
        new_id
    }
}

/// The dialects, in the order in which templates are asked for them: what is looked for in a template is rarer first.
pub(crate) const DIALECTS: [&dyn Dialect; 21] = [
    &harmony::Harmony,
    &gemma::Gemma,
    &kimi::Kimi,
    &deepseek::DeepSeekV31,
    &deepseek::DeepSeekV3,
    &dsml::DSML,
    &minimax::M2,
    &minimax::M1,
    &seed::SEED,
    &minicpm::MINICPM,
    &glm::Glm,
    &qwen3_coder::QWEN3_CODER,
    &mistral::MistralNamed,
    &mistral::MistralList,
    &lfm2::Lfm2,
    &cohere::Cohere,
    &granite::Granite,
    &functionary::Functionary,
    &pythonic::Pythonic,
    &llama::LlamaJson,
    &hermes::Hermes,
];

/// The dialect of a model: what its template shows, else what its vocabulary has, else Hermes, which most tunes learn.
pub(crate) fn choose(template: &str, has_token: impl Fn(&str) -> bool) -> &'static dyn Dialect {
    let shown = DIALECTS.iter().find(|dialect| dialect.is_spoken_in(template));
    let known = || DIALECTS.iter().find(|dialect| dialect.token().is_some_and(&has_token));
    shown.or_else(known).copied().unwrap_or(&hermes::Hermes)
}

/// The dialect of a name.
pub(crate) fn named(name: &str) -> Option<&'static dyn Dialect> {
    DIALECTS.iter().find(|dialect| dialect.name() == name).copied()
}

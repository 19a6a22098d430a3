//! The text pipeline: prompts into tokens, tokens into answers; it must not know devices, batches or clients.
//!
//! A [`TextModel`] is what a model folder says about text: tokenizer, chat template, special tokens. It is loaded once
//! and shared. [`TextModel::prepare`] renders and tokenises a prompt; [`TextModel::answer`] gives the [`Answer`] that
//! takes the generated tokens one by one and gives back [`Piece`]s: whole characters, reasoning apart from content,
//! tool calls parsed, stop strings met.
//!
//! The way of a generated token: `detok` (bytes, then whole characters) → `split` (reasoning, content, tool calls)
//! → `stops` (content only) → pieces. How a family writes tool calls is a file in `tools`; what an answer is forced to
//! look like is a grammar, which `constraint` puts together and whoever samples enforces.

mod answer;
mod constraint;
mod detok;
mod files;
mod grammar;
mod model;
mod prepare;
mod reader;
mod split;
mod stops;
mod template;
mod tools;
mod vocabulary;

use std::path::PathBuf;

use thiserror::Error;

pub use answer::{Answer, Piece};
pub use model::TextModel;
pub use prepare::{Grammar, Prepared, TextRequest};
pub use template::{ChatTemplates, TemplateContext, TemplateInput, TemplateSyntax};

/// Why a model folder's text files cannot be used.
#[derive(Debug, Error)]
pub enum TextError {
    /// A file cannot be read.
    #[error("{}: {source}", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file is not what its name says.
    #[error("{}: {message}", file.display())]
    Malformed {
        /// Which.
        file: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// There is no dialect of tool calls of this name.
    #[error("`{name}` is no dialect of tool calls: there are {known}")]
    Dialect {
        /// The name.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A chat template does not parse.
    #[error("{}: chat template `{name}`, line {line}: {message}", file.display())]
    Template {
        /// The file that holds it.
        file: PathBuf,
        /// Its name; `default` where there is only one.
        name: String,
        /// The template's line, from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
}

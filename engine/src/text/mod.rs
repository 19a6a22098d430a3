//! The text pipeline: prompts into tokens, tokens into answers; it must not know devices, batches or clients.
//!
//! A [`TextModel`] is what a model folder says about text: tokenizer, chat template, special tokens. It is loaded once
//! and shared. [`TextModel::prepare`] renders and tokenises a prompt; [`TextModel::answer`] gives the [`Answer`] that
//! takes the generated tokens one by one and gives back [`Piece`]s: whole characters, reasoning apart from content,
//! tool calls parsed, stop strings met.
//!
//! The way of a generated token: `detok` (bytes, then whole characters) → `split` (reasoning, content, tool calls)
//! → `stops` (content only) → pieces.

mod answer;
mod detok;
mod files;
mod model;
mod split;
mod stops;
mod template;
mod tool_call;
mod vocabulary;

use std::path::PathBuf;

use thiserror::Error;

pub use answer::{Answer, Piece};
pub use model::{Grammar, Prepared, TextModel, TextRequest};
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

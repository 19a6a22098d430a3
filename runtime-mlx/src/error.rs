//! Why a model could not be loaded; must not know HTTP or the command line.

use std::path::PathBuf;

use thiserror::Error;

/// Loading failed. Every message is one line that names the file, tensor or field.
#[derive(Debug, Error)]
pub enum MlxError {
    /// A file cannot be read or is not what it should be.
    #[error("{}: {message}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// `config.json` asks for something that this engine does not have.
    #[error("config.json: {0}")]
    Config(String),
    /// The checkpoint lacks a tensor that the architecture needs.
    #[error("the checkpoint lacks the tensor `{0}`")]
    MissingTensor(String),
    /// The checkpoint holds tensors that the architecture has no use for.
    #[error("the checkpoint holds {} that this architecture does not use: {}", count(.0), list(.0))]
    LeftoverTensors(Vec<String>),
    /// A tensor has another shape than the configuration says.
    #[error("the tensor `{name}` has shape {found:?}, and config.json implies {expected:?}")]
    TensorShape {
        /// Which tensor.
        name: String,
        /// Its shape.
        found: Vec<i32>,
        /// What it should be.
        expected: Vec<i32>,
    },
    /// The model needs more memory than there is.
    #[error("{0}")]
    DoesNotFit(String),
    /// The tokenizer or the chat template.
    #[error(transparent)]
    Text(#[from] engine::text::TextError),
    /// MLX itself failed.
    #[error("MLX: {0}")]
    Device(#[from] mlx_rs::error::Exception),
    /// The engine's thread could not be started.
    #[error("{0}")]
    Start(String),
}

impl MlxError {
    pub(crate) fn file(path: impl Into<PathBuf>, message: impl ToString) -> Self {
        Self::File { path: path.into(), message: message.to_string() }
    }
}

fn count(names: &[String]) -> String {
    if names.len() == 1 { "a tensor".into() } else { format!("{} tensors", names.len()) }
}

/// The first few names; a checkpoint of the wrong family has hundreds.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let mut text = names.iter().take(SHOWN).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}

//! What a GGUF file says in its header, read within bounds; must not know which of it matters for serving.
//!
//! Our own reader, since the packages for it (gguf-rs-lib, gguf-rs, ggus) allocate by the header's counts, panic on
//! values of other types, or refuse tensor kinds that they do not know: a header comes from anywhere.

mod kinds;
mod read;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod writer;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::CatalogError;
pub(crate) use kinds::{file_type_name, kind_name};

/// Metadata and tensors of one GGUF file, versions 2 and 3, little endian.
#[derive(Clone, Debug)]
pub struct Header {
    path: PathBuf,
    metadata: BTreeMap<String, Value>,
    tensors: Vec<Tensor>,
}

/// Where a tensor lies, and in which form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name, e.g. `blk.0.attn_k.weight`.
    pub name: String,
    /// Elements by dimension, the one that lies closest together first: `[in, out]` of a matrix.
    pub shape: Vec<u64>,
    /// ggml's number of how its elements are stored; may be one that this code does not know.
    pub kind: u32,
    /// Its length in bytes. Of an unknown kind: up to the next tensor or the file's end, so with padding.
    pub bytes: u64,
    /// Its first byte, from the start of the file's data section.
    pub offset: u64,
}

/// A metadata value, as wide as its kind gets.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Flag(bool),
    Text(String),
    Texts(Vec<String>),
    /// Integers and flags. One above `i64::MAX` is held as that.
    Numbers(Vec<i64>),
    /// Arrays of floats: nobody asks for them, so they are not kept.
    Skipped,
}

/// Reads a file's header, and nothing of its data: milliseconds, whatever the model's size. Takes at most about
/// 512 MiB of memory for a hostile header, and a few times its length for a real one. Blocks.
///
/// # Errors
/// When the file is missing, is no GGUF file that llama.cpp could load, or is shorter than its tensors. One line that
/// names the file.
pub fn read(path: &Path) -> Result<Header, CatalogError> {
    read::header(path)
}

/// A file's `general.architecture`, without the rest; `None` where it does not say, or is no GGUF file.
pub(crate) fn architecture(path: &Path) -> Option<String> {
    read::architecture(path)
}

impl Header {
    /// The file that this was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A text. Bytes that are not UTF-8 are replaced.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.metadata.get(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// An integer of any width that is not negative.
    pub fn number(&self, key: &str) -> Option<u64> {
        match self.metadata.get(key)? {
            Value::Unsigned(number) => Some(*number),
            Value::Signed(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// A float of either width.
    pub fn float(&self, key: &str) -> Option<f64> {
        match self.metadata.get(key)? {
            Value::Float(number) => Some(*number),
            _ => None,
        }
    }

    /// A boolean.
    pub fn flag(&self, key: &str) -> Option<bool> {
        match self.metadata.get(key)? {
            Value::Flag(flag) => Some(*flag),
            _ => None,
        }
    }

    /// An array of texts (`tokenizer.ggml.tokens`). Bytes that are not UTF-8 are replaced.
    pub fn texts(&self, key: &str) -> Option<&[String]> {
        match self.metadata.get(key)? {
            Value::Texts(texts) => Some(texts),
            _ => None,
        }
    }

    /// An array of integers or booleans (0, 1), or a single one as an array of one: hyperparameters are either one
    /// number for all layers, or one for each.
    pub fn numbers(&self, key: &str) -> Option<Vec<i64>> {
        match self.metadata.get(key)? {
            Value::Numbers(numbers) => Some(numbers.clone()),
            Value::Unsigned(number) => Some(vec![i64::try_from(*number).unwrap_or(i64::MAX)]),
            Value::Signed(number) => Some(vec![*number]),
            Value::Flag(flag) => Some(vec![i64::from(*flag)]),
            _ => None,
        }
    }

    /// Whether the header has this key, whatever its value is.
    pub fn has(&self, key: &str) -> bool {
        self.metadata.contains_key(key)
    }

    /// `general.architecture`, e.g. `qwen3`; empty where the file does not say.
    pub fn architecture(&self) -> &str {
        self.text("general.architecture").unwrap_or_default()
    }

    /// A number under the architecture's own name: `own("block_count")` of a qwen3 is `qwen3.block_count`.
    pub fn own(&self, name: &str) -> Option<u64> {
        self.number(&self.own_key(name))
    }

    /// The key of something under the architecture's own name.
    pub fn own_key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture())
    }

    /// The tensors of this file, in its order.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }
}

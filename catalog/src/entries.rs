//! Models known by name, as `models.json` lists them; must not know engines, machines, files on disk, or the network.
//!
//! The list lies in the binary. Facts in it that nobody compared with the hub say so: `verified` is `null`.

#[cfg(test)]
mod schema;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    Format,
    fit::{self, Kv, Weights},
};

static DATA: &str = include_str!("../models.json");

// A test parses the same text: there is no binary in which this list is empty.
static LIST: LazyLock<Vec<Entry>> = LazyLock::new(|| parse(DATA).unwrap_or_default());

/// A model of the catalog.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What people type.
    pub id: String,
    /// Owner and name on the hub.
    pub repository: String,
    /// In which form the files are.
    #[serde(deserialize_with = "format")]
    pub format: Format,
    /// How the weights are stored; of a GGUF repository also the label that picks the file.
    pub quantization: String,
    /// The model's files in the repository; empty: by the label (GGUF), or what a loader reads (MLX).
    #[serde(default)]
    pub files: Vec<String>,
    /// The architecture, in the words of `config.json`'s `model_type`.
    pub family: String,
    /// Entries with the same word here are claimed to have the same tokens; `None`: no claim.
    pub vocabulary: Option<String>,
    /// Of the whole model, rounded.
    pub parameters: u64,
    /// Of a mixture of experts, those that one token uses.
    pub active_parameters: Option<u64>,
    /// Most tokens of prompt and answer together.
    pub context: u32,
    /// What keys and values cost; `None`: not known.
    pub attention: Option<Attention>,
    /// SPDX identifier, or the licence's own name.
    pub licence: String,
    /// What the model can do; what a node offers of it is the node's to say.
    pub capabilities: Vec<Capability>,
    /// Id of a smaller entry of the same format and vocabulary that can guess ahead.
    pub drafter: Option<String>,
    /// Bytes of the weights' files, as the hub lists them; `None`: nobody looked.
    pub bytes: Option<u64>,
    /// The day (`2026-11-21`) on which somebody compared this entry with the hub; `None`: never.
    pub verified: Option<String>,
}

/// A model's attention, as far as its cache is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attention {
    /// Layers that attend.
    pub layers: u32,
    /// Heads of keys and values in each.
    pub kv_heads: u32,
    /// Elements in each head's key, and in its value.
    pub head_dim: u32,
    /// Layers among them that look back a window only.
    #[serde(default)]
    pub windowed_layers: u32,
    /// That window, in tokens.
    #[serde(default)]
    pub window: u32,
}

/// Something a model can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// Answers in turns.
    Chat,
    /// Calls tools.
    Tools,
    /// Thinks before it answers.
    Reasoning,
    /// Sees images.
    Vision,
    /// Turns text into vectors.
    Embeddings,
}

impl Capability {
    /// As the data has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Tools => "tools",
            Self::Reasoning => "reasoning",
            Self::Vision => "vision",
            Self::Embeddings => "embeddings",
        }
    }
}

/// All of them, by id.
pub fn entries() -> &'static [Entry] {
    &LIST
}

/// The entry of this id, whatever the case it was typed in.
pub fn entry(id: &str) -> Option<&'static Entry> {
    LIST.iter().find(|entry| entry.id.eq_ignore_ascii_case(id))
}

impl Entry {
    /// What to ask the hub for, as a person would type it: `owner/name`, `owner/name:Q4_K_M`, or the first of its files.
    pub fn reference(&self) -> String {
        match (self.files.first(), self.format) {
            (Some(file), _) => format!("{}/{file}", self.repository),
            (None, Format::Gguf) => format!("{}:{}", self.repository, self.quantization),
            (None, Format::Mlx) => self.repository.clone(),
        }
    }

    /// Bytes of the weights: as the hub lists them, else guessed.
    pub fn weights(&self) -> Option<Weights> {
        let seen = self.bytes.map(|bytes| Weights { bytes, estimated: false });
        seen.or_else(|| fit::estimate(self.parameters, &self.quantization))
    }

    /// What keys and values cost.
    pub fn kv(&self) -> Option<Kv> {
        let Attention { layers, kv_heads, head_dim, windowed_layers, window } = self.attention?;
        Some(Kv::of(u64::from(kv_heads) * u64::from(head_dim) * 2, layers, windowed_layers, window))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    #[serde(rename = "$schema")]
    _schema: String,
    models: Vec<Entry>,
}

fn parse(text: &str) -> Result<Vec<Entry>, serde_json::Error> {
    Ok(serde_json::from_str::<Data>(text)?.models)
}

fn format<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Format, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Word {
        Mlx,
        Gguf,
    }
    Ok(match Word::deserialize(deserializer)? {
        Word::Mlx => Format::Mlx,
        Word::Gguf => Format::Gguf,
    })
}

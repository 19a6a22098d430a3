//! A record's parts about models; must not know which of them a router prefers.

use serde::{Deserialize, Serialize};

use crate::{
    ModelId, Sampling,
    codec::{CapError, Ext, cap},
    placement::ModelKey,
};

/// Most bytes of a name: a model's, a repository's, a release's. Hugging Face's longest are below 200.
pub const MAX_NAME: usize = 256;

/// What a model is, whatever it is called. Two nodes whose identities are equal give equal tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelIdentity {
    /// `org/repo`, or empty for local files.
    pub repository: String,
    /// The commit that was downloaded; empty for local files.
    pub revision: String,
    /// How the weights are stored, e.g. `4-bit affine, group 32`.
    pub quantization: String,
    /// BLAKE3 over the model's files, as the catalog computes it.
    pub content: [u8; 32],
}

impl ModelIdentity {
    /// One value to compare and to elect by: a digest over all four, each with its length before it.
    pub fn key(&self) -> ModelKey {
        let mut hasher = blake3::Hasher::new_derive_key("mesh-llm model identity v1");
        for text in [&self.repository, &self.revision, &self.quantization] {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        }
        hasher.update(&self.content);
        ModelKey(*hasher.finalize().as_bytes())
    }
}

/// What can be asked of a model: bits, of which unknown ones are kept and mean nothing here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// Chat: it has a template.
    pub const CHAT: Self = Self(1);
    /// Tool calls are parsed out of its answers.
    pub const TOOLS: Self = Self(1 << 1);
    /// It thinks aloud.
    pub const REASONING: Self = Self(1 << 2);
    /// Answers can be held to a grammar.
    pub const GRAMMAR: Self = Self(1 << 3);
    /// Embeddings.
    pub const EMBEDDINGS: Self = Self(1 << 4);
    /// Images in prompts.
    pub const VISION: Self = Self(1 << 5);
    /// A generation can be taken over from its tokens.
    pub const RESUME: Self = Self(1 << 6);
    /// Documents are held against a query.
    pub const RERANK: Self = Self(1 << 7);

    /// Whether all of `other` is there.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Those that a person or a program is told of, in words.
    pub fn words(self) -> Vec<&'static str> {
        let told = [
            (Self::CHAT, "chat"),
            (Self::TOOLS, "tools"),
            (Self::REASONING, "reasoning"),
            (Self::EMBEDDINGS, "embeddings"),
            (Self::RERANK, "rerank"),
        ];
        told.into_iter().filter(|(one, _)| self.has(*one)).map(|(_, word)| word).collect()
    }

    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// How near a model is to answering. One byte; what is unknown cannot be routed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "u8", into = "u8")]
pub enum ModelState {
    /// The files are here.
    OnDisk,
    /// On its way into memory.
    Loading,
    /// Answers.
    Ready,
    /// Failed to load, and is not tried again by itself.
    Failed,
    /// A newer build's.
    Other(u8),
}

impl From<u8> for ModelState {
    fn from(byte: u8) -> Self {
        match byte {
            0 => Self::OnDisk,
            1 => Self::Loading,
            2 => Self::Ready,
            3 => Self::Failed,
            other => Self::Other(other),
        }
    }
}

impl From<ModelState> for u8 {
    fn from(state: ModelState) -> u8 {
        match state {
            ModelState::OnDisk => 0,
            ModelState::Loading => 1,
            ModelState::Ready => 2,
            ModelState::Failed => 3,
            ModelState::Other(byte) => byte,
        }
    }
}

/// How busy a model is on its node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Generations running.
    pub in_flight: u32,
    /// Generations waiting.
    pub queued: u32,
    /// Bytes of KV cache that new ones can have.
    pub free_kv_bytes: u64,
    /// Tokens generated per 1000 seconds, over all rows, of late.
    pub tokens_per_kilosecond: u64,
    /// Median time to the first token of late, in milliseconds; 0: none yet.
    pub ttft_ms: u32,
}

/// Sampling that a model's makers recommend, for doors that do not have its files. Each is an `f32`'s bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recommended {
    /// [`Sampling::temperature`].
    pub temperature: u32,
    /// [`Sampling::top_p`].
    pub top_p: u32,
    /// [`Sampling::top_k`], as it is.
    pub top_k: u32,
    /// [`Sampling::min_p`].
    pub min_p: u32,
}

impl Recommended {
    /// Out of a model's defaults.
    pub fn of(sampling: &Sampling) -> Self {
        Self {
            temperature: sampling.temperature.to_bits(),
            top_p: sampling.top_p.to_bits(),
            top_k: sampling.top_k,
            min_p: sampling.min_p.to_bits(),
        }
    }

    /// As a request's sampling. What no model can recommend (another node said it) is left at what changes nothing.
    pub fn sampling(self) -> Sampling {
        let within = |bits: u32, low: f32, high: f32, off: f32| {
            let value = f32::from_bits(bits);
            if (low..=high).contains(&value) { value } else { off }
        };
        Sampling {
            temperature: within(self.temperature, 0.0, 100.0, 1.0),
            top_p: within(self.top_p, f32::MIN_POSITIVE, 1.0, 1.0),
            top_k: self.top_k,
            min_p: within(self.min_p, 0.0, 1.0, 0.0),
            ..Sampling::default()
        }
    }
}

impl Default for Recommended {
    fn default() -> Self {
        Self::of(&Sampling::default())
    }
}

/// A model on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedModel {
    /// The name that clients use.
    pub id: ModelId,
    /// What it is.
    pub identity: ModelIdentity,
    /// The engine's kind: `mlx`, `gguf`, `script`.
    pub engine: String,
    /// The family, e.g. `qwen3`.
    pub family: String,
    /// How near it is to answering.
    pub state: ModelState,
    /// Most tokens of prompt and answer together.
    pub context_tokens: u32,
    /// Most generations at once.
    pub max_concurrency: u32,
    /// What it takes in memory, in bytes.
    pub weight_bytes: u64,
    /// What can be asked of it.
    pub capabilities: Capabilities,
    /// Entries of the vocabulary; token ids lie below it.
    pub vocab_size: u32,
    /// When it was loaded, Unix seconds.
    pub created: u64,
    /// What its makers recommend where a request is silent.
    pub defaults: Recommended,
    /// How busy it is.
    pub load: Load,
    /// Later additions.
    pub ext: Ext,
}

impl ServedModel {
    pub(super) fn check(&self) -> Result<(), CapError> {
        cap("model id", self.id.as_str().len(), MAX_NAME)?;
        cap("repository", self.identity.repository.len(), MAX_NAME)?;
        cap("revision", self.identity.revision.len(), MAX_NAME)?;
        cap("quantization", self.identity.quantization.len(), MAX_NAME)?;
        cap("engine", self.engine.len(), MAX_NAME)?;
        cap("family", self.family.len(), MAX_NAME)?;
        self.ext.check()
    }
}

/// What a node's clients asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demand {
    /// By the name they used.
    pub model: ModelId,
    /// Requests per 1000 seconds, decayed.
    pub requests_per_kilosecond: u64,
}

/// "This place is mine": the placement machine's claim as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Of which model.
    pub model: ModelKey,
    /// Which of its places, from 0.
    pub slot: u8,
    /// Under which election.
    pub term: u64,
    /// The claimant's weight when it claimed.
    pub weight: u32,
    /// It answers; otherwise it loads.
    pub serving: bool,
    /// Later additions.
    pub ext: Ext,
}

/// Which prefixes of prompts a node has in its KV caches, as the router made it and reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefixSketch {
    /// Of which model.
    pub model: ModelKey,
    /// The sketch's kind; unknown ones are skipped.
    pub kind: u8,
    /// The sketch.
    pub bytes: Vec<u8>,
}

impl PrefixSketch {
    /// Most bytes of one sketch. Guess: 256 prefixes of 4 bytes.
    pub const MAX_BYTES: usize = 1024;

    pub(super) fn check(&self) -> Result<(), CapError> {
        cap("sketch", self.bytes.len(), Self::MAX_BYTES)
    }
}

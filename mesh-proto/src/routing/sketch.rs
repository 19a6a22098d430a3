//! Which prompts' beginnings a node still has in its KV, in a few bytes; must not know tokenizers or caches.
//!
//! A prompt's canonical bytes are cut into blocks of [`BLOCK_BYTES`]; each border's hash chains on the one
//! before, so that equal hashes mean equal beginnings. Door and host compute them from the same
//! [`Prompt`], without the model's tokenizer, which a door without the model does not have. A host publishes
//! its cached prompts' hashes at borders 1, 2, 4, 8, … and at the last one; a door looks for its own prompt's
//! longest border among them. Hashes are keyed by the mesh and the model: outsiders can't test guesses.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::reason::Matched;
use crate::{Prompt, placement::ModelKey};

/// A block's length. Unit: bytes of the canonical prompt. Default: 256 (some 64 tokens of English). Origin: vLLM's
/// and SGLang's routers match at 16 to 256 tokens. Cost of less: more hashing; of more: short prompts never match.
pub const BLOCK_BYTES: usize = 256;

/// Most blocks of a prompt that are hashed. Unit: blocks. Default: 4096 (1 MiB). Origin: about 256 k tokens. Cost:
/// at most a millisecond of BLAKE3 a request.
pub const MAX_BLOCKS: usize = 4096;

/// Most hashes in a published sketch. Unit: hashes of 4 bytes. Default: 256, so 1 KiB a model. Origin: a record
/// must fit a gossip message of 16 KiB. Cost: with 12 borders a prompt, some 20 conversations are visible.
pub const MAX_SKETCH: usize = 256;

/// The hashes of one prompt's borders, shortest beginning first. Truncated to 32 bits: a false match costs a
/// worse choice, never a wrong answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefixChain(Vec<u32>);

impl PrefixChain {
    /// Of a prompt, under the mesh's key (any 32 bytes that members share and outsiders don't).
    pub fn of(prompt: &Prompt, mesh_key: &[u8; 32], model: ModelKey) -> Self {
        let mut bytes = Vec::new();
        canonical(prompt, &mut bytes);
        Self::of_bytes(&bytes, mesh_key, model)
    }

    /// Of canonical bytes. A last block that is not full has no border.
    pub fn of_bytes(bytes: &[u8], mesh_key: &[u8; 32], model: ModelKey) -> Self {
        let mut chain = blake3::Hasher::new_keyed(mesh_key);
        chain.update(&model.0);
        let borders = bytes.chunks_exact(BLOCK_BYTES).take(MAX_BLOCKS).map(|block| {
            chain.update(block);
            truncated(&chain)
        });
        Self(borders.collect())
    }

    /// Full blocks.
    pub fn blocks(&self) -> usize {
        self.0.len()
    }

    /// The hashes worth publishing: borders 1, 2, 4, 8, … and the last.
    fn landmarks(&self) -> impl Iterator<Item = u32> + '_ {
        let last = self.0.len();
        let kept = move |border: &usize| border.is_power_of_two() || *border == last;
        (1..=last).filter(kept).filter_map(|border| self.0.get(border - 1).copied())
    }
}

/// A conversation, by the name its client gives it (`prompt_cache_key`, a session header), hashed under the mesh's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionKey(pub u32);

impl SessionKey {
    /// Of the client's name for it.
    pub fn of(name: &str, mesh_key: &[u8; 32], model: ModelKey) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(mesh_key);
        hasher.update(b"session").update(&model.0).update(name.as_bytes());
        Self(truncated(&hasher))
    }
}

fn truncated(hasher: &blake3::Hasher) -> u32 {
    let mut first = [0; 4];
    hasher.finalize_xof().fill(&mut first);
    u32::from_le_bytes(first)
}

/// What a host publishes of one model's cached prompts and sessions. Build it with a [`SketchKeeper`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sketch {
    hashes: BTreeSet<u32>,
}

impl Sketch {
    /// From a record's list; what exceeds [`MAX_SKETCH`] is left out.
    pub fn new(hashes: impl IntoIterator<Item = u32>) -> Self {
        Self { hashes: hashes.into_iter().take(MAX_SKETCH).collect() }
    }

    /// For a record, in rising order.
    pub fn hashes(&self) -> impl Iterator<Item = u32> + '_ {
        self.hashes.iter().copied()
    }

    /// How much of `prompt` the host has, and whether it knows `session`. A match is at most what the host
    /// has, and more than half of it: borders double.
    pub fn matched(&self, prompt: &PrefixChain, session: Option<SessionKey>) -> Matched {
        let longest = prompt.0.iter().rposition(|hash| self.hashes.contains(hash));
        Matched {
            blocks: longest.map_or(0, |at| at + 1),
            of: prompt.blocks(),
            session: session.is_some_and(|session| self.hashes.contains(&session.0)),
        }
    }
}

/// The host's side: remembers what its cache holds, newest first.
#[derive(Clone, Debug, Default)]
pub struct SketchKeeper {
    used: BTreeMap<u32, u64>,
    clock: u64,
}

impl SketchKeeper {
    /// The cache holds this prompt now (or used it again). The oldest landmarks make room.
    pub fn cached(&mut self, prompt: &PrefixChain, session: Option<SessionKey>) {
        self.clock += 1;
        for hash in prompt.landmarks().chain(session.map(|session| session.0)) {
            self.used.insert(hash, self.clock);
        }
        while self.used.len() > MAX_SKETCH {
            let oldest = self.used.iter().min_by_key(|(hash, used)| (**used, **hash)).map(|(hash, _)| *hash);
            let Some(oldest) = oldest else { break };
            self.used.remove(&oldest);
        }
    }

    /// The cache is empty: the model was unloaded, or its memory given up.
    pub fn clear(&mut self) {
        self.used.clear();
    }

    /// What to publish.
    pub fn sketch(&self) -> Sketch {
        Sketch::new(self.used.keys().copied())
    }
}

/// A prompt's bytes in the order a model reads them: tools, then the turns. Lengths are marked behind each
/// part, so that a growing conversation's bytes only ever grow at the end.
fn canonical(prompt: &Prompt, out: &mut Vec<u8>) {
    fn part(out: &mut Vec<u8>, tag: u8, text: &str) {
        out.extend_from_slice(text.as_bytes());
        out.push(tag);
        out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    }
    match prompt {
        Prompt::Text(text) => out.extend_from_slice(text.as_bytes()),
        Prompt::Tokens(tokens) => tokens.iter().for_each(|token| out.extend_from_slice(&token.0.to_le_bytes())),
        Prompt::Chat(chat) => {
            chat.tools.iter().for_each(|tool| part(out, 0, &tool.json));
            for message in &chat.messages {
                out.push(message.role as u8);
                message.reasoning.iter().for_each(|text| part(out, 1, text));
                message.content.iter().for_each(|text| part(out, 2, text));
                for call in &message.tool_calls {
                    part(out, 3, &call.name);
                    part(out, 4, &call.arguments);
                }
            }
        }
    }
}

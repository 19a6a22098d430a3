//! `Decoder`: tokens in, tokens out, one batched step; must not know text, requests or clients.
//!
//! A decoder belongs to one OS thread, together with the scheduler (device arrays are not `Sync`). It holds
//! *sequences*: a sequence is opened with its prompt, prefilled in chunks, and then advanced one token a
//! step. Steps are **submitted** and **collected** separately, in order, so that the next step can be issued
//! before the last one's tokens are read: a decoding row's input is the token that its previous step chose,
//! which the decoder keeps on the device.
//!
//! Some rows' choices need more than that: what a grammar allows, or what repeats, follows from the text so far, which
//! only the host knows. A step with such a row is [held](StepPlan::held): the model's part of it is issued at once, the
//! choice when [`choose`](Decoder::choose) is told how to make it. So the device computes while the host reads the step
//! before and makes up its mind, and no row waits for another.

use std::sync::Arc;

use mesh_proto::{Sampling, TokenId};
use thiserror::Error;

use crate::pool::Pooling;

/// A sequence of one decoder; never used twice in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeqId(pub u64);

/// What a decoder can hold; does not change after loading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecoderLimits {
    /// Tokens of prompt and answer that one sequence may have.
    pub context_tokens: u32,
    /// Entries of the vocabulary.
    pub vocab_size: u32,
    /// KV bytes of one token of one sequence.
    pub kv_bytes_per_token: u64,
    /// KV bytes that all running sequences may take together.
    pub kv_budget_bytes: u64,
}

/// A sequence to be opened.
#[derive(Clone, Debug)]
pub struct SequenceSpec {
    /// Its name from now on.
    pub id: SeqId,
    /// The whole prompt, at least one token.
    pub prompt: Vec<TokenId>,
    /// How its tokens are chosen; the seed is set (`Some`).
    pub sampling: Sampling,
    /// How many of the likeliest tokens are told with each chosen one and its probability; `None`: nothing is told.
    pub logprobs: Option<u8>,
    /// What must not be chosen for a while.
    pub ban: Option<Ban>,
    /// What is made of it instead of choosing a token ([`Decoder::pooled`]).
    pub pool: Option<Pooling>,
}

impl SequenceSpec {
    /// A sequence of which nothing more is asked.
    pub fn new(id: SeqId, prompt: Vec<TokenId>, sampling: Sampling) -> Self {
        Self { id, prompt, sampling, logprobs: None, ban: None, pool: None }
    }
}

/// Tokens that are not chosen yet: those that end an answer which has to have a length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Which.
    pub tokens: Arc<[TokenId]>,
    /// The first position at which they may be chosen; a sequence's first token has position 0.
    pub before: u64,
}

/// What the driver says of one row's next choice, beyond the sequence's own parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Steering {
    /// Whose.
    pub seq: SeqId,
    /// Added to these tokens' logits after biases and penalties, before anything is cut off; each token once.
    pub addends: Vec<(TokenId, f32)>,
    /// The tokens that may be chosen, at least one; `None`: any.
    pub allowed: Option<TokenSet>,
}

/// A set of tokens, a bit each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSet(Vec<u32>);

impl TokenSet {
    /// From words of 32 bits: token t is bit t % 32 of word t / 32, and tokens beyond the last word are not in it.
    pub fn from_words(words: Vec<u32>) -> Self {
        Self(words)
    }

    /// One token alone.
    pub fn only(token: TokenId) -> Self {
        let mut words = vec![0; token.0 as usize / 32 + 1];
        words[token.0 as usize / 32] = 1 << (token.0 % 32);
        Self(words)
    }

    /// The words.
    pub fn words(&self) -> &[u32] {
        &self.0
    }

    /// Whether a token is in it.
    pub fn has(&self, token: TokenId) -> bool {
        self.0.get(token.0 as usize / 32).is_some_and(|word| word >> (token.0 % 32) & 1 == 1)
    }

    /// Takes a token out.
    pub fn remove(&mut self, token: TokenId) {
        if let Some(word) = self.0.get_mut(token.0 as usize / 32) {
            *word &= !(1 << (token.0 % 32));
        }
    }

    /// Whether none is in it.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }
}

/// A piece of a prompt to be computed in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefillChunk {
    /// Whose.
    pub seq: SeqId,
    /// First token of the piece, as an index into the prompt.
    pub start: u32,
    /// Tokens in the piece, at least one.
    pub len: u32,
    /// Whether the prompt ends with this piece: then the step chooses the answer's first token.
    pub last: bool,
}

/// One step of the whole batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepPlan {
    /// Sequences that advance by one token from the one they chose last.
    pub decode: Vec<SeqId>,
    /// Pieces of prompts computed in the same step.
    pub prefill: Vec<PrefillChunk>,
    /// Nothing is chosen before [`Decoder::choose`] says how.
    pub held: bool,
}

impl StepPlan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.decode.is_empty() && self.prefill.is_empty()
    }

    /// The rows for which it chooses a token: all that decode, and all whose prompt ends.
    pub fn choosing(&self) -> impl Iterator<Item = SeqId> {
        let ends = self.prefill.iter().filter(|chunk| chunk.last).map(|chunk| chunk.seq);
        self.decode.iter().copied().chain(ends)
    }
}

/// A token chosen by a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// Whose.
    pub seq: SeqId,
    /// Which.
    pub token: TokenId,
    /// How likely it was, where the sequence asks for it.
    pub odds: Option<Odds>,
}

/// How likely a token was, by the model alone: natural logarithms of probabilities, before everything that sampling does.
#[derive(Clone, Debug, PartialEq)]
pub struct Odds {
    /// Of the token that was chosen.
    pub chosen: f32,
    /// The likeliest tokens, the likeliest first; as many as the sequence asks for, or the whole vocabulary.
    pub top: Vec<(TokenId, f32)>,
}

/// Bytes that a decoder holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecoderMemory {
    /// By open sequences.
    pub kv_bytes: u64,
    /// For reuse by later prompts.
    pub prefix_bytes: u64,
}

/// A step that failed. The decoder stays usable unless it says so.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// These sequences cannot go on; the others can. A step that fails so when it is collected counts as collected,
    /// and its other sequences' tokens are lost with it: the driver opens them again.
    #[error("{message}")]
    Sequences {
        /// Whose.
        seqs: Vec<SeqId>,
        /// Why.
        message: String,
    },
    /// The device or the runtime failed; every open sequence is lost (they are still closed, with `None`), and no
    /// step is in flight any more: none is collected.
    #[error("{0}")]
    Device(String),
}

/// One machine's arithmetic, one batched step at a time. See the module's page.
pub trait Decoder {
    /// What it can hold.
    fn limits(&self) -> DecoderLimits;

    /// Opens a sequence. Returns how many tokens of the prompt need not be computed, because another sequence's KV
    /// covers them, one that has ended or one that is open, as far as its prompt was submitted: always fewer than the
    /// prompt has, since the last one must be computed. The driver relies on open ones where several prompts that begin
    /// alike come at once: it opens the others when the first one's prompt is on its way.
    ///
    /// # Errors
    /// When the sequence cannot be held.
    fn open(&mut self, spec: SequenceSpec) -> Result<u32, DecodeError>;

    /// Issues a step; does not wait for it. At most two may be uncollected. Each sequence appears at most once
    /// in a plan; a sequence decodes only after its last prefill chunk was submitted. A step that is held is followed by
    /// [`choose`](Self::choose) before the next one is submitted and before it is collected itself.
    ///
    /// # Errors
    /// When it cannot be issued; then it is not collected either.
    fn submit(&mut self, plan: &StepPlan) -> Result<(), DecodeError>;

    /// Lets the step that was submitted last, and held, choose its tokens: all its rows, each by its own parameters and by
    /// what `steering` says of it. Rows that were closed meanwhile are passed over. Does not wait for the step.
    ///
    /// # Errors
    /// When it cannot be issued. Whatever the error is, it counts as one of the device.
    fn choose(&mut self, steering: &[Steering]) -> Result<(), DecodeError>;

    /// Waits for the oldest uncollected step: one token for each decoding row and each last prefill chunk. Tokens
    /// of sequences that were closed meanwhile are left out.
    ///
    /// # Errors
    /// When the step failed on the device.
    fn collect(&mut self) -> Result<Vec<Sampled>, DecodeError>;

    /// What was made of a sequence that is [pooled](SequenceSpec::pool), once the step that ends its prompt is collected: it
    /// was among that step's tokens, with one that means nothing. Such a sequence never decodes. `None`: this decoder
    /// cannot, or there is nothing.
    fn pooled(&mut self, _seq: SeqId) -> Option<Vec<f32>> {
        None
    }

    /// Ends a sequence and frees its place at once, steps in flight or not. `kept` is the sequence's whole text
    /// (prompt and answer tokens) if its KV may serve later prompts, or `None` if it may not; KV exists for at
    /// most all but the last of these tokens. (Steps in flight may have added the last one's, and one beyond `kept`,
    /// which is cut. Of a prompt that was not computed to its end, `kept` has only the tokens computed.)
    fn close(&mut self, seq: SeqId, kept: Option<&[TokenId]>);

    /// Bytes held now.
    fn memory(&self) -> DecoderMemory;
}

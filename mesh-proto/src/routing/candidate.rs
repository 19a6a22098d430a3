//! What routing needs to know of a node and of a request, and which do not fit; must not know records or requests.

use std::fmt;

use super::{PrefixChain, SessionKey, Sketch};
use crate::{
    ModelId,
    identity::NodeId,
    placement::{Lease, ModelKey},
    record::Capabilities,
};

/// A node's load, as its record says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests being answered.
    pub in_flight: u32,
    /// Requests waiting.
    pub queued: u32,
    /// Requests it answers at once.
    pub slots: u32,
    /// Median time to the first token of late, milliseconds; 0: none yet. Believed until this door has measured.
    pub ttft_ms: u32,
    /// Tokens per second it reads prompts at; 0: not known.
    pub prefill_per_second: u32,
}

/// A node that serves a model, as the directory knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The node.
    pub node: NodeId,
    /// The name it serves the model by.
    pub name: ModelId,
    /// Which model that is.
    pub model: ModelKey,
    /// Most tokens of prompt and answer together.
    pub context_tokens: u32,
    /// What it can be asked for.
    pub capabilities: Capabilities,
    /// It stops soon.
    pub draining: bool,
    /// It is suspected dead.
    pub suspect: bool,
    /// How busy it is.
    pub load: Load,
    /// What its KV holds.
    pub sketch: Sketch,
    /// The lease it serves under, if it is an elected host.
    pub lease: Option<Lease>,
}

/// What a request wants.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    /// The name the client gave.
    pub name: ModelId,
    /// Only this identity: a generation that is resumed must go on with the very same model.
    pub model: Option<ModelKey>,
    /// Tokens of context it needs at least (prompt, as far as known, and one).
    pub context_tokens: u32,
    /// What the model must be able to do.
    pub needs: Capabilities,
    /// The prompt's borders; empty where the prompt is shorter than a block.
    pub prefix: PrefixChain,
    /// The conversation, where the client names it.
    pub session: Option<SessionKey>,
    /// Breaks ties differently for each request: its id's hash, say.
    pub salt: u64,
}

/// Why a node that serves the model was not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filtered {
    /// It serves another model by this name than the one the generation began with.
    OtherIdentity,
    /// Its context is too small.
    Context {
        /// Tokens it holds.
        has: u32,
        /// Tokens asked for.
        needs: u32,
    },
    /// It lacks these.
    Capabilities(Capabilities),
    /// It stops soon.
    Draining,
    /// It has already failed this request, in a way that another try would not mend.
    Refused,
}

impl fmt::Display for Filtered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherIdentity => f.write_str("another model by the same name"),
            Self::Context { has, needs } => write!(f, "context of {has} tokens, {needs} needed"),
            Self::Capabilities(lacks) => write!(f, "lacks capabilities {:#x}", lacks.0),
            Self::Draining => f.write_str("draining"),
            Self::Refused => f.write_str("refused this request"),
        }
    }
}

impl Candidate {
    /// Why this candidate must not get the request; `None` where it may.
    pub fn unfit(&self, wish: &Wish) -> Option<Filtered> {
        let lacks = Capabilities(wish.needs.0 & !self.capabilities.0);
        if wish.model.is_some_and(|model| model != self.model) {
            Some(Filtered::OtherIdentity)
        } else if self.context_tokens < wish.context_tokens {
            Some(Filtered::Context { has: self.context_tokens, needs: wish.context_tokens })
        } else if lacks.0 != 0 {
            Some(Filtered::Capabilities(lacks))
        } else {
            self.draining.then_some(Filtered::Draining)
        }
    }
}

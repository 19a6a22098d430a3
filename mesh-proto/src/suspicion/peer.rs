//! What is known of one peer's life; must not know the other peers.

use crate::time::Millis;

/// Why a peer is suspected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Nothing was heard of it.
    Silent,
    /// Its connection closed without a goodbye.
    Closed,
    /// A probe could not be sent or failed at once.
    ProbeFailed,
    /// Somebody accuses it; this node looks for itself.
    Accused,
    /// Watched, or back from the dead, and not heard yet.
    Unproven,
}

/// Why a peer was declared dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// Neither this node nor those it asked heard of it.
    Silent,
    /// Its connection closed, and then the same.
    Closed,
    /// Others vouched for it for as long as they may, and it was never heard here.
    Unreachable,
}

/// A peer's state. Route to `Alive` only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Heard lately.
    Alive,
    /// Perhaps not there.
    Suspect {
        /// Why.
        why: Doubt,
        /// Others hear it, and this node does not: a link is cut, not a life.
        vouched: bool,
    },
    /// Declared dead here.
    Dead {
        /// Why.
        why: Death,
    },
    /// It said goodbye.
    Left,
}

#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) incarnation: u64,
    pub(super) health: Health,
    /// Last heard, directly.
    pub(super) heard: Millis,
    /// Last probed.
    pub(super) probed: Millis,
    /// Last asked others about.
    pub(super) asked: Option<Millis>,
    /// Others' words count until then.
    pub(super) vouched: Option<Millis>,
    /// When it was declared dead, or left.
    pub(super) ended: Option<Millis>,
    /// How long its silence may last.
    pub(super) patience: Millis,
    /// Looked at because it was accused, and not watched otherwise.
    pub(super) accused: bool,
}

impl Peer {
    pub(super) fn new(incarnation: u64, patience: Millis, now: Millis) -> Self {
        let health = Health::Suspect { why: Doubt::Unproven, vouched: false };
        Self {
            incarnation,
            health,
            heard: now,
            probed: now,
            asked: None,
            vouched: None,
            ended: None,
            patience,
            accused: false,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.health, Health::Dead { .. } | Health::Left)
    }

    pub(super) fn is_suspect(&self) -> bool {
        matches!(self.health, Health::Suspect { .. })
    }
}

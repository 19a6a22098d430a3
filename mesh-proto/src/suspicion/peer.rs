//! What is known of one peer's life; must not know the other peers.

use super::Config;
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
    /// When it was declared dead, or left; until its record stands again.
    pub(super) ended: Option<Millis>,
    /// How long its silence may last.
    pub(super) patience: Millis,
    /// Looked at because it was accused, and not watched otherwise.
    pub(super) accused: bool,
    /// It was heard again after it was declared dead here, and its record does not stand yet: when it was last told so.
    pub(super) told: Option<Millis>,
    /// Where it stands in the detector's agenda: when something is due for it, or before that.
    pub(super) noted: Option<Millis>,
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
            told: None,
            noted: None,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.health, Health::Dead { .. } | Health::Left)
    }

    pub(super) fn is_suspect(&self) -> bool {
        matches!(self.health, Health::Suspect { .. })
    }
}

impl Config {
    /// When something about this peer is to be done next.
    pub(super) fn due(&self, peer: &Peer) -> Millis {
        match peer.health {
            Health::Alive => {
                let probe = (peer.heard + self.probe_every).max(peer.probed + self.probe_every);
                probe.min(peer.heard + self.suspect_after)
            }
            Health::Suspect { .. } => {
                let (probe, verdict) = (peer.probed + self.probe_every, self.verdict(peer));
                probe.min(verdict).min(self.ask_at(peer).unwrap_or(verdict))
            }
            Health::Dead { .. } | Health::Left => peer.ended.unwrap_or_default() + self.forget_after,
        }
    }

    /// When others are asked about a suspected peer. About one that this node does not watch they are asked once, unless
    /// somebody vouches: its watchers asked before they accused it, and all members look at it in the same second.
    pub(super) fn ask_at(&self, peer: &Peer) -> Option<Millis> {
        match peer.asked {
            None => Some(peer.heard + self.suspect_after),
            Some(_) if peer.accused && peer.vouched.is_none() => None,
            Some(at) => Some(at + self.ask_every),
        }
    }

    /// When a suspected peer is dead, as things stand.
    pub(super) fn verdict(&self, peer: &Peer) -> Millis {
        let silent = peer.heard + peer.patience;
        let vouched = peer.vouched.map_or(silent, |until| until.max(silent));
        vouched.min(silent + self.vouched_at_most)
    }
}

//! Bytes sent, by what for; must not know what was in them.

/// What bytes are sent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// The failure detector's frames.
    Probes,
    /// Gossip's payload: records and accusations.
    Gossip,
    /// Gossip's own messages: who has what, which link is in the tree.
    Tree,
    /// Anti-entropy.
    Sync,
    /// Handshakes.
    Dials,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Probes, Self::Gossip, Self::Tree, Self::Sync, Self::Dials];
}

/// What one node, or all, sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Payload bytes, by [`Purpose::ALL`].
    pub bytes: [u64; 5],
    /// Messages, likewise.
    pub messages: [u64; 5],
}

impl Traffic {
    /// Around each message: IP, UDP, QUIC's header and tag. Unit: bytes. Origin: 28 + some 32.
    pub const AROUND: u64 = 60;

    pub(super) fn count(&mut self, purpose: Purpose, bytes: usize) {
        self.bytes[purpose as usize] += bytes as u64;
        self.messages[purpose as usize] += 1;
    }

    /// Bytes on the wire for one purpose, with what is around each message.
    pub fn wire(&self, purpose: Purpose) -> u64 {
        self.bytes[purpose as usize] + Self::AROUND * self.messages[purpose as usize]
    }

    /// Bytes on the wire in all.
    pub fn all(&self) -> u64 {
        Purpose::ALL.iter().map(|purpose| self.wire(*purpose)).sum()
    }

    pub(super) fn add(&mut self, other: &Self) {
        for purpose in 0..self.bytes.len() {
            self.bytes[purpose] += other.bytes[purpose];
            self.messages[purpose] += other.messages[purpose];
        }
    }
}

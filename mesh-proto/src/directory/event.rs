//! What goes into the directory and what comes out; must not know what it does with either.

use super::{Announce, Gone, SyncFrame};
use crate::{
    identity::{Contact, NodeId, RevocationList, Signed},
    record::{Record, Version},
};

/// What the directory is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// This node's own new record.
    Own(Signed<Record>),
    /// A gossip message, as it came; `from`: whom the hop came from.
    Gossip {
        /// The neighbour.
        from: NodeId,
        /// An encoded [`Announce`].
        bytes: Vec<u8>,
    },
    /// A frame of anti-entropy, as it came.
    Frame {
        /// Who sent it, by its QUIC identity.
        from: NodeId,
        /// An encoded [`SyncFrame`].
        bytes: Vec<u8>,
    },
    /// Whom the disk or a ticket names. Those of whom nothing is heard are knocked at, whoever else is linked.
    Known(Vec<Contact>),
    /// A member can be spoken to.
    LinkUp(NodeId),
    /// It cannot any more. Says nothing about its life.
    LinkDown(NodeId),
    /// The failure detector's word on this incarnation of a node; a later one is not touched.
    Dead {
        /// Who.
        node: NodeId,
        /// Which life.
        incarnation: u64,
    },
    /// It said goodbye to this life, over its own connection.
    Left {
        /// Who.
        node: NodeId,
        /// Which life.
        incarnation: u64,
    },
    /// A revocation list, from the operator or the disk.
    Revoke {
        /// The founder's key.
        root: NodeId,
        /// The list.
        list: Signed<RevocationList>,
    },
    /// The time of [`super::Directory::next_wakeup`] has come.
    Wake,
}

/// What the caller is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a frame of anti-entropy.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        frame: SyncFrame,
    },
    /// Gossip this node's record.
    Broadcast(Announce),
    /// A record is new or newer: [`super::Directory::get`].
    Changed(NodeId),
    /// A record does not stand any more.
    Gone {
        /// Whose.
        node: NodeId,
        /// Why.
        why: Gone,
    },
    /// Close every connection with it, and open none: its membership was taken back.
    Expel(NodeId),
    /// A newer revocation list counts: keep it on disk, and check the certificate of every open connection against
    /// it (one that was taken back by its serial has no [`Effect::Expel`] of its own).
    Revoked,
    /// Try to connect: it was known, and nobody here speaks with it.
    Reach(Contact),
    /// A record of this node is about that is not older than its own (its clock went back, or its key is used
    /// twice). Publish one with an incarnation above this, and tell the failure detector
    /// ([`crate::suspicion::Input::Outran`]).
    Outrun(Version),
    /// A peer sent what no honest node sends. One is enough to close the connection.
    Offence {
        /// Who.
        from: NodeId,
        /// A metric's label.
        what: &'static str,
    },
}

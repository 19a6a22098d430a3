//! What nodes say to each other about being alive; must not know who believes it.

use serde::{Deserialize, Serialize};

use crate::{
    codec::{self, CodecError, Wire},
    identity::NodeId,
};

/// One frame or datagram between members. Which peer speaks is known from the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProbeFrame {
    /// "Are you there?" Answered at once with a pong of the same number.
    Ping(u64),
    /// "Yes."
    Pong(u64),
    /// "Do you hear this one?"
    Ask(NodeId),
    /// "I heard it, after you asked."
    Vouch(NodeId),
    /// "I declare this life of that node dead." To all, the accused too.
    Accuse {
        /// Who.
        node: NodeId,
        /// Which life.
        incarnation: u64,
    },
    /// "I go, on purpose."
    Leave {
        /// The speaker's life.
        incarnation: u64,
    },
}

impl ProbeFrame {
    /// What the frame says to a node where `known` gives the life in each node's record that stands. Nothing, if it accuses
    /// somebody of whom there is none (a liar could make this node look for a thousand of them), or of an earlier life: that
    /// one was refuted. An accusation of a later life than the known one counts for that one: no liar's number must outlast
    /// the accused's refutation.
    #[must_use]
    pub fn of_known(self, known: impl FnOnce(&NodeId) -> Option<u64>) -> Option<Self> {
        match self {
            Self::Accuse { node, incarnation } => {
                known(&node).filter(|known| *known <= incarnation).map(|incarnation| Self::Accuse { node, incarnation })
            }
            other => Some(other),
        }
    }

    /// The accusation that a gossip message is; `None`: it is something else. A record's announcement carries two signatures
    /// and is longer than any probe frame, so a message's length tells which it is. What a frame says beside accusations it
    /// says of its speaker, and who speaks is not known of what others passed on.
    ///
    /// # Errors
    /// When it is short, and no accusation.
    pub fn gossiped(bytes: &[u8]) -> Option<Result<Self, CodecError>> {
        let what = Self::NAME;
        (bytes.len() <= Self::LIMIT).then(|| match codec::decode(bytes) {
            Ok(accusation @ Self::Accuse { .. }) => Ok(accusation),
            Ok(_) => Err(CodecError::Malformed { what }),
            Err(error) => Err(error),
        })
    }
}

impl Wire for ProbeFrame {
    const NAME: &'static str = "probe frame";
    const LIMIT: usize = 128;
    const VARIANTS: u8 = 6;
}

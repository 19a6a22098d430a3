//! What nodes say to each other about being alive; must not know who believes it.

use serde::{Deserialize, Serialize};

use crate::{codec::Wire, identity::NodeId};

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

impl Wire for ProbeFrame {
    const NAME: &'static str = "probe frame";
    const LIMIT: usize = 128;
    const VARIANTS: u8 = 6;
}

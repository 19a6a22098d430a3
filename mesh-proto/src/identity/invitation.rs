//! What an issuer promises to whoever comes with it; must not know who comes.

use serde::{Deserialize, Serialize};

use super::{MeshId, NodeId, Signable};
use crate::{
    codec::{CapError, Ext, Wire, cap},
    time::{Millis, UnixMillis},
};

/// How long an invitation stands unless its maker says otherwise. Default 24 h: a ticket is a password, and
/// lies in shell histories. Cost: whoever finds it in that time joins.
pub const INVITATION_LIFETIME: Millis = Millis::secs(24 * 3600);

/// Most nodes that one invitation may admit. Guess; bounds what an issuer remembers (32 bytes each).
pub const MAX_USES: u32 = 10_000;

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MemberRole {
    /// Serve models, and ask.
    Serve,
    /// Ask.
    Client,
}

/// An invitation's name: 16 bytes from the operating system's generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nonce(pub [u8; 16]);

/// The signed part of a ticket. It is honoured by its issuer only, which counts the uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// Into which mesh.
    pub mesh: MeshId,
    /// As what.
    pub role: MemberRole,
    /// Whether who comes may admit others in turn; only the founder can give that.
    pub admits: bool,
    /// From when.
    pub not_before: UnixMillis,
    /// Until when.
    pub not_after: UnixMillis,
    /// For how many different nodes, 1 to [`MAX_USES`]. A node that comes again does not count again.
    pub max_uses: u32,
    /// Who honours it.
    pub issuer: NodeId,
    /// Its name.
    pub nonce: Nonce,
    /// The one node it is for, if it is for one.
    pub bound: Option<NodeId>,
    /// Later additions.
    pub ext: Ext,
}

impl Wire for Invitation {
    const NAME: &'static str = "invitation";
    const LIMIT: usize = 1024;
    fn check(&self) -> Result<(), CapError> {
        cap("max_uses", self.max_uses as usize, MAX_USES as usize)?;
        self.ext.check()
    }
}

impl Signable for Invitation {
    const DOMAIN: &'static str = "mesh-llm invitation v1";
}

/// What the maker of an invitation decides.
#[derive(Clone, Debug)]
pub struct Terms {
    /// As what.
    pub role: MemberRole,
    /// Whether who comes may admit others.
    pub admits: bool,
    /// For how long, from now.
    pub lifetime: Millis,
    /// For how many different nodes.
    pub max_uses: u32,
    /// For one node only.
    pub bound: Option<NodeId>,
    /// Its name; fresh for each.
    pub nonce: Nonce,
}

impl Terms {
    /// For any number of nodes up to [`MAX_USES`], for [`INVITATION_LIFETIME`].
    pub fn new(role: MemberRole, nonce: Nonce) -> Self {
        Self { role, admits: false, lifetime: INVITATION_LIFETIME, max_uses: MAX_USES, bound: None, nonce }
    }
}

//! What the founder takes back, for everybody to see; must not know how it travels.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{MembershipCert, MeshId, NodeId, Nonce, OpenError, Signable, Signed};
use crate::{
    codec::{CapError, Ext, Wire, cap},
    time::UnixMillis,
};

/// Everything revoked so far. Each list holds all of the one before; the highest number counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationList {
    /// Of which mesh.
    pub mesh: MeshId,
    /// Counts up from 1 with each new list.
    pub number: u64,
    /// When it was signed.
    pub issued_at: UnixMillis,
    /// Nodes expelled, whatever certificate they hold or will hold.
    pub nodes: Vec<NodeId>,
    /// Certificates taken back.
    pub serials: Vec<[u8; 16]>,
    /// Invitations no longer honoured.
    pub invitations: Vec<Nonce>,
    /// Later additions.
    pub ext: Ext,
}

impl RevocationList {
    /// Most expelled nodes. With the other two lists it keeps a list below its 192 KiB.
    pub const MAX_NODES: usize = 4096;
    /// Most revoked certificates; those past their end can be left out.
    pub const MAX_SERIALS: usize = 1024;
    /// Most revoked invitations; those past their end can be left out.
    pub const MAX_INVITATIONS: usize = 1024;

    /// An empty list.
    pub fn empty(mesh: MeshId) -> Self {
        Self {
            mesh,
            number: 0,
            issued_at: UnixMillis(0),
            nodes: Vec::new(),
            serials: Vec::new(),
            invitations: Vec::new(),
            ext: Ext::default(),
        }
    }

    /// The list after this one, to be added to and signed.
    #[must_use]
    pub fn next(&self, now: UnixMillis) -> Self {
        Self { number: self.number.saturating_add(1), issued_at: now, ..self.clone() }
    }
}

impl Wire for RevocationList {
    const NAME: &'static str = "revocation list";
    const LIMIT: usize = 192 * 1024;
    fn check(&self) -> Result<(), CapError> {
        cap("nodes", self.nodes.len(), Self::MAX_NODES)?;
        cap("serials", self.serials.len(), Self::MAX_SERIALS)?;
        cap("invitations", self.invitations.len(), Self::MAX_INVITATIONS)?;
        self.ext.check()
    }
}

impl Signable for RevocationList {
    const DOMAIN: &'static str = "mesh-llm revocations v1";
}

/// Why a list is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RevocationRefusal {
    /// The root that came with it did not found this mesh, or the list names another one.
    #[error("a revocation list of another mesh")]
    OtherMesh,
    /// Not signed by the founder, or no list.
    #[error("a revocation list that is not what it says: {0}")]
    Forged(#[from] OpenError),
    /// Not newer than what is here.
    #[error("revocation list {found}, while {current} is here")]
    Stale {
        /// Its number.
        found: u64,
        /// The number of the one that counts.
        current: u64,
    },
}

impl RevocationRefusal {
    /// One word for a metric's label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::OtherMesh => "revocations_other_mesh",
            Self::Forged(_) => "revocations_forged",
            Self::Stale { .. } => "revocations_stale",
        }
    }
}

/// The list that counts here, with the bytes to hand on.
#[derive(Clone, Debug)]
pub struct Revocations {
    list: RevocationList,
    nodes: Vec<NodeId>,
    serials: Vec<[u8; 16]>,
    invitations: Vec<Nonce>,
    signed: Option<(NodeId, Signed<RevocationList>)>,
}

impl Revocations {
    /// Nothing is revoked.
    pub fn new(mesh: MeshId) -> Self {
        Self::hold(RevocationList::empty(mesh), None)
    }

    fn hold(list: RevocationList, signed: Option<(NodeId, Signed<RevocationList>)>) -> Self {
        let mut nodes = list.nodes.clone();
        let (mut serials, mut invitations) = (list.serials.clone(), list.invitations.clone());
        nodes.sort_unstable();
        serials.sort_unstable();
        invitations.sort_unstable();
        Self { list, nodes, serials, invitations, signed }
    }

    /// The mesh whose list this is.
    pub fn mesh(&self) -> MeshId {
        self.list.mesh
    }

    /// The number of the list that counts; 0 before the first.
    pub fn number(&self) -> u64 {
        self.list.number
    }

    /// The list that counts.
    pub fn list(&self) -> &RevocationList {
        &self.list
    }

    /// The founder's key and the signed list, to be handed on; absent before the first.
    pub fn signed(&self) -> Option<&(NodeId, Signed<RevocationList>)> {
        self.signed.as_ref()
    }

    /// Whether this node is expelled.
    pub fn expels(&self, node: &NodeId) -> bool {
        self.nodes.binary_search(node).is_ok()
    }

    /// Whether this invitation is taken back.
    pub fn takes_back(&self, invitation: &Nonce) -> bool {
        self.invitations.binary_search(invitation).is_ok()
    }

    /// Whether this certificate, or its bearer, is revoked.
    pub fn covers(&self, cert: &MembershipCert) -> bool {
        self.expels(&cert.node) || self.serials.binary_search(&cert.serial).is_ok()
    }

    /// Takes a newer list. Of two lists with one number, which only a confused founder signs, the one with the
    /// lower hash counts, so that all members end with the same.
    ///
    /// # Errors
    /// When it is forged, another mesh's, or not newer.
    pub fn apply(&mut self, root: NodeId, signed: &Signed<RevocationList>) -> Result<(), RevocationRefusal> {
        if MeshId::of(&root) != self.list.mesh {
            return Err(RevocationRefusal::OtherMesh);
        }
        let list = signed.open(&root)?;
        if list.mesh != self.list.mesh {
            return Err(RevocationRefusal::OtherMesh);
        }
        let newer = match list.number.cmp(&self.list.number) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Equal => {
                self.signed.as_ref().is_some_and(|(_, current)| signed.digest() < current.digest())
            }
        };
        if !newer {
            return Err(RevocationRefusal::Stale { found: list.number, current: self.list.number });
        }
        *self = Self::hold(list, Some((root, signed.clone())));
        Ok(())
    }
}

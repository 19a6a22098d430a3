//! Keys and certificates for worlds, made once for many runs; must not know what happens in them.

use std::rc::Rc;

use crate::{
    codec::{CodecError, Ext},
    identity::{
        CERT_LIFETIME, CertChain, MemberRole, MembershipCert, MeshId, NodeId, NodeKey, RevocationList, SKEW, Signed,
    },
    time::UnixMillis,
};

/// 14 November 2023: the truth's time when a world begins.
pub(super) const DAY: u64 = 1_700_000_000_000;

/// A founder and members. A clone is cheap.
#[derive(Clone, Debug)]
pub struct Lab(Rc<Vec<(NodeKey, NodeId, CertChain)>>);

impl Lab {
    /// Keys for `nodes`; the first founds the mesh, the second admits every third of the others.
    ///
    /// # Errors
    /// None in practice: a certificate keeps its caps.
    pub fn new(nodes: usize) -> Result<Self, CodecError> {
        let key = |number: usize| {
            let mut seed = [0; 32];
            seed[..8].copy_from_slice(&(number as u64).to_le_bytes());
            NodeKey::from_seed(seed)
        };
        let founder = key(0);
        let root = founder.id();
        let cert = |node: NodeId, issuer: NodeId, admits: bool| MembershipCert {
            mesh: MeshId::of(&root),
            node,
            role: MemberRole::Serve,
            admits,
            serial: serial(&node),
            not_before: UnixMillis(DAY).before(SKEW),
            not_after: UnixMillis(DAY).after(CERT_LIFETIME),
            issuer,
            ext: Ext::default(),
        };
        let admitter = key(1);
        let desk = Signed::sign(&cert(admitter.id(), root, true), &founder)?;
        let mut members = Vec::with_capacity(nodes);
        for number in 0..nodes {
            let (own, id) = (key(number), key(number).id());
            let chain = match number {
                1 => CertChain { root, issuer: None, member: desk.clone() },
                _ if Self::issuer(number) == 1 => {
                    let member = Signed::sign(&cert(id, admitter.id(), false), &admitter)?;
                    CertChain { root, issuer: Some(desk.clone()), member }
                }
                _ => CertChain { root, issuer: None, member: Signed::sign(&cert(id, root, number == 0), &founder)? },
            };
            members.push((own, id, chain));
        }
        Ok(Self(Rc::new(members)))
    }

    /// Who signed the member's certificate.
    pub(super) fn issuer(member: usize) -> usize {
        usize::from(member % 3 == 2)
    }

    pub(super) fn member(&self, node: usize) -> Option<&(NodeKey, NodeId, CertChain)> {
        self.0.get(node)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Signs a list with a member's key: the founder's (0), or a liar's.
    pub(super) fn sign(&self, list: &RevocationList, signer: usize) -> Option<(NodeId, Signed<RevocationList>)> {
        let (key, id, _) = self.0.get(signer)?;
        Some((*id, Signed::sign(list, key).ok()?))
    }
}

fn serial(node: &NodeId) -> [u8; 16] {
    let mut serial = [0; 16];
    serial.copy_from_slice(&node.0[..16]);
    serial
}

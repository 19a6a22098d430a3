//! Membership, as every member can check it alone; must not know how it was asked for.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{MemberRole, MeshId, NodeId, OpenError, Revocations, Signable, Signed};
use crate::{
    codec::{CapError, Ext, Wire},
    time::{Millis, UnixMillis},
};

/// How long a certificate stands. Default 30 days: a mesh of laptops must outlive its founder's holidays, and a
/// certificate is renewed by any admitter after half of it. Cost: a node that never hears of a revocation
/// believes the revoked one for so long; tombstones are kept for so long.
pub const CERT_LIFETIME: Millis = Millis::secs(30 * 24 * 3600);

/// How far two wall clocks may lie apart. Default 120 s, from the prototype. Cost: what is over is believed for
/// so long after its end.
pub const SKEW: Millis = Millis::secs(120);

/// `node` is a member of `mesh`, says `issuer`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipCert {
    /// Of which mesh.
    pub mesh: MeshId,
    /// Who is a member.
    pub node: NodeId,
    /// What it may do.
    pub role: MemberRole,
    /// Whether it may admit others; only the founder's signature gives that.
    pub admits: bool,
    /// Names this certificate in a revocation.
    pub serial: [u8; 16],
    /// Valid from.
    pub not_before: UnixMillis,
    /// Valid until.
    pub not_after: UnixMillis,
    /// Who signed: the founder, or a member that the founder lets admit.
    pub issuer: NodeId,
    /// Later additions.
    pub ext: Ext,
}

impl Wire for MembershipCert {
    const NAME: &'static str = "membership certificate";
    const LIMIT: usize = 1024;
    fn check(&self) -> Result<(), CapError> {
        self.ext.check()
    }
}

impl Signable for MembershipCert {
    const DOMAIN: &'static str = "mesh-llm member v1";
}

/// A certificate with all that is needed to check it from the mesh's id alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertChain {
    /// The founder's key; its hash is the mesh id.
    pub root: NodeId,
    /// The issuer's own certificate, signed by the founder; absent when the founder issued.
    pub issuer: Option<Signed<MembershipCert>>,
    /// The member's certificate.
    pub member: Signed<MembershipCert>,
}

impl Wire for CertChain {
    const NAME: &'static str = "certificate chain";
    const LIMIT: usize = 2560;
}

/// Why a certificate does not make its bearer a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CertRefusal {
    /// The root's hash is not this mesh's id, or a certificate names another mesh.
    #[error("a certificate of another mesh")]
    OtherMesh,
    /// A signature or a body is wrong.
    #[error("a certificate that is not what it says: {0}")]
    Forged(#[from] OpenError),
    /// The issuer is neither the founder nor admitted to admit.
    #[error("a certificate from somebody who may not admit")]
    IssuerMayNotAdmit,
    /// Not valid yet, clocks' difference allowed for.
    #[error("a certificate that is not valid yet")]
    NotYetValid,
    /// Over.
    #[error("a certificate that has expired")]
    Expired,
    /// Taken back by the founder.
    #[error("a certificate that was revoked")]
    Revoked,
    /// Somebody else's.
    #[error("another node's certificate")]
    OtherNode,
}

impl CertRefusal {
    /// One word for a metric's label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::OtherMesh => "cert_other_mesh",
            Self::Forged(_) => "cert_forged",
            Self::IssuerMayNotAdmit => "cert_issuer",
            Self::NotYetValid => "cert_not_yet",
            Self::Expired => "cert_expired",
            Self::Revoked => "cert_revoked",
            Self::OtherNode => "cert_other_node",
        }
    }
}

impl CertChain {
    /// The member's certificate, if the chain leads to `mesh`'s founder and stands at `now`. Costs two
    /// signature checks, one where the founder issued (about 50 µs each).
    ///
    /// # Errors
    /// Says which link is broken. Revocation is asked apart, [`CertChain::open_unrevoked`].
    pub fn open(&self, mesh: MeshId, now: UnixMillis) -> Result<MembershipCert, CertRefusal> {
        self.certs(mesh, now).map(|(_, member)| member)
    }

    /// [`CertChain::open`], and neither the member nor its issuer is revoked.
    ///
    /// # Errors
    /// Says which link is broken.
    pub fn open_unrevoked(&self, revocations: &Revocations, now: UnixMillis) -> Result<MembershipCert, CertRefusal> {
        let (issuer, member) = self.certs(revocations.mesh(), now)?;
        if revocations.covers(&member) || issuer.is_some_and(|issuer| revocations.covers(&issuer)) {
            return Err(CertRefusal::Revoked);
        }
        Ok(member)
    }

    /// [`CertChain::open_unrevoked`], and it is this node's own.
    ///
    /// # Errors
    /// Says which link is broken.
    pub fn of(&self, node: NodeId, revocations: &Revocations, now: UnixMillis) -> Result<MembershipCert, CertRefusal> {
        let member = self.open_unrevoked(revocations, now)?;
        if member.node == node { Ok(member) } else { Err(CertRefusal::OtherNode) }
    }

    fn certs(&self, mesh: MeshId, now: UnixMillis) -> Result<(Option<MembershipCert>, MembershipCert), CertRefusal> {
        if MeshId::of(&self.root) != mesh {
            return Err(CertRefusal::OtherMesh);
        }
        let issuer = match &self.issuer {
            None => None,
            Some(signed) => {
                let cert = signed.open(&self.root)?;
                standing(&cert, mesh, now)?;
                if cert.issuer != self.root || !cert.admits {
                    return Err(CertRefusal::IssuerMayNotAdmit);
                }
                Some(cert)
            }
        };
        let signer = issuer.as_ref().map_or(self.root, |issuer| issuer.node);
        let member = self.member.open(&signer)?;
        standing(&member, mesh, now)?;
        if member.issuer != signer || (member.admits && signer != self.root) {
            return Err(CertRefusal::IssuerMayNotAdmit);
        }
        Ok((issuer, member))
    }
}

fn standing(cert: &MembershipCert, mesh: MeshId, now: UnixMillis) -> Result<(), CertRefusal> {
    if cert.mesh != mesh {
        return Err(CertRefusal::OtherMesh);
    }
    if cert.not_before > now.after(SKEW) {
        return Err(CertRefusal::NotYetValid);
    }
    if now > cert.not_after.after(SKEW) {
        return Err(CertRefusal::Expired);
    }
    Ok(())
}

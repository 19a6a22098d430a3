//! What joiner and admitter say to each other, once, on an ALPN of their own; must not know TLS: its exporter's
//! bytes are given.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{CertChain, CertRefusal, Invitation, MembershipCert, MeshId, NodeId, Revocations, Secret, Signed, Ticket};
use crate::{
    codec::{CapError, Ext, Wire},
    time::UnixMillis,
};

/// One connection, as both ends know it.
#[derive(Clone, Debug)]
pub struct Session {
    /// Who asks, as TLS proved it.
    pub joiner: NodeId,
    /// 32 bytes that TLS exports under the label `mesh-llm admit v1`: the same at both ends, and in no other
    /// connection.
    pub exporter: [u8; 32],
}

/// Whose proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who asks.
    Joiner,
    /// Who answers.
    Admitter,
}

/// That this side of this connection holds the secret: BLAKE3 keyed by it, over side, exporter and joiner. The
/// secret itself never travels, and the proof is worth nothing in another connection or from the other side.
pub fn proof(secret: &Secret, side: Side, session: &Session) -> [u8; 32] {
    let side: &[u8] = match side {
        Side::Joiner => b"mesh-llm admit v1 joiner\0",
        Side::Admitter => b"mesh-llm admit v1 admitter\0",
    };
    let mut hasher = blake3::Hasher::new_keyed(secret.expose());
    hasher.update(side).update(&session.exporter).update(&session.joiner.0);
    *hasher.finalize().as_bytes()
}

/// Compares in constant time.
pub(super) fn same(a: [u8; 32], b: [u8; 32]) -> bool {
    blake3::Hash::from_bytes(a) == blake3::Hash::from_bytes(b)
}

/// The one frame that a stranger may send.
#[allow(clippy::large_enum_variant, reason = "one a connection, read and dropped")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdmitRequest {
    /// With an invitation.
    Join {
        /// As the ticket holds it.
        invitation: Signed<Invitation>,
        /// Of holding the ticket's secret.
        proof: [u8; 32],
        /// Later additions.
        ext: Ext,
    },
    /// A member, for a certificate that lasts longer.
    Renew {
        /// What it has.
        chain: CertChain,
        /// Later additions.
        ext: Ext,
    },
    /// A member, to a node that may not know it yet: "let my connections in, this is why". Answered in kind.
    Hello {
        /// What it has.
        chain: CertChain,
        /// Later additions.
        ext: Ext,
    },
}

impl Wire for AdmitRequest {
    const NAME: &'static str = "admission request";
    const LIMIT: usize = 4096;
    const VARIANTS: u8 = 3;
    fn check(&self) -> Result<(), CapError> {
        match self {
            Self::Join { ext, .. } | Self::Renew { ext, .. } | Self::Hello { ext, .. } => ext.check(),
        }
    }
}

impl AdmitRequest {
    /// Asks to be let in on this connection.
    pub fn join(ticket: &Ticket, session: &Session) -> Self {
        let proof = proof(ticket.secret(), Side::Joiner, session);
        Self::Join { invitation: ticket.invitation.clone(), proof, ext: Ext::default() }
    }
}

/// The one frame that comes back.
#[allow(clippy::large_enum_variant, reason = "one a connection, read and dropped")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdmitReply {
    /// Be a member.
    Admitted {
        /// The certificate, with what checks it.
        chain: CertChain,
        /// That the admitter holds the secret too; zeros in a renewal.
        proof: [u8; 32],
        /// Later additions.
        ext: Ext,
    },
    /// No.
    Refused {
        /// Why.
        reason: AdmitRefusal,
        /// Later additions.
        ext: Ext,
    },
    /// To [`AdmitRequest::Hello`]: "so am I".
    Welcome {
        /// The answering member's own.
        chain: CertChain,
        /// Later additions.
        ext: Ext,
    },
}

impl Wire for AdmitReply {
    const NAME: &'static str = "admission reply";
    const LIMIT: usize = 4096;
    const VARIANTS: u8 = 3;
    fn check(&self) -> Result<(), CapError> {
        match self {
            Self::Admitted { ext, .. } | Self::Refused { ext, .. } | Self::Welcome { ext, .. } => ext.check(),
        }
    }
}

/// Why somebody is not let in. Who lacks the secret learns nothing but [`AdmitRefusal::Proof`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Error, Serialize, Deserialize)]
#[serde(from = "u16", into = "u16")]
pub enum AdmitRefusal {
    /// The frame was not understood.
    #[error("the request was not understood")]
    Malformed,
    /// An invitation into another mesh.
    #[error("this is another mesh")]
    OtherMesh,
    /// Another node's invitation.
    #[error("this node did not issue that invitation; its issuer must be reached")]
    NotMine,
    /// The secret is not the invitation's.
    #[error("the ticket's proof does not match")]
    Proof,
    /// The invitation is not what was signed.
    #[error("the invitation's signature does not match")]
    Forged,
    /// Too early.
    #[error("the ticket is not valid yet; do the clocks of both machines agree?")]
    NotYetValid,
    /// Too late.
    #[error("the ticket has expired; ask for a new one")]
    Expired,
    /// Taken back.
    #[error("the ticket was revoked")]
    Revoked,
    /// As many nodes came as may.
    #[error("the ticket was used as often as it may be")]
    UsedUp,
    /// For another node.
    #[error("the ticket is for another node")]
    BoundToAnother,
    /// The node was expelled from this mesh.
    #[error("this node was expelled from the mesh")]
    Expelled,
    /// This member has no right to admit.
    #[error("this node may not admit others")]
    MayNotAdmit,
    /// The certificate to be renewed does not stand.
    #[error("the certificate cannot be renewed; join with a ticket")]
    Certificate,
    /// A newer build's reason.
    #[error("refused, reason {0} of a newer release")]
    Other(u16),
}

const REASONS: [AdmitRefusal; 13] = [
    AdmitRefusal::Malformed,
    AdmitRefusal::OtherMesh,
    AdmitRefusal::NotMine,
    AdmitRefusal::Proof,
    AdmitRefusal::Forged,
    AdmitRefusal::NotYetValid,
    AdmitRefusal::Expired,
    AdmitRefusal::Revoked,
    AdmitRefusal::UsedUp,
    AdmitRefusal::BoundToAnother,
    AdmitRefusal::Expelled,
    AdmitRefusal::MayNotAdmit,
    AdmitRefusal::Certificate,
];

impl From<u16> for AdmitRefusal {
    fn from(code: u16) -> Self {
        REASONS.get(usize::from(code)).copied().unwrap_or(Self::Other(code))
    }
}

impl From<AdmitRefusal> for u16 {
    fn from(reason: AdmitRefusal) -> u16 {
        match reason {
            AdmitRefusal::Other(code) => code,
            known => (0..).zip(REASONS).find(|(_, r)| *r == known).map_or(0, |(code, _)| code),
        }
    }
}

/// Why an answer does not make the joiner a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum JoinError {
    /// The admitter says no.
    #[error("not admitted: {0}")]
    Refused(AdmitRefusal),
    /// The other end does not know the ticket's secret, so it is not who issued it.
    #[error("the other end does not hold the ticket's secret")]
    Imposter,
    /// The ticket itself cannot be read.
    #[error("the ticket's invitation cannot be read")]
    Ticket,
    /// What came is no membership.
    #[error("the certificate that came is no good: {0}")]
    Certificate(#[from] CertRefusal),
}

impl AdmitReply {
    /// A refusal.
    pub fn refused(reason: AdmitRefusal) -> Self {
        Self::Refused { reason, ext: Ext::default() }
    }

    /// What the joiner makes of the answer: its certificate chain, checked.
    ///
    /// # Errors
    /// When it was refused, the other end does not hold the secret, or the certificate does not stand.
    pub fn accept(&self, ticket: &Ticket, session: &Session, now: UnixMillis) -> Result<CertChain, JoinError> {
        let (chain, theirs) = self.admitted()?;
        let invitation = ticket.invitation.claim().map_err(|_| JoinError::Ticket)?;
        if !same(*theirs, proof(ticket.secret(), Side::Admitter, session)) {
            return Err(JoinError::Imposter);
        }
        own(chain, invitation.mesh, session.joiner, now)
    }

    /// What a member makes of the answer to [`AdmitRequest::Renew`].
    ///
    /// # Errors
    /// When it was refused, or the certificate does not stand.
    pub fn renewed(&self, mesh: MeshId, node: NodeId, now: UnixMillis) -> Result<CertChain, JoinError> {
        own(self.admitted()?.0, mesh, node, now)
    }

    /// What a member makes of the answer to [`AdmitRequest::Hello`]: the other end's certificate, checked.
    ///
    /// # Errors
    /// When it was refused, or the other end, whose QUIC identity is `peer`, is no member.
    pub fn welcomed(
        &self,
        peer: NodeId,
        revocations: &Revocations,
        now: UnixMillis,
    ) -> Result<MembershipCert, JoinError> {
        match self {
            Self::Welcome { chain, .. } => chain.of(peer, revocations, now).map_err(JoinError::Certificate),
            Self::Refused { reason, .. } => Err(JoinError::Refused(*reason)),
            Self::Admitted { .. } => Err(JoinError::Refused(AdmitRefusal::Malformed)),
        }
    }

    fn admitted(&self) -> Result<(&CertChain, &[u8; 32]), JoinError> {
        match self {
            Self::Admitted { chain, proof, .. } => Ok((chain, proof)),
            Self::Refused { reason, .. } => Err(JoinError::Refused(*reason)),
            Self::Welcome { .. } => Err(JoinError::Refused(AdmitRefusal::Malformed)),
        }
    }
}

fn own(chain: &CertChain, mesh: MeshId, node: NodeId, now: UnixMillis) -> Result<CertChain, JoinError> {
    if chain.open(mesh, now)?.node != node {
        return Err(CertRefusal::OtherNode.into());
    }
    Ok(chain.clone())
}

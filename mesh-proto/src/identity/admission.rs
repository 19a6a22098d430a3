//! The admitter's desk: who comes in, and who does not; must not know the connection it speaks over.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::{
    AdmitRefusal, AdmitReply, AdmitRequest, CERT_LIFETIME, CertChain, CertRefusal, Invitation, MAX_USES, MemberRole,
    MembershipCert, MeshId, NodeId, NodeKey, Nonce, Revocations, SKEW, Secret, Session, Side, Signed, Terms,
    admit_frames::same, proof,
};
use crate::{
    codec::{CodecError, Ext},
    time::UnixMillis,
};

/// Answers [`AdmitRequest`]s: one a connection, nothing to remember but who came with what.
#[derive(Debug)]
pub struct Admission {
    key: NodeKey,
    mesh: MeshId,
    chain: CertChain,
    admits: bool,
    until: UnixMillis,
    used: BTreeMap<Nonce, Use>,
    issued: u64,
    refused: BTreeMap<AdmitRefusal, u64>,
}

#[derive(Clone, Debug)]
struct Use {
    not_after: UnixMillis,
    nodes: BTreeSet<NodeId>,
}

/// Why a desk cannot be opened, or an invitation not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AdmissionError {
    /// Its own certificate does not stand.
    #[error("this node's own certificate: {0}")]
    Certificate(#[from] CertRefusal),
    /// Its certificate does not let it admit.
    #[error("this node may not admit others: ask the mesh's founder for a ticket that does")]
    MayNotAdmit,
    /// Only the founder gives the right to admit.
    #[error("only the mesh's founder can let others admit")]
    OnlyFounder,
    /// No use, or too many.
    #[error("an invitation is for 1 to {MAX_USES} nodes, not {0}")]
    Uses(u32),
    /// Too long to sign.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl Admission {
    /// Founds a mesh: the founder certifies itself. The mesh is its key, so it does the same at each start and
    /// whenever half of [`CERT_LIFETIME`] is over.
    ///
    /// # Errors
    /// None in practice; a certificate keeps its caps.
    pub fn found(key: NodeKey, now: UnixMillis) -> Result<Self, AdmissionError> {
        let (root, mesh) = (key.id(), MeshId::of(&key.id()));
        let serial = serial(&root, &root, 0, now);
        let cert = MembershipCert {
            mesh,
            node: root,
            role: MemberRole::Serve,
            admits: true,
            serial,
            not_before: now.before(SKEW),
            not_after: now.after(CERT_LIFETIME),
            issuer: root,
            ext: Ext::default(),
        };
        let chain = CertChain { root, issuer: None, member: Signed::sign(&cert, &key)? };
        Self::open(key, chain, now)
    }

    /// The desk of a member. One that may not admit refuses everybody.
    ///
    /// # Errors
    /// When the chain does not stand, or is another node's.
    pub fn open(key: NodeKey, chain: CertChain, now: UnixMillis) -> Result<Self, AdmissionError> {
        let mesh = MeshId::of(&chain.root);
        let own = chain.open(mesh, now)?;
        if own.node != key.id() {
            return Err(CertRefusal::OtherNode.into());
        }
        let (admits, until) = (own.admits, own.not_after);
        Ok(Self { key, mesh, chain, admits, until, used: BTreeMap::new(), issued: 0, refused: BTreeMap::new() })
    }

    /// The mesh.
    pub fn mesh(&self) -> MeshId {
        self.mesh
    }

    /// This node's own certificate, for its records.
    pub fn chain(&self) -> &CertChain {
        &self.chain
    }

    /// How often each reason was given.
    pub fn refused(&self) -> &BTreeMap<AdmitRefusal, u64> {
        &self.refused
    }

    /// Who came with which invitation, to be kept over a restart.
    pub fn uses(&self) -> impl Iterator<Item = (&Nonce, UnixMillis, &BTreeSet<NodeId>)> {
        self.used.iter().map(|(nonce, used)| (nonce, used.not_after, &used.nodes))
    }

    /// Takes back what [`Admission::uses`] gave before a restart.
    pub fn remember(&mut self, nonce: Nonce, not_after: UnixMillis, nodes: BTreeSet<NodeId>) {
        self.used.insert(nonce, Use { not_after, nodes });
    }

    /// Signs an invitation.
    ///
    /// # Errors
    /// When this node may not, or the terms are impossible.
    pub fn invite(&self, terms: &Terms, now: UnixMillis) -> Result<Signed<Invitation>, AdmissionError> {
        if !self.admits {
            return Err(AdmissionError::MayNotAdmit);
        }
        if terms.admits && self.chain.root != self.key.id() {
            return Err(AdmissionError::OnlyFounder);
        }
        if !(1..=MAX_USES).contains(&terms.max_uses) {
            return Err(AdmissionError::Uses(terms.max_uses));
        }
        let invitation = Invitation {
            mesh: self.mesh,
            role: terms.role,
            admits: terms.admits,
            not_before: now.before(SKEW),
            not_after: now.after(terms.lifetime),
            max_uses: terms.max_uses,
            issuer: self.key.id(),
            nonce: terms.nonce,
            bound: terms.bound,
            ext: Ext::default(),
        };
        Ok(Signed::sign(&invitation, &self.key)?)
    }

    /// The secret that goes with an invitation of this node.
    pub fn secret(&self, nonce: &Nonce) -> Secret {
        self.key.invitation_secret(nonce)
    }

    /// Answers a request that came over `session`. Refusals are counted.
    pub fn answer(
        &mut self,
        request: &AdmitRequest,
        session: &Session,
        revocations: &Revocations,
        now: UnixMillis,
    ) -> AdmitReply {
        self.used.retain(|_, used| used.not_after.after(SKEW) >= now);
        let answer = match request {
            AdmitRequest::Join { invitation, proof, .. } => self
                .check(invitation, proof, session, revocations)
                .and_then(|invitation| self.admit(&invitation, session, now)),
            AdmitRequest::Renew { chain, .. } => self.renew(chain, session, revocations, now),
            AdmitRequest::Hello { chain, .. } => self.hello(chain, session, revocations, now),
        };
        answer.unwrap_or_else(|reason| {
            *self.refused.entry(reason).or_insert(0) += 1;
            AdmitReply::refused(reason)
        })
    }

    /// What does not depend on time: the proof first, so that who lacks the secret learns nothing else.
    fn check(
        &self,
        signed: &Signed<Invitation>,
        theirs: &[u8; 32],
        session: &Session,
        revocations: &Revocations,
    ) -> Result<Invitation, AdmitRefusal> {
        let invitation = signed.claim().map_err(|_| AdmitRefusal::Malformed)?;
        if invitation.mesh != self.mesh {
            return Err(AdmitRefusal::OtherMesh);
        }
        if invitation.issuer != self.key.id() {
            return Err(AdmitRefusal::NotMine);
        }
        let ours = proof(&self.secret(&invitation.nonce), Side::Joiner, session);
        if !same(ours, *theirs) {
            return Err(AdmitRefusal::Proof);
        }
        signed.verify(&self.key.id()).map_err(|_| AdmitRefusal::Forged)?;
        if !self.admits {
            return Err(AdmitRefusal::MayNotAdmit);
        }
        if revocations.expels(&session.joiner) {
            return Err(AdmitRefusal::Expelled);
        }
        if revocations.takes_back(&invitation.nonce) {
            return Err(AdmitRefusal::Revoked);
        }
        if invitation.bound.is_some_and(|bound| bound != session.joiner) {
            return Err(AdmitRefusal::BoundToAnother);
        }
        Ok(invitation)
    }

    fn admit(
        &mut self,
        invitation: &Invitation,
        session: &Session,
        now: UnixMillis,
    ) -> Result<AdmitReply, AdmitRefusal> {
        if now < invitation.not_before {
            return Err(AdmitRefusal::NotYetValid);
        }
        if now > invitation.not_after {
            return Err(AdmitRefusal::Expired);
        }
        let fresh = Use { not_after: invitation.not_after, nodes: BTreeSet::new() };
        let used = self.used.entry(invitation.nonce).or_insert(fresh);
        if !used.nodes.contains(&session.joiner) && used.nodes.len() >= invitation.max_uses as usize {
            return Err(AdmitRefusal::UsedUp);
        }
        used.nodes.insert(session.joiner);
        let chain = self.issue(session.joiner, invitation.role, invitation.admits, now)?;
        let proof = proof(&self.secret(&invitation.nonce), Side::Admitter, session);
        Ok(AdmitReply::Admitted { chain, proof, ext: Ext::default() })
    }

    fn hello(
        &self,
        chain: &CertChain,
        session: &Session,
        revocations: &Revocations,
        now: UnixMillis,
    ) -> Result<AdmitReply, AdmitRefusal> {
        chain.of(session.joiner, revocations, now).map_err(|refusal| match refusal {
            CertRefusal::Revoked => AdmitRefusal::Expelled,
            CertRefusal::OtherMesh => AdmitRefusal::OtherMesh,
            _ => AdmitRefusal::Certificate,
        })?;
        Ok(AdmitReply::Welcome { chain: self.chain.clone(), ext: Ext::default() })
    }

    fn renew(
        &mut self,
        chain: &CertChain,
        session: &Session,
        revocations: &Revocations,
        now: UnixMillis,
    ) -> Result<AdmitReply, AdmitRefusal> {
        if !self.admits {
            return Err(AdmitRefusal::MayNotAdmit);
        }
        let cert = chain.open_unrevoked(revocations, now).map_err(|refusal| match refusal {
            CertRefusal::Revoked => AdmitRefusal::Expelled,
            CertRefusal::OtherMesh => AdmitRefusal::OtherMesh,
            _ => AdmitRefusal::Certificate,
        })?;
        if cert.node != session.joiner {
            return Err(AdmitRefusal::Certificate);
        }
        // The right to admit is the founder's to give, so another admitter's renewal leaves it out.
        let admits = cert.admits && self.key.id() == self.chain.root;
        let chain = self.issue(cert.node, cert.role, admits, now)?;
        Ok(AdmitReply::Admitted { chain, proof: [0; 32], ext: Ext::default() })
    }

    fn issue(
        &mut self,
        node: NodeId,
        role: MemberRole,
        admits: bool,
        now: UnixMillis,
    ) -> Result<CertChain, AdmitRefusal> {
        self.issued += 1;
        let issuer = self.key.id();
        let founder = self.chain.root == issuer;
        let not_after = now.after(CERT_LIFETIME);
        // What an admitter signs falls with its own certificate.
        let not_after = if founder { not_after } else { not_after.min(self.until) };
        let cert = MembershipCert {
            mesh: self.mesh,
            node,
            role,
            admits,
            serial: serial(&issuer, &node, self.issued, now),
            not_before: now.before(SKEW),
            not_after,
            issuer,
            ext: Ext::default(),
        };
        let member = Signed::sign(&cert, &self.key).map_err(|_| AdmitRefusal::Malformed)?;
        let issuer = (!founder).then(|| self.chain.member.clone());
        Ok(CertChain { root: self.chain.root, issuer, member })
    }
}

/// A certificate's name: no two share one, since an issuer issues no two to one node in one millisecond.
fn serial(issuer: &NodeId, node: &NodeId, count: u64, now: UnixMillis) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_derive_key("mesh-llm certificate serial v1");
    hasher.update(&issuer.0).update(&node.0).update(&count.to_le_bytes()).update(&now.0.to_le_bytes());
    let mut serial = [0; 16];
    serial.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    serial
}

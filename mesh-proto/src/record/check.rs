//! Whether a record may be believed, from itself alone; must not know which records are here already.

use std::collections::BTreeMap;

use thiserror::Error;

use super::{ModelState, Record};
use crate::{
    codec::CodecError,
    identity::{BadSignature, CertRefusal, MemberRole, MembershipCert, OpenError, Revocations, SKEW, Signed},
    time::UnixMillis,
};

/// Why a record is not taken. Each has a label for a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecordRefusal {
    /// No record, too long, or beyond a cap.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Another mesh's.
    #[error("a record of another mesh")]
    OtherMesh,
    /// Not signed by the node that it speaks for.
    #[error("a record that its node did not sign")]
    Signature(#[from] BadSignature),
    /// Its bearer is no member.
    #[error(transparent)]
    Certificate(#[from] CertRefusal),
    /// Signed in the future, clocks' difference allowed for.
    #[error("a record from the future")]
    FutureDated,
    /// The incarnation lies in the future, so that its node could never be fenced.
    #[error("an incarnation from the future")]
    FutureIncarnation,
    /// The addresses are of another node.
    #[error("a record with another node's contact")]
    OtherContact,
    /// A lifetime outside the bounds.
    #[error("a record with an impossible lifetime")]
    Lifetime,
    /// A client that serves models, holds them or claims them.
    #[error("a client's record with models")]
    ClientServes,
    /// Older than what is here, or than its node's tombstone.
    #[error("a record older than what is known")]
    Stale,
    /// The very version that is here, with other content: its node signed two.
    #[error("two records of one version")]
    Equivocation,
    /// Past its lifetime when it came.
    #[error("a record past its lifetime")]
    Expired,
    /// More nodes than fit.
    #[error("the directory is full")]
    Full,
    /// The node's own record, from outside and not newer.
    #[error("an echo of the own record")]
    Own,
}

impl RecordRefusal {
    /// One word for a metric's label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Codec(error) => error.label(),
            Self::OtherMesh => "other_mesh",
            Self::Signature(_) => "signature",
            Self::Certificate(refusal) => refusal.label(),
            Self::FutureDated => "future_dated",
            Self::FutureIncarnation => "future_incarnation",
            Self::OtherContact => "other_contact",
            Self::Lifetime => "lifetime",
            Self::ClientServes => "client_serves",
            Self::Stale => "stale",
            Self::Equivocation => "equivocation",
            Self::Expired => "expired",
            Self::Full => "full",
            Self::Own => "own",
        }
    }

    /// Whether no honest relay sent it, of whatever release: it checks signatures before it relays. What depends on
    /// clocks, on news still under way or on another release's caps is nobody's offence.
    pub fn is_offence(&self) -> bool {
        match self {
            Self::OtherMesh | Self::Signature(_) | Self::OtherContact => true,
            Self::Certificate(refusal) => {
                matches!(refusal, CertRefusal::Forged(OpenError::Signature(_)) | CertRefusal::IssuerMayNotAdmit)
            }
            _ => false,
        }
    }
}

/// Checks records, and remembers which certificate chains were good: a node's next record costs one signature
/// check (50 µs) instead of two or three.
#[derive(Clone, Debug, Default)]
pub struct Checker {
    good: BTreeMap<[u8; 32], (MembershipCert, Option<MembershipCert>)>,
}

impl Checker {
    /// Most chains remembered (about 300 bytes each); beyond that, all are forgotten and checked anew.
    const MAX_REMEMBERED: usize = 16_384;

    /// The record, if it may be believed by itself: its own node signed it, that node is a member, and nothing
    /// in it is impossible.
    ///
    /// # Errors
    /// Names the first reason against it; cheap ones are looked for first.
    pub fn check(
        &mut self,
        signed: &Signed<Record>,
        revocations: &Revocations,
        now: UnixMillis,
    ) -> Result<(Record, MembershipCert), RecordRefusal> {
        let record = signed.claim()?;
        plausible(&record, revocations, now)?;
        signed.verify(&record.node)?;
        let cert = self.member(&record, revocations, now)?;
        if cert.node != record.node {
            return Err(CertRefusal::OtherNode.into());
        }
        let idle = record.models.is_empty() && record.claims.is_empty() && record.prefixes.is_empty();
        if cert.role == MemberRole::Client && !idle {
            return Err(RecordRefusal::ClientServes);
        }
        Ok((record, cert))
    }

    fn member(
        &mut self,
        record: &Record,
        revocations: &Revocations,
        now: UnixMillis,
    ) -> Result<MembershipCert, CertRefusal> {
        let chain = &record.chain;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&chain.root.0).update(&chain.member.digest());
        if let Some(issuer) = &chain.issuer {
            hasher.update(&issuer.digest());
        }
        let digest = *hasher.finalize().as_bytes();
        if let Some((member, issuer)) = self.good.get(&digest) {
            let ends = issuer.as_ref().map_or(member.not_after, |issuer| issuer.not_after.min(member.not_after));
            if now > ends.after(SKEW) {
                self.good.remove(&digest);
                return Err(CertRefusal::Expired);
            }
            if revocations.covers(member) || issuer.as_ref().is_some_and(|issuer| revocations.covers(issuer)) {
                return Err(CertRefusal::Revoked);
            }
            return Ok(member.clone());
        }
        let member = chain.open_unrevoked(revocations, now)?;
        let issuer = chain.issuer.as_ref().and_then(|issuer| issuer.claim().ok());
        if self.good.len() >= Self::MAX_REMEMBERED {
            self.good.clear();
        }
        self.good.insert(digest, (member.clone(), issuer));
        Ok(member)
    }
}

fn plausible(record: &Record, revocations: &Revocations, now: UnixMillis) -> Result<(), RecordRefusal> {
    if record.mesh != revocations.mesh() {
        return Err(RecordRefusal::OtherMesh);
    }
    if record.issued_at > now.after(SKEW) {
        return Err(RecordRefusal::FutureDated);
    }
    if record.version.incarnation > now.after(SKEW).0 {
        return Err(RecordRefusal::FutureIncarnation);
    }
    if record.contact.node != record.node {
        return Err(RecordRefusal::OtherContact);
    }
    if !(Record::MIN_LIFETIME..=Record::MAX_LIFETIME).contains(&record.lifetime) {
        return Err(RecordRefusal::Lifetime);
    }
    if revocations.expels(&record.node) {
        return Err(CertRefusal::Revoked.into());
    }
    Ok(())
}

impl Record {
    /// Whether it can be routed to for a model: ready, and not draining.
    pub fn serves(&self, id: &crate::ModelId) -> bool {
        !self.draining && self.models.iter().any(|model| &model.id == id && model.state == ModelState::Ready)
    }
}

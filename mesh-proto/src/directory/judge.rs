//! Who decides whether a record is believed, and what a believed record is; must not know which ones are here.

use std::{fmt, sync::Arc};

use super::range::term;
use crate::{
    codec::CodecError,
    identity::{MembershipCert, NodeId, Revocations, Signed},
    record::{Checker, Record, RecordRefusal, Version},
    time::UnixMillis,
};

/// A record that was found good. Shared, so that views of it cost a pointer.
#[derive(Clone, Debug)]
pub struct Believed {
    /// What it says.
    pub record: Record,
    /// As it was signed, to hand on.
    pub signed: Signed<Record>,
    /// Its node's certificate.
    pub cert: MembershipCert,
    pub(super) term: u128,
}

impl Believed {
    /// What [`Judge::judge`] gives out.
    pub fn new(signed: Signed<Record>, record: Record, cert: MembershipCert) -> Self {
        let term = term(&record.node, record.version);
        Self { record, signed, cert, term }
    }
}

/// Decides on records. A node uses its own [`Checker`]; simulators share one that remembers.
pub trait Judge: fmt::Debug {
    /// Who speaks, and in which version, the signature unchecked.
    ///
    /// # Errors
    /// When the bytes are no record.
    fn claim(&mut self, signed: &Signed<Record>) -> Result<(NodeId, Version), CodecError>;

    /// The record, if it may be believed by itself at `now`.
    ///
    /// # Errors
    /// Names the first reason against it.
    fn judge(
        &mut self,
        signed: &Signed<Record>,
        revocations: &Revocations,
        now: UnixMillis,
    ) -> Result<Arc<Believed>, RecordRefusal>;
}

impl Judge for Checker {
    fn claim(&mut self, signed: &Signed<Record>) -> Result<(NodeId, Version), CodecError> {
        signed.claim().map(|record| (record.node, record.version))
    }

    fn judge(
        &mut self,
        signed: &Signed<Record>,
        revocations: &Revocations,
        now: UnixMillis,
    ) -> Result<Arc<Believed>, RecordRefusal> {
        let (record, cert) = self.check(signed, revocations, now)?;
        Ok(Arc::new(Believed::new(signed.clone(), record, cert)))
    }
}

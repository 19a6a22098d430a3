//! One judge of records for a whole world, which checks each signature once; must not decide otherwise than
//! [`Checker`].
//!
//! A record that was found good stays good for a span of wall-clock time, and as long as no revocation covers it.
//! Within that span the same bytes are good again without a signature check; in all other cases the [`Checker`]
//! itself decides. What is bad is never remembered.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc};

use crate::{
    codec::CodecError,
    directory::{Believed, Judge},
    identity::{MembershipCert, NodeId, Revocations, SKEW, Signed},
    record::{Checker, Record, RecordRefusal, Version},
    time::UnixMillis,
};

/// The shared judge. A clone is the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct Notary(Rc<RefCell<Memo>>);

#[derive(Debug, Default)]
struct Memo {
    checker: Checker,
    /// By the signature's first bytes; a record with the same ones and other contents takes the place.
    known: BTreeMap<[u8; 16], Rc<Known>>,
    last: Option<Rc<Known>>,
}

#[derive(Debug)]
struct Known {
    body: Arc<Believed>,
    issuer: Option<MembershipCert>,
    from: UnixMillis,
    until: UnixMillis,
}

impl Known {
    fn new(body: Arc<Believed>) -> Self {
        let record = &body.record;
        let issuer = record.chain.issuer.as_ref().and_then(|signed| signed.claim().ok());
        let begins = [Some(&body.cert), issuer.as_ref()].into_iter().flatten().map(|cert| cert.not_before);
        let ends = [Some(&body.cert), issuer.as_ref()].into_iter().flatten().map(|cert| cert.not_after);
        let start = begins.max().unwrap_or_default().max(record.issued_at).max(UnixMillis(record.version.incarnation));
        let until = ends.min().unwrap_or_default().after(SKEW);
        Self { from: start.before(SKEW), until, issuer, body }
    }

    fn stands(&self, revocations: &Revocations, now: UnixMillis) -> bool {
        let covered = || {
            revocations.covers(&self.body.cert) || self.issuer.as_ref().is_some_and(|issuer| revocations.covers(issuer))
        };
        (self.from..=self.until).contains(&now)
            && self.body.record.mesh == revocations.mesh()
            && !(revocations.number() > 0 && covered())
    }
}

impl Memo {
    fn find(&mut self, signed: &Signed<Record>) -> Option<Rc<Known>> {
        if let Some(last) = self.last.as_ref().filter(|known| known.body.signed == *signed) {
            return Some(Rc::clone(last));
        }
        let found = self.known.get(&signed.hint()).filter(|known| known.body.signed == *signed).cloned();
        if found.is_some() {
            self.last.clone_from(&found);
        }
        found
    }
}

impl Judge for Notary {
    fn claim(&mut self, signed: &Signed<Record>) -> Result<(NodeId, Version), CodecError> {
        match self.0.borrow_mut().find(signed) {
            Some(known) => Ok((known.body.record.node, known.body.record.version)),
            None => signed.claim().map(|record| (record.node, record.version)),
        }
    }

    fn judge(
        &mut self,
        signed: &Signed<Record>,
        revocations: &Revocations,
        now: UnixMillis,
    ) -> Result<Arc<Believed>, RecordRefusal> {
        let memo = &mut *self.0.borrow_mut();
        if let Some(known) = memo.find(signed).filter(|known| known.stands(revocations, now)) {
            return Ok(Arc::clone(&known.body));
        }
        let body = memo.checker.judge(signed, revocations, now)?;
        let known = Rc::new(Known::new(Arc::clone(&body)));
        memo.known.insert(signed.hint(), Rc::clone(&known));
        memo.last = Some(known);
        Ok(body)
    }
}

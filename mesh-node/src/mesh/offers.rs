//! This node's models as the placement machine is told of them, and its certificate's renewal; must not decide either.

use mesh_proto::{
    identity::{Admission, CERT_LIFETIME, CertChain, Contact},
    placement::{self, ModelKey, Weight},
    record::{ModelState, Record},
    time::Millis,
};

use super::{admit, brain::Brain, clock, mail::Mail, own::state};

/// Between two looks at whether the certificate is to be renewed, and two tries. Unit: minutes; default 10, a guess: a
/// certificate has fifteen days left then.
const RENEW_EVERY: Millis = Millis::secs(600);

impl Brain {
    /// Something about the local models has changed: elections and peers hear of it.
    pub(super) fn locals_changed(&mut self) {
        let now = clock::local();
        let all = self.parts.locals.all();
        let gone: Vec<ModelKey> =
            self.offered.keys().filter(|key| !all.values().any(|model| model.key() == **key)).copied().collect();
        for key in gone {
            self.offered.remove(&key);
            self.placement.handle(placement::Input::Withdraw(key), now);
        }
        for model in all.values() {
            let (key, is) = (model.key(), state(&model.state));
            let was = self.offered.insert(key, is);
            if was == Some(is) {
                continue;
            }
            if was == Some(ModelState::Ready) && is == ModelState::OnDisk {
                // Unloaded by the operator, who does not want to see it loaded again by an election.
                self.placement.handle(placement::Input::Withdraw(key), now);
                continue;
            }
            let unknown = was.is_none() || (was == Some(ModelState::OnDisk) && is == ModelState::Loading);
            if unknown {
                // The first record weighs it.
                let offer = placement::Input::Offer { model: key, pinned: model.pinned, weight: Weight(1) };
                self.placement.handle(offer, now);
            }
            match is {
                ModelState::Ready => self.placement.handle(placement::Input::Loaded(key), now),
                ModelState::Failed => self.placement.handle(placement::Input::Failed(key), now),
                _ => {}
            }
        }
        self.soon();
    }

    /// Renews the own certificate once half of it is over.
    pub(super) fn renew_if_due(&mut self) {
        if clock::local() < self.next_renewal {
            return;
        }
        self.next_renewal = clock::local() + RENEW_EVERY;
        let now = clock::unix();
        let chain = self.parts.admission.chain().clone();
        let Ok(own) = chain.member.claim() else { return };
        if own.not_after.since(now).0 > CERT_LIFETIME.0 / 2 {
            return;
        }
        if chain.root == self.me {
            match Admission::found(self.parts.key.clone(), now) {
                Ok(renewed) => self.replace_admission(renewed),
                Err(error) => tracing::error!(%error, "the founder's certificate was not renewed"),
            }
            return;
        }
        // Whoever may admit may renew: the issuer first, then the founder, then the others.
        let admits = |record: &Record| record.chain.member.claim().is_ok_and(|cert| cert.admits);
        let others = self.records.iter().filter(|(_, record)| admits(record)).map(|(node, _)| *node);
        let mut admitters = vec![own.issuer, chain.root];
        admitters.extend(others.filter(|node| *node != own.issuer && *node != chain.root));
        let contacts: Vec<Contact> = admitters.iter().map(|node| self.contact(node)).collect();
        let (net, mail) = (self.parts.net.clone(), self.parts.mail.clone());
        tokio::spawn(async move {
            for contact in contacts {
                match admit::renew(&net, &contact, &chain).await {
                    // At the end of the process nobody listens any more.
                    Ok(chain) => return drop(mail.send(Mail::Renewed(Box::new(chain))).await),
                    Err(error) => {
                        tracing::debug!(node = %contact.node.short(), %error, "the certificate was not renewed here");
                    }
                }
            }
        });
    }

    pub(super) fn renewed(&mut self, chain: CertChain) {
        match Admission::open(self.parts.key.clone(), chain.clone(), clock::unix()) {
            Ok(renewed) => {
                self.parts.drawer.keep_chain(&chain);
                self.replace_admission(renewed);
            }
            Err(error) => tracing::warn!(%error, "the renewed certificate is no good"),
        }
    }

    fn replace_admission(&mut self, mut renewed: Admission) {
        for (nonce, not_after, nodes) in self.parts.admission.uses() {
            renewed.remember(*nonce, not_after, nodes.clone());
        }
        self.parts.admission = renewed;
        tracing::info!("this node's certificate was renewed");
        self.soon();
    }
}

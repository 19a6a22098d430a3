//! Who comes in and how others are reached: greetings, links, dials, probes; must not decide who may.

use std::time::Duration;

use mesh_proto::{
    codec, directory,
    identity::{AdmitReply, AdmitRequest, Contact, NodeId, Session},
    suspicion::{self, FULL_WATCH, ProbeFrame},
};
use rand::seq::IndexedRandom;

use super::{admit, brain::Brain, clock, gate::NOT_A_MEMBER, home::Used, links::Kind, mail::Mail};

/// Most peers dialled in one such round.
const BOOTSTRAP_AT_ONCE: usize = 8;
/// A node that is not gossip's neighbour by itself is made one, where there are fewer than so many (HyParView's view).
const NEIGHBOURS: usize = 5;
/// The side with the higher id waits this long before it does the same.
const REPLUG_LATER: Duration = Duration::from_millis(1000);

impl Brain {
    pub(super) fn link_up(&mut self, node: NodeId) {
        let now = clock::now();
        self.dialing.remove(&node);
        self.directory.handle(directory::Input::LinkUp(node), now);
        self.suspicion.handle(suspicion::Input::Heard(node), now.local);
        if let Some(frame) = self.unsent.remove(&node) {
            self.say(node, frame);
        }
        self.changed = true;
        let neighbours = self.parts.fast.neighbours();
        if neighbours.len() < NEIGHBOURS {
            let (fast, first) = (self.parts.fast.clone(), self.me < node);
            let contact = self.contact(&node);
            tokio::spawn(async move {
                if !first {
                    tokio::time::sleep(REPLUG_LATER).await;
                    if fast.neighbours().contains(&node) {
                        return;
                    }
                }
                fast.replug(&contact).await;
            });
        }
    }

    /// Gossip that has had no neighbour for a while is given one, whoever it is: a lever that was pulled may have come to
    /// nothing, if the peer's own connection was on its way in, or the peer could not be dialled back.
    pub(super) fn join_gossip_again(&mut self) {
        let linked = self.parts.links.all();
        let alone = self.parts.fast.neighbours().is_empty();
        if std::mem::replace(&mut self.lonely, alone && !linked.is_empty())
            && self.lonely
            && let Some(node) = linked.choose(&mut rand::rng())
        {
            tracing::debug!(node = %node.short(), "gossip has no neighbour; it is joined again");
            let (fast, contact) = (self.parts.fast.clone(), self.contact(node));
            tokio::spawn(async move { fast.replug_afresh(&contact).await });
        }
    }

    /// What is known of where a node is; at the least its id, for mDNS and relays.
    pub(super) fn contact(&self, node: &NodeId) -> Contact {
        let said = self.records.get(node).map(|record| record.contact.clone());
        let known = || self.parts.bootstrap.iter().find(|contact| contact.node == *node).cloned();
        said.or_else(known).unwrap_or_else(|| Contact { node: *node, direct: Vec::new(), relay: None })
    }

    pub(super) fn say(&mut self, to: NodeId, frame: ProbeFrame) {
        let Ok(bytes) = codec::encode(&frame) else { return };
        if !self.parts.links.send(&to, Kind::Probe, bytes) {
            self.unsent.insert(to, frame);
            self.dial_node(to);
        }
    }

    /// Tells all that somebody is dead here: straight, where everybody watches everybody, and else by gossip. There most who
    /// are to look for themselves are not linked, and one message serves for what all its watchers say.
    pub(super) fn accuse(&mut self, accusation: ProbeFrame) {
        if self.records.len() < FULL_WATCH {
            for peer in self.parts.links.all() {
                self.say(peer, accusation);
            }
        } else if let Ok(bytes) = codec::encode(&accusation) {
            self.parts.fast.broadcast(bytes);
        }
    }

    pub(super) fn dial_node(&mut self, node: NodeId) {
        self.dial(self.contact(&node));
    }

    /// Says hello and links, in a task of its own. The other end may have forgotten this node, so hello comes first.
    pub(super) fn dial(&mut self, contact: Contact) {
        let node = contact.node;
        if node == self.me || self.parts.links.has(&node) || !self.dialing.insert(node) {
            return;
        }
        let (net, links, members) = (self.parts.net.clone(), self.parts.links.clone(), self.parts.members.clone());
        let (chain, revocations) = (self.parts.admission.chain().clone(), self.directory.revocations().clone());
        let (mail, life) = (self.parts.mail.clone(), self.life);
        tokio::spawn(async move {
            let met = admit::hello(&net, &contact, &chain, life, &revocations).await;
            let linked = match met {
                Ok((cert, chain)) => {
                    members.admit(&cert, &chain);
                    links.dial(&contact).await.map_err(|error| error.to_string())
                }
                Err(error) => Err(error.to_string()),
            };
            let letter = match linked {
                Ok(()) => Mail::Dialled(node),
                Err(error) => {
                    tracing::debug!(node = %node.short(), error, "was not reached");
                    Mail::DialFailed(node)
                }
            };
            // At the end of the process nobody listens any more.
            let _ = mail.send(letter).await;
        });
    }

    pub(super) fn bootstrap(&mut self) {
        if !self.parts.links.all().is_empty() {
            return;
        }
        let standing = self.records.values().map(|record| record.contact.clone());
        let mut contacts: Vec<Contact> = standing.chain(self.parts.bootstrap.iter().cloned()).collect();
        contacts.retain(|contact| contact.node != self.me);
        let from = if contacts.len() > BOOTSTRAP_AT_ONCE { rand::random_range(0..contacts.len()) } else { 0 };
        let chosen: Vec<Contact> =
            contacts.iter().cycle().skip(from).take(contacts.len().min(BOOTSTRAP_AT_ONCE)).cloned().collect();
        chosen.into_iter().for_each(|contact| self.dial(contact));
    }

    pub(super) fn admit(&mut self, request: &AdmitRequest, session: &Session) -> AdmitReply {
        let now = clock::unix();
        let revocations = self.directory.revocations().clone();
        let reply = self.parts.admission.answer(request, session, &revocations, now);
        match (&reply, request) {
            (AdmitReply::Admitted { chain, .. }, _)
            | (AdmitReply::Welcome { .. }, AdmitRequest::Hello { chain, .. }) => {
                if let Ok(cert) = chain.of(session.joiner, &revocations, now) {
                    self.parts.members.admit(&cert, chain);
                }
            }
            (AdmitReply::Refused { reason, .. }, _) => {
                tracing::info!(node = %session.joiner.short(), %reason, "turned away");
            }
            _ => {}
        }
        if let (AdmitReply::Welcome { .. }, AdmitRequest::Hello { ext, .. }) = (&reply, request) {
            self.greeted(session.joiner, admit::life_in(ext));
        }
        if matches!(reply, AdmitReply::Admitted { .. }) {
            tracing::info!(node = %session.joiner.short(), "admitted");
            self.keep_uses();
        }
        reply
    }

    /// A node that was restarted says hello before QUIC has noticed its end. As long as a connection of its former life is
    /// open, iroh 1.4.1 sends new dials to the address it had then (`RemoteState::selected_path`), so these are closed.
    fn greeted(&mut self, node: NodeId, life: Option<u64>) {
        let Some(life) = life else { return };
        if self.lives.insert(node, life).is_some_and(|known| known < life) {
            tracing::info!(node = %node.short(), "back in a new life");
            self.parts.members.hang_up(&node, 0, "restarted");
        }
    }

    fn keep_uses(&self) {
        let uses: Vec<Used> = self
            .parts
            .admission
            .uses()
            .map(|(nonce, not_after, nodes)| Used { nonce: *nonce, not_after, nodes: nodes.clone() })
            .collect();
        self.parts.drawer.keep_uses(&uses);
    }

    pub(super) fn expelled(&mut self, node: NodeId) {
        tracing::info!(node = %node.short(), "expelled");
        self.parts.members.forget(&node);
        self.parts.members.hang_up(&node, NOT_A_MEMBER, "expelled");
        self.changed = true;
    }

    /// To all linked peers, in the end.
    pub(super) fn farewell(&mut self) {
        let frame = self.suspicion.farewell();
        for peer in self.parts.links.all() {
            self.say(peer, frame);
        }
    }
}

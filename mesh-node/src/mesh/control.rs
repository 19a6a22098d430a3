//! What the operator asks of the mesh: tickets, revocations, goodbyes, and how it stands; must not know HTTP or terminals.

use data_encoding::HEXLOWER;
use futures_util::{FutureExt, future::BoxFuture};
use mesh_proto::{
    directory,
    identity::{Invitation, MAX_USES, NodeId, Nonce, RevocationList, Signed, Terms},
    placement,
    record::ModelState,
    suspicion::Health,
    time::Millis,
};
use tokio::sync::oneshot;

use super::{
    Joining, Mesh,
    brain::Brain,
    clock, join,
    mail::{Control, Mail},
};
use crate::manage::{
    self, ControlError, IssuedTicket, MeshControl, MeshModelStatus, MeshStatus, Path, PeerStatus, TicketInfo,
    TicketOrder,
};

impl Brain {
    pub(super) fn control(&mut self, control: Control) {
        // Whoever asked may be gone by now.
        match control {
            Control::Ticket { terms, reply } => drop(reply.send(self.issue(&terms))),
            Control::Tickets { reply } => drop(reply.send(Ok(self.open_tickets()))),
            Control::Show { id, reply } => drop(reply.send(self.show_ticket(&id))),
            Control::Revoke { id, reply } => drop(reply.send(self.revoke(&id))),
            Control::Expel { node, reply } => drop(reply.send(self.expel(node))),
            Control::Drain { reply } => {
                self.draining = true;
                self.placement.handle(placement::Input::Drain, clock::local());
                self.settle();
                self.publish();
                self.settle();
                let _ = reply.send(());
            }
            Control::Leave { reply } => {
                self.farewell();
                // The state folder is free for the next node.
                self.left = true;
                let _ = reply.send(());
            }
        }
    }

    fn issue(&mut self, terms: &Terms) -> Result<IssuedTicket, ControlError> {
        let contact = self.parts.net.contact();
        let made = join::ticket(&self.parts.admission, terms, contact, &self.parts.name);
        let (ticket, given) = made.map_err(|error| ControlError::Refused(error.to_string()))?;
        let expires = given.invitation.claim().map_or(0, |invitation| invitation.not_after.0 / 1000);
        let text = ticket.to_text().map_err(|error| ControlError::Failed(error.to_string()))?;
        self.forget_old_tickets();
        self.invitations.push(given);
        self.parts.drawer.keep_invitations(&self.invitations);
        Ok(IssuedTicket { id: id_of(&terms.nonce), expires_at: expires, ticket: text })
    }

    fn forget_old_tickets(&mut self) {
        let now = clock::unix();
        self.invitations.retain(|given| given.invitation.claim().is_ok_and(|invitation| invitation.not_after > now));
    }

    /// Invitations that still let somebody in.
    fn standing(&self) -> impl Iterator<Item = (&super::home::Given, Invitation)> {
        let (now, revocations) = (clock::unix(), self.directory.revocations());
        let claims = self.invitations.iter().filter_map(|given| Some((given, given.invitation.claim().ok()?)));
        claims.filter(move |(_, claim)| claim.not_after > now && !revocations.takes_back(&claim.nonce))
    }

    fn open_tickets(&self) -> Vec<TicketInfo> {
        let used = |nonce: &Nonce| {
            let mut uses = self.parts.admission.uses();
            uses.find(|(of, ..)| *of == nonce).map_or(0, |(_, _, nodes)| nodes.len())
        };
        self.standing()
            .map(|(given, claim)| TicketInfo {
                id: id_of(&claim.nonce),
                role: claim.role.into(),
                admits: claim.admits,
                used: u32::try_from(used(&claim.nonce)).unwrap_or(u32::MAX),
                uses: (claim.max_uses < MAX_USES).then_some(claim.max_uses),
                made_at: given.made_at.0 / 1000,
                expires_at: claim.not_after.0 / 1000,
                node: claim.bound.map(|node| node.to_string()),
            })
            .collect()
    }

    /// The one standing invitation whose id begins so.
    fn find(&self, id: &str) -> Result<(super::home::Given, Invitation), ControlError> {
        let mut found = self.standing().filter(|(_, claim)| !id.is_empty() && id_of(&claim.nonce).starts_with(id));
        match (found.next(), found.next()) {
            (Some((given, claim)), None) => Ok((given.clone(), claim)),
            (None, _) => Err(ControlError::NotFound(format!("no open ticket of this node has the id {id:?}"))),
            (Some(_), Some(_)) => Err(ControlError::Refused(format!("several tickets' ids begin with {id:?}"))),
        }
    }

    fn show_ticket(&self, id: &str) -> Result<String, ControlError> {
        let (given, claim) = self.find(id)?;
        let contact = self.parts.net.contact();
        let ticket = join::assemble(&self.parts.admission, &given, claim.nonce, contact, &self.parts.name);
        ticket.to_text().map_err(|error| ControlError::Failed(error.to_string()))
    }

    fn revoke(&mut self, id: &str) -> Result<(), ControlError> {
        let (_, claim) = self.find(id)?;
        self.take_back(|list| list.invitations.push(claim.nonce))
    }

    fn expel(&mut self, node: NodeId) -> Result<(), ControlError> {
        if node == self.me {
            return Err(ControlError::Refused("the founder cannot expel itself".into()));
        }
        if self.directory.revocations().expels(&node) {
            return Ok(());
        }
        self.take_back(|list| list.nodes.push(node))
    }

    /// Signs the next revocation list. Only the founder's signature counts.
    fn take_back(&mut self, add: impl FnOnce(&mut RevocationList)) -> Result<(), ControlError> {
        let root = self.parts.admission.chain().root;
        if root != self.me {
            let founder = root.short();
            let message = format!("only the mesh's founder ({founder}…) takes tickets and memberships back: ask there");
            return Err(ControlError::Refused(message));
        }
        let now = clock::now();
        let mut list = self.directory.revocations().list().next(now.unix);
        add(&mut list);
        let signed = Signed::sign(&list, &self.parts.key).map_err(|error| ControlError::Failed(error.to_string()))?;
        self.directory.handle(directory::Input::Revoke { root, list: signed }, now);
        self.settle();
        Ok(())
    }
}

/// A ticket's id, for people and programs: not its secret.
fn id_of(nonce: &Nonce) -> String {
    HEXLOWER.encode(&nonce.0)
}

impl Mesh {
    async fn ask<T>(
        &self,
        control: impl FnOnce(oneshot::Sender<Result<T, ControlError>>) -> Control,
    ) -> Result<T, ControlError> {
        let (reply, told) = oneshot::channel();
        let failed = |what: &str| ControlError::Failed(what.to_owned());
        if matches!(self.view().joining, Joining::Joining { .. }) {
            return Err(ControlError::Refused("this node is not in its mesh yet; mesh-llm status says why".into()));
        }
        self.mail.send(Mail::Control(control(reply))).await.map_err(|_| failed("the mesh's task has ended"))?;
        told.await.map_err(|_| failed("the mesh's task has ended"))?
    }

    fn peer(&self, node: &NodeId, peer: &super::Peer) -> PeerStatus {
        let health = match peer.health {
            None => "unwatched",
            Some(Health::Alive) => "alive",
            Some(Health::Suspect { .. }) => "suspect",
            Some(Health::Dead { .. }) => "dead",
            Some(Health::Left) => "left",
        };
        let role = peer.record.chain.member.claim().map(|cert| cert.role.into()).unwrap_or_default();
        let connection = self.links.connection(node);
        let paths = connection.as_ref().map(|connection| connection.paths());
        // After a change of address iroh may have selected none for a while, though packets get there.
        let selected =
            paths.as_ref().and_then(|paths| paths.iter().find(|path| path.is_selected()).or(paths.iter().next()));
        let ready = peer.record.models.iter().filter(|model| model.state == ModelState::Ready);
        PeerStatus {
            id: node.to_string(),
            health: health.into(),
            role,
            path: selected.as_ref().map(|path| if path.is_relay() { Path::Relay } else { Path::Direct }),
            rtt_ms: selected.as_ref().map(|path| path.rtt().as_secs_f64() * 1000.0),
            models: ready.map(|model| model.id.to_string()).collect(),
            version: peer.record.build.release.clone(),
        }
    }
}

impl MeshControl for Mesh {
    fn status(&self) -> MeshStatus {
        let view = self.view();
        let mut models: std::collections::BTreeMap<String, MeshModelStatus> = std::collections::BTreeMap::new();
        let mut own = |id: String, owner: String, context_tokens: u32| {
            let model = models.entry(id.clone()).or_insert_with(|| MeshModelStatus { id, ..Default::default() });
            model.owners.push(owner);
            model.context_tokens = model.context_tokens.max(context_tokens);
        };
        for candidate in &view.candidates {
            own(candidate.name.to_string(), candidate.node.to_string(), candidate.context_tokens);
        }
        for (id, model) in self.locals.all().iter() {
            if let Some(served) = model.served() {
                own(id.to_string(), view.me.to_string(), served.descriptor().context_tokens);
            }
        }
        let mut counters = view.counters.clone();
        counters.insert("requests_refused".into(), self.serve.refused());
        counters.extend(self.files.iter().flat_map(|files| files.counters()));
        counters.extend(self.links.skipped().map(|(label, count)| (label.to_owned(), count)));
        MeshStatus {
            name: view.name.clone(),
            id: view.mesh.to_string(),
            node: view.me.to_string(),
            role: self.role.into(),
            joining: match &view.joining {
                Joining::Founded => manage::Joining::Founded,
                Joining::Joined => manage::Joining::Joined,
                Joining::Joining { last_error } => manage::Joining::Joining { last_error: last_error.clone() },
            },
            peers: view.peers.iter().map(|(node, peer)| self.peer(node, peer)).collect(),
            models: models.into_values().collect(),
            counters,
        }
    }

    fn ticket(&self, order: TicketOrder) -> BoxFuture<'_, Result<IssuedTicket, ControlError>> {
        let terms = Terms {
            admits: order.admits,
            lifetime: Millis::secs(order.lifetime_s),
            max_uses: order.uses.unwrap_or(MAX_USES),
            bound: order.node,
            ..Terms::new(order.role.into(), Nonce(rand::random()))
        };
        self.ask(|reply| Control::Ticket { terms, reply }).boxed()
    }

    fn tickets(&self) -> BoxFuture<'_, Result<Vec<TicketInfo>, ControlError>> {
        self.ask(|reply| Control::Tickets { reply }).boxed()
    }

    fn show(&self, id: &str) -> BoxFuture<'_, Result<String, ControlError>> {
        let id = id.to_owned();
        self.ask(|reply| Control::Show { id, reply }).boxed()
    }

    fn revoke(&self, id: String) -> BoxFuture<'_, Result<(), ControlError>> {
        self.ask(|reply| Control::Revoke { id, reply }).boxed()
    }

    fn expel(&self, node: NodeId) -> BoxFuture<'_, Result<(), ControlError>> {
        self.ask(move |reply| Control::Expel { node, reply }).boxed()
    }
}

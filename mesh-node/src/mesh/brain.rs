//! The mesh's one task: it drives mesh-proto's machines and does what they say; must not decide anything itself.
//!
//! Everything that happens reaches it as [`Mail`] or as a timer. It never waits for a peer: frames go into bounded
//! queues, dials and loads run in tasks of their own and report back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_proto::{
    codec::{self, CodecError},
    demand::{DemandMeter, DemandView, ModelDemand},
    directory::{self, Directory, Gone},
    identity::{Admission, Contact, MemberRole, NodeId, NodeKey},
    placement::{self, HostView, ModelKey, Placement},
    record::{ModelState, Record, Version, announce_every, announce_next},
    routing::Candidate,
    suspicion::{self, Death, Health, ProbeFrame, Rewatch, Suspicion, Watchlist},
    time::Millis,
};
use tokio::sync::{mpsc, watch};

use super::{
    clock,
    endpoint::Net,
    gate::Members,
    gossip::Fast,
    home::{Drawer, Given},
    links::{Kind, Links},
    mail::Mail,
    own::Own,
    view::{Joining, Peer, View},
};
use crate::{local::LocalEngines, shelf::Shelf};

/// While nobody is linked, the last known peers are dialled this often. Unit: milliseconds; default 2000, a guess: a
/// laptop's network needs as long after a sleep. Cost: a few packets.
const BOOTSTRAP_EVERY: Millis = Millis(2000);
/// Between two looks at what changes slowly: demand, loads, the own certificate, the peers on disk.
const CHORES_EVERY: Millis = Millis(2000);
/// A record that changed is published at most this often. Unit: milliseconds; default 50, a guess: a burst of changes
/// (a load's end, a claim) becomes one record. Cost: added to what others learn.
const RECORD_PAUSE: Millis = Millis(50);

/// Most peers on the disk that are not here now: each is knocked at in the next life. (guess)
const KEEP_MISSED: usize = 32;

/// What the task is made of.
pub(crate) struct Parts {
    pub(crate) key: NodeKey,
    pub(crate) role: MemberRole,
    pub(crate) name: String,
    pub(crate) joining: Joining,
    pub(crate) net: Net,
    pub(crate) links: Links,
    pub(crate) fast: Fast,
    pub(crate) members: Members,
    pub(crate) drawer: Drawer,
    pub(crate) admission: Admission,
    pub(crate) revocations: mesh_proto::identity::Revocations,
    pub(crate) locals: LocalEngines,
    pub(crate) shelf: Shelf,
    pub(crate) own: Own,
    pub(crate) mail: mpsc::Sender<Mail>,
    pub(crate) view: watch::Sender<Arc<View>>,
    pub(crate) bootstrap: Vec<Contact>,
}

pub(crate) struct Brain {
    pub(super) parts: Parts,
    pub(super) me: NodeId,
    pub(super) directory: Directory,
    pub(super) suspicion: Suspicion,
    pub(super) placement: Placement,
    pub(super) meter: DemandMeter,
    pub(super) demand: DemandView,
    watchlist: Watchlist,
    pub(super) version: Version,
    pub(super) next_record: Millis,
    pub(super) last_record: Millis,
    pub(super) next_chores: Millis,
    /// Whether gossip had no neighbour at the last chores, though somebody is linked.
    pub(super) lonely: bool,
    pub(super) next_bootstrap: Millis,
    pub(super) next_renewal: Millis,
    pub(super) dialing: BTreeSet<NodeId>,
    /// Said to a peer once it is linked.
    pub(super) unsent: BTreeMap<NodeId, ProbeFrame>,
    pub(super) records: BTreeMap<NodeId, Arc<Record>>,
    /// Since when each node runs, as it said when it was last met.
    pub(super) lives: BTreeMap<NodeId, u64>,
    pub(super) life: u64,
    pub(super) offered: BTreeMap<ModelKey, ModelState>,
    pub(super) invitations: Vec<Given>,
    pub(super) draining: bool,
    pub(super) changed: bool,
    pub(super) peers_changed: bool,
    /// What peers said that was not understood or not believed, by label.
    strange: BTreeMap<&'static str, u64>,
    /// Goodbye was said.
    pub(super) left: bool,
}

impl Brain {
    pub(crate) fn new(mut parts: Parts) -> Self {
        let me = parts.key.id();
        let now = clock::now();
        let seed: u64 = rand::random();
        let incarnation = now.unix.0;
        for used in parts.drawer.uses() {
            parts.admission.remember(used.nonce, used.not_after, used.nodes);
        }
        let mut directory = Directory::new(me, parts.revocations.clone(), seed, now.local);
        directory.handle(directory::Input::Known(parts.bootstrap.clone()), now);
        Self {
            me,
            directory,
            suspicion: Suspicion::new(me, incarnation, suspicion::Config::default(), seed),
            placement: Placement::new(me, now.local),
            meter: DemandMeter::default(),
            demand: DemandView::default(),
            watchlist: Watchlist::new(&me),
            version: Version { incarnation, sequence: 0 },
            next_record: now.local,
            last_record: Millis(0),
            next_chores: now.local,
            lonely: false,
            next_bootstrap: now.local,
            next_renewal: now.local,
            dialing: BTreeSet::new(),
            unsent: BTreeMap::new(),
            records: BTreeMap::new(),
            lives: BTreeMap::new(),
            life: incarnation,
            offered: BTreeMap::new(),
            invitations: parts.drawer.invitations(),
            draining: false,
            changed: true,
            peers_changed: false,
            strange: BTreeMap::new(),
            left: false,
            parts,
        }
    }

    /// Runs until the mesh is left.
    pub(crate) async fn run(mut self, mut mail: mpsc::Receiver<Mail>) {
        let mut locals = self.parts.locals.subscribe();
        self.locals_changed();
        loop {
            self.wake();
            self.settle();
            self.show();
            tokio::select! {
                letter = mail.recv() => {
                    let Some(letter) = letter else { return };
                    self.take(letter);
                    // What came meanwhile is taken together, so that one view is made of it.
                    for _ in 0..256 {
                        let Ok(letter) = mail.try_recv() else { break };
                        self.settle();
                        self.take(letter);
                    }
                    if self.left {
                        self.settle();
                        return;
                    }
                }
                changed = locals.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.locals_changed();
                }
                () = tokio::time::sleep_until(clock::instant(self.next_wakeup())) => {}
            }
        }
    }

    fn next_wakeup(&self) -> Millis {
        let mut next = self.next_record.min(self.next_chores).min(self.directory.next_wakeup());
        next = self.suspicion.next_wakeup().map_or(next, |at| next.min(at));
        next = self.placement.next_wakeup().map_or(next, |at| next.min(at));
        next.min(self.next_bootstrap)
    }

    fn wake(&mut self) {
        let now = clock::now();
        if self.directory.next_wakeup() <= now.local {
            self.directory.handle(directory::Input::Wake, now);
        }
        if self.suspicion.next_wakeup().is_some_and(|at| at <= now.local) {
            self.suspicion.handle(suspicion::Input::Wake, now.local);
        }
        if self.placement.next_wakeup().is_some_and(|at| at <= now.local) {
            self.placement.handle(placement::Input::Wake, now.local);
        }
        if self.next_chores <= now.local {
            self.next_chores = now.local + CHORES_EVERY;
            self.chores(now.local);
        }
        if self.next_bootstrap <= now.local {
            self.next_bootstrap = now.local + BOOTSTRAP_EVERY;
            self.bootstrap();
        }
        if self.next_record <= now.local {
            self.publish();
        }
    }

    fn take(&mut self, letter: Mail) {
        let now = clock::now();
        match letter {
            Mail::Frame { from, kind: Kind::Sync, bytes, place: _place } => {
                self.suspicion.handle(suspicion::Input::Heard(from), now.local);
                self.directory.handle(directory::Input::Frame { from, bytes }, now);
            }
            Mail::Frame { from, kind: Kind::Probe, bytes, place: _place } => {
                match codec::decode::<ProbeFrame>(&bytes) {
                    Ok(frame) => self.probed(from, frame, now.local),
                    Err(error) => self.unreadable(from, error, now.local),
                }
            }
            Mail::Gossip { from, bytes } => match ProbeFrame::gossiped(&bytes) {
                None => {
                    self.suspicion.handle(suspicion::Input::Heard(from), now.local);
                    self.directory.handle(directory::Input::Gossip { from, bytes }, now);
                }
                Some(Ok(accusation)) => self.probed(from, accusation, now.local),
                // The neighbour passes on what it cannot judge.
                Some(Err(_)) => {
                    *self.strange.entry("probe_gossip").or_insert(0) += 1;
                    self.suspicion.handle(suspicion::Input::Heard(from), now.local);
                }
            },
            Mail::Neighbour(node) => self.dial_node(node),
            Mail::LinkUp(node) => self.link_up(node),
            Mail::LinkDown(node) => {
                self.directory.handle(directory::Input::LinkDown(node), now);
                self.suspicion.handle(suspicion::Input::Closed(node), now.local);
                self.changed = true;
            }
            Mail::DialFailed(node) => {
                self.dialing.remove(&node);
                self.unsent.remove(&node);
                self.suspicion.handle(suspicion::Input::ProbeFailed(node), now.local);
            }
            Mail::Dialled(node) => {
                self.dialing.remove(&node);
            }
            Mail::Admit { request, session, reply } => {
                let answer = self.admit(&request, &session);
                // Who asked may be gone.
                let _ = reply.send(answer);
            }
            Mail::Asked(model) => self.meter.asked(model, now.local),
            Mail::Moved(contact) => {
                tracing::info!(addresses = ?contact.direct, relay = ?contact.relay, "this node can be reached at");
                self.soon();
            }
            Mail::Renewed(chain) => self.renewed(*chain),
            Mail::Control(control) => self.control(control),
        }
    }

    fn probed(&mut self, from: NodeId, frame: ProbeFrame, now: Millis) {
        let me = matches!(frame, ProbeFrame::Accuse { node, .. } if node == self.me);
        let known = |node: &NodeId| self.records.get(node).map(|record| record.version.incarnation);
        let said = if me { Some(frame) } else { frame.of_known(known) };
        let Some(frame) = said else {
            // Nobody of that name stands here, or it refuted this already.
            *self.strange.entry("probe_accuses_unknown").or_insert(0) += 1;
            return self.suspicion.handle(suspicion::Input::Heard(from), now);
        };
        self.suspicion.handle(suspicion::Input::Frame { from, frame }, now);
    }

    /// A newer release's word still says that its speaker lives; nonsense ends the link, as in anti-entropy.
    fn unreadable(&mut self, from: NodeId, error: CodecError, now: Millis) {
        let newer = matches!(error, CodecError::UnknownVariant { .. } | CodecError::Version { .. });
        *self.strange.entry(if newer { "probe_unknown" } else { "probe_malformed" }).or_insert(0) += 1;
        self.changed = true;
        if newer {
            return self.suspicion.handle(suspicion::Input::Heard(from), now);
        }
        self.parts.links.close(&from, 400, "offence");
    }

    /// Publishes a record soon: something in it has changed.
    pub(super) fn soon(&mut self) {
        let earliest = (self.last_record + RECORD_PAUSE).max(clock::local());
        self.next_record = self.next_record.min(earliest);
    }

    /// Does what the machines ask for, until they ask for nothing.
    pub(super) fn settle(&mut self) {
        loop {
            if let Some(effect) = self.directory.poll_effect() {
                self.directory_effect(effect);
            } else if let Some(effect) = self.suspicion.poll_effect() {
                self.suspicion_effect(effect);
            } else if let Some(effect) = self.placement.poll_effect() {
                self.placement_effect(effect);
            } else {
                return;
            }
        }
    }

    fn directory_effect(&mut self, effect: directory::Effect) {
        use directory::Effect;
        match effect {
            Effect::Send { to, frame } => {
                if let Ok(bytes) = codec::encode(&frame) {
                    self.parts.links.send(&to, Kind::Sync, bytes);
                }
            }
            Effect::Broadcast(announce) => {
                if let Ok(bytes) = codec::encode(&announce) {
                    self.parts.fast.broadcast(bytes);
                }
            }
            Effect::Changed(node) => self.record_changed(node),
            Effect::Gone { node, why } => {
                tracing::info!(node = %node.short(), ?why, "a node is gone");
                self.records.remove(&node);
                self.demand.forget(node);
                let now = clock::local();
                self.placement.handle(placement::Input::Gone(node), now);
                let change = self.watchlist.went(&node);
                self.rewatch(change, now);
                if matches!(why, Gone::Expired | Gone::Revoked) {
                    self.lives.remove(&node);
                    self.suspicion.handle(suspicion::Input::Forget(node), now);
                }
                self.changed = true;
                self.peers_changed = true;
            }
            Effect::Expel(node) => self.expelled(node),
            Effect::Revoked => {
                if let Some((root, list)) = self.directory.revocations().signed() {
                    self.parts.drawer.keep_revocations(*root, list);
                }
                for node in self.parts.members.expel(self.directory.revocations(), clock::unix()) {
                    self.expelled(node);
                }
                if self.directory.revocations().expels(&self.me) {
                    tracing::error!("this node was expelled from the mesh");
                }
            }
            Effect::Reach(contact) => self.dial(contact),
            Effect::Outrun(version) => {
                let incarnation = version.incarnation.saturating_add(1);
                self.version = Version { incarnation, sequence: 0 };
                self.suspicion.handle(suspicion::Input::Outran { incarnation }, clock::local());
                self.soon();
            }
            Effect::Offence { from, what } => {
                tracing::warn!(node = %from.short(), what, "a peer sent what no honest node sends");
                self.parts.links.close(&from, 400, "offence");
            }
        }
    }

    fn suspicion_effect(&mut self, effect: suspicion::Effect) {
        use suspicion::Effect;
        match effect {
            Effect::Send { to, frame } => self.say(to, frame),
            Effect::Changed { node, incarnation, health } => {
                self.changed = true;
                let now = clock::now();
                match health {
                    Health::Dead { why: Death::Silent | Death::Closed } => {
                        self.directory.handle(directory::Input::Dead { node, incarnation }, now);
                    }
                    Health::Left => self.directory.handle(directory::Input::Left { node, incarnation }, now),
                    _ => {}
                }
                if matches!(health, Health::Dead { .. } | Health::Left) {
                    // A corpse's connections would hold memory, and streams on them their requests, until QUIC
                    // gives up.
                    self.parts.members.hang_up(&node, 0, "gone");
                }
                tracing::debug!(node = %node.short(), ?health, "health");
            }
            Effect::Declare { node, incarnation } => self.accuse(ProbeFrame::Accuse { node, incarnation }),
            Effect::Refute { incarnation } => {
                self.version = Version { incarnation, sequence: 0 };
                self.soon();
            }
        }
    }

    fn placement_effect(&mut self, effect: placement::Effect) {
        use placement::Effect;
        match effect {
            Effect::Announce => self.soon(),
            Effect::Load(model) => {
                tracing::info!(%model, "elected to host; loading");
                let shelf = self.parts.shelf.clone();
                // How it ends shows in the list of local models.
                tokio::spawn(async move {
                    if let Err(error) = shelf.load_key(model).await {
                        tracing::warn!(%model, error, "an elected model did not load");
                    }
                });
            }
            Effect::StepDown { lease, why } => {
                tracing::info!(%lease, ?why, "stepped down");
                self.soon();
            }
            Effect::Unload(model) => {
                self.offered.insert(model, ModelState::OnDisk);
                let shelf = self.parts.shelf.clone();
                tokio::spawn(async move { shelf.unload_key(model).await });
            }
        }
    }

    fn record_changed(&mut self, node: NodeId) {
        self.changed = true;
        if node == self.me {
            return;
        }
        let Some(entry) = self.directory.get(&node) else { return };
        let record = Arc::new(entry.record.clone());
        let now = clock::now();
        let revocations = self.directory.revocations();
        if let Ok(cert) = record.chain.of(node, revocations, now.unix) {
            self.parts.members.admit(&cert, &record.chain);
        }
        self.parts.net.learn(&record.contact);
        let lines: Vec<ModelDemand> = record
            .demand
            .iter()
            .map(|said| ModelDemand {
                model: said.model.clone(),
                millis: u32::try_from(said.requests_per_kilosecond).unwrap_or(u32::MAX),
            })
            .collect();
        self.demand.merge(node, &lines, now.local);
        self.placement.handle(placement::Input::Peer(HostView::of(&record)), now.local);
        let incarnation = record.version.incarnation;
        self.lives.entry(node).or_insert(incarnation);
        let before = self.records.insert(node, record.clone());
        let new = before.is_none();
        if new {
            tracing::info!(node = %node.short(), models = record.models.len(), "a node is here");
        }
        if before.as_ref().is_none_or(|before| before.contact != record.contact) {
            // At once, and again with the chores: a node that is killed the next moment still knows whom to ask.
            self.keep_peers();
            self.peers_changed = true;
        }
        if before.is_some_and(|before| before.version.incarnation < incarnation) {
            // Back in a later life: gossip must be told so by the survivor (trap d).
            let (fast, contact) = (self.parts.fast.clone(), record.contact.clone());
            tokio::spawn(async move { fast.replug(&contact).await });
        }
        if new {
            let change = self.watchlist.came(node);
            self.rewatch(change, now.local);
        }
        let said = match self.watchlist.watches(&node) {
            true => suspicion::Input::Watch { node, incarnation },
            false => suspicion::Input::Said { node, incarnation },
        };
        self.suspicion.handle(said, now.local);
    }

    /// Everybody is watched in a small mesh, some in a large one: who that is changes with the members.
    fn rewatch(&mut self, change: Rewatch, now: Millis) {
        for node in change.forget {
            self.suspicion.handle(suspicion::Input::Forget(node), now);
        }
        for node in change.watch {
            if let Some(record) = self.records.get(&node) {
                let incarnation = record.version.incarnation;
                self.suspicion.handle(suspicion::Input::Watch { node, incarnation }, now);
            }
        }
    }

    fn chores(&mut self, now: Millis) {
        let own: Vec<ModelDemand> = self.meter.report(now);
        self.demand.merge(self.me, &own, now);
        self.tell_demand(now);
        self.tell_drained(now);
        if std::mem::take(&mut self.peers_changed) {
            self.keep_peers();
        }
        self.renew_if_due();
        self.join_gossip_again();
    }

    /// Where the peers are, for the next start. In a thread of its own: a disk may take its time.
    fn keep_peers(&self) {
        let missed = self.directory.missed().take(KEEP_MISSED).cloned();
        let contacts: Vec<Contact> = self.records.values().map(|record| record.contact.clone()).chain(missed).collect();
        if !contacts.is_empty() {
            let drawer = self.parts.drawer.clone();
            tokio::task::spawn_blocking(move || drawer.keep_peers(&contacts));
        }
    }

    fn tell_demand(&mut self, now: Millis) {
        for model in self.parts.locals.all().values() {
            let rate = self.demand.per_second(&model.id, now);
            self.placement.handle(placement::Input::Demand(model.key(), rate), now);
        }
    }

    /// Places that were stepped down from, and have nothing running any more.
    fn tell_drained(&mut self, now: Millis) {
        for model in self.parts.locals.all().values() {
            let idle = model.served().is_some_and(|served| {
                let load = served.engine.load();
                load.running + load.waiting == 0
            });
            let claimed = self.placement.claims().any(|(key, _)| key == model.key());
            if idle && !claimed && !model.pinned {
                self.placement.handle(placement::Input::Drained(model.key()), now);
            }
        }
    }

    pub(super) fn publish(&mut self) {
        let now = clock::now();
        self.last_record = now.local;
        let every = announce_every(self.records.len() + 1);
        self.next_record = now.local + announce_next(every, rand::random());
        let demand = self.meter.report(now.local);
        let words = super::own::Words {
            mesh: self.parts.admission.mesh(),
            version: self.version,
            issued_at: now.unix,
            lifetime: Record::lifetime_for(every),
            chain: self.parts.admission.chain().clone(),
            contact: self.parts.net.contact(),
            draining: self.draining,
            demand,
            claims: self.placement.view().record_claims(),
            serves: self.parts.role == MemberRole::Serve,
        };
        let (record, signed) = match self.parts.own.sign(words, &self.parts.locals, &self.parts.key) {
            Ok(signed) => signed,
            Err(error) => return tracing::error!(%error, "this node's record cannot be signed"),
        };
        self.version.sequence += 1;
        for served in &record.models {
            let weight = placement::weight(&record, served);
            self.placement.handle(placement::Input::Weighed(served.identity.key(), weight), now.local);
        }
        self.directory.handle(directory::Input::Own(signed), now);
    }

    fn show(&mut self) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let mut view =
            View::new(self.me, self.parts.admission.mesh(), self.parts.name.clone(), self.parts.joining.clone());
        view.draining = self.draining;
        for (node, record) in &self.records {
            let health = self.suspicion.health(node);
            let peer = Peer { record: record.clone(), health, linked: self.parts.links.has(node) };
            if peer.may_be_asked() {
                let suspect = matches!(health, Some(Health::Suspect { .. }));
                view.candidates.extend(Candidate::of(record, suspect));
            }
            view.peers.insert(*node, peer);
        }
        let refused = self.directory.refused().iter().map(|(label, count)| (format!("record_{label}"), *count));
        let turned = self.parts.admission.refused().iter().map(|(why, count)| (format!("admit_{why:?}"), *count));
        let strange = self.strange.iter().map(|(label, count)| ((*label).to_owned(), *count));
        view.counters.extend(refused.chain(turned).chain(strange));
        self.parts.view.send_replace(Arc::new(view));
    }
}

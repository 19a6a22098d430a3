//! What happens, event by event; must not know what must hold.

use rand::RngExt;

use super::{
    Event, Lying, Traffic, World,
    lab::{DAY, Lab},
    node::{Machines, Msg, Node},
    overlay::Overlay,
    plan::{Blow, Plan},
    publish,
};
use crate::{
    directory,
    identity::Contact,
    placement,
    record::{Version, announce_every},
    sim::node::Clock,
    suspicion::FULL_WATCH,
    time::{Millis, Now, UnixMillis},
};

/// A connection that neither end needs is closed after this long.
const UNNEEDED: Millis = Millis::secs(10);
/// A node with fewer links tries those that its disk names. Guess: in a mesh of three, both others.
const KNOWN: usize = 2;
/// Who was found not to serve what it claims is not asked again for so long.
const SHUN: Millis = Millis::secs(60);

impl World {
    /// Plays one event; says which node's machines were touched.
    pub(super) fn play(&mut self, event: Event) -> Option<usize> {
        let current = |node: usize, life: u32| self.nodes[node].up && self.nodes[node].life == life;
        match event {
            Event::Deliver { from, to, life, conn, msg } => {
                let known = current(to, life) && self.nodes[to].links.get(&from).is_some_and(|own| own.id == conn);
                // What was sent before a death still comes.
                if !known || self.side(from) != self.side(to) {
                    return None;
                }
                self.deliveries += 1;
                self.trace.pass(self.agenda.now(), to, label(&msg), from as u64);
                self.hear(to, from, msg);
                Some(to)
            }
            Event::Wake { node, life } if current(node, life) && self.nodes[node].wake == Some(self.now()) => {
                self.nodes[node].wake = None;
                self.wake(node);
                Some(node)
            }
            Event::Second { node, life } if current(node, life) => {
                self.put_in(Millis(1_000), Event::Second { node, life });
                self.second(node);
                Some(node)
            }
            Event::Dialled { from, to, life } if current(from, life) => {
                self.dialled(from, to);
                Some(from)
            }
            Event::Closed { at, peer, conn, gently } if self.nodes[at].up => {
                self.closed(at, peer, conn, gently);
                Some(at)
            }
            Event::Loaded { node, life, model, well } if current(node, life) => {
                self.nodes[node].loading.remove(&model);
                let input = if well { placement::Input::Loaded(model) } else { placement::Input::Failed(model) };
                self.placement(node, input);
                Some(node)
            }
            Event::Drained { node, life, model } if current(node, life) => {
                self.placement(node, placement::Input::Drained(model));
                Some(node)
            }
            Event::Name { node, life } if current(node, life) => {
                self.name(node);
                None
            }
            Event::Missing { node, life, number, tries } if current(node, life) => {
                self.missing(node, number, tries);
                None
            }
            Event::Noticed { node, life, since } => {
                self.noticed(node, life, since);
                None
            }
            Event::Parted { node, life, since } => {
                self.parted(node, life, since);
                None
            }
            Event::Boot { node, life } if !self.nodes[node].up && self.nodes[node].life < life => {
                self.boot(node, life);
                Some(node)
            }
            Event::Stop { node, life } if current(node, life) => {
                self.goodbye(node);
                None
            }
            Event::Blow(index) => self.befall(index),
            Event::Stand => {
                self.stand();
                None
            }
            Event::Count(begin) => {
                self.count(begin);
                None
            }
            _ => None,
        }
    }

    fn befall(&mut self, index: usize) -> Option<usize> {
        let (_, blow) = self.plan.blows[index];
        let now = self.now();
        match blow {
            Blow::Kill(node) if self.nodes[node].up => {
                self.trace.note(now, node, "killed", 0);
                self.stop(node);
            }
            Blow::Restart(node, back) if !self.nodes[node].up => {
                let life = self.nodes[node].life + 1;
                self.nodes[node].wall = (self.nodes[node].wall - back.0).max(DAY - Plan::SKEW);
                self.agenda.put(now, Event::Boot { node, life });
            }
            Blow::Leave(node) if self.nodes[node].up && !self.nodes[node].leaving => {
                self.trace.note(now, node, "drains", 0);
                self.nodes[node].leaving = true;
                self.placement(node, placement::Input::Drain);
                let life = self.nodes[node].life;
                self.put_in(Millis(1_000), Event::Stop { node, life });
                return Some(node);
            }
            Blow::Cut(_) | Blow::CutOff(_) => self.separate(Some(blow)),
            Blow::Heal if self.cut.is_some() => self.separate(None),
            Blow::Revoke(node) => return self.expel(node),
            Blow::Kill(_) | Blow::Restart(..) | Blow::Leave(_) | Blow::Heal => {}
        }
        None
    }

    fn separate(&mut self, cut: Option<Blow>) {
        let now = self.now();
        let how = match cut {
            Some(Blow::Cut(mask)) => mask,
            Some(Blow::CutOff(one_in)) => one_in as u64,
            _ => 0,
        };
        self.trace.note(now, 0, "cut", how);
        (self.cut, self.shaken) = (cut, now);
        self.sever(None);
    }

    /// The operator gives the founder's new list to some node.
    fn expel(&mut self, node: usize) -> Option<usize> {
        let running: Vec<usize> =
            (0..self.nodes.len()).filter(|at| *at != node && self.nodes[*at].up && self.nodes[*at].honest()).collect();
        let at = *running.get(self.rng.random_range(0..running.len().max(1)))?;
        self.trace.note(self.agenda.now(), node, "expelled", at as u64);
        self.list = self.list.next(UnixMillis(DAY + self.now().0));
        self.list.nodes.push(self.nodes[node].id);
        self.nodes[node].expelled = true;
        // Whom an expelled admitter let in goes with it.
        for at in (0..self.nodes.len()).filter(|at| Lab::issuer(*at) == node) {
            self.nodes[at].expelled = true;
        }
        let (root, list) = self.lab.sign(&self.list, 0)?;
        self.directory(at, directory::Input::Revoke { root, list });
        Some(at)
    }

    fn boot(&mut self, at: usize, life: u32) {
        let now = self.now();
        self.trace.note(now, at, "boots", u64::from(life));
        let drift = self.plan.drift;
        let clock = Clock {
            origin: self.rng.random_range(0..1_000_000),
            rate: self.rng.random_range(1000 - drift..=1000 + drift),
        };
        let local = clock.local(now);
        let seed = self.rng.random();
        let words = self.nodes.len().div_ceil(64);
        let node = &mut self.nodes[at];
        let incarnation = node.wall + now.0;
        // What was revoked is kept on disk.
        let kept = node.own.directory.revocations().clone();
        node.own = Machines::new(node.id, kept, &self.notary, seed, Now::new(local, UnixMillis(incarnation)));
        (node.clock, node.life, node.booted, node.up, node.leaving) = (clock, life, now, true, false);
        node.version = Version { incarnation, sequence: 0 };
        (node.dirty, node.next_record, node.wake) = (true, local, None);
        node.members = vec![0; words];
        node.overlay = Overlay::default();
        node.loading.clear();
        node.terms.clear();
        node.claims.clear();
        node.links.clear();
        node.dialing.clear();
        node.banned.clear();
        node.watched.clear();
        node.few = false;
        self.offer(at);
        let first = Millis(self.rng.random_range(0..1_000));
        self.put_in(first, Event::Second { node: at, life });
        if self.plan.warm && life == 1 {
            let every = announce_every(self.plan.nodes).0 as usize;
            self.publish(at);
            let node = &mut self.nodes[at];
            node.next_record = local + Millis(2_000 + self.rng.random_range(0..every as u64));
        }
        self.remember(at);
        self.knock(at);
    }

    /// Its disk names all others. Where the mesh stands already, nobody reads that in its first life.
    fn remember(&mut self, at: usize) {
        if !self.plan.warm || self.nodes[at].life > 1 {
            let contact = |node: &Node| Contact { node: node.id, direct: Vec::new(), relay: None };
            let known = self.nodes.iter().map(contact).collect();
            self.directory(at, directory::Input::Known(known));
        }
    }

    /// Dials one that its ticket or its disk names.
    fn knock(&mut self, at: usize) {
        let peer = self.rng.random_range(0..self.nodes.len());
        self.dial(at, peer);
    }

    pub(super) fn stop(&mut self, at: usize) {
        self.nodes[at].up = false;
        self.mourn(at);
        self.sever(Some(at));
    }

    fn goodbye(&mut self, at: usize) {
        let farewell = self.nodes[at].own.suspicion.farewell();
        let peers: Vec<usize> = self.nodes[at].links.keys().copied().collect();
        self.trace.note(self.agenda.now(), at, "leaves", peers.len() as u64);
        for peer in peers {
            self.probe(at, peer, farewell);
        }
        let (life, since) = (self.nodes[at].life, self.now());
        let late = if self.nodes[at].slow { Plan::SLOW } else { 0 };
        let wait = Millis(self.plan.delay.1 + self.plan.jitter + late + 1);
        self.put_in(wait, Event::Parted { node: at, life, since });
        self.stop(at);
    }

    fn second(&mut self, at: usize) {
        let now = self.now();
        let local = self.clock(at).local;
        self.nodes[at].banned.retain(|_, until| *until > now);
        if self.nodes[at].links.len() < KNOWN {
            self.knock(at);
        }
        if self.nodes[at].door && self.plan.models > 0 {
            let model =
                if self.plan.models > 2 { at % self.plan.models } else { self.rng.random_range(0..self.plan.models) };
            if self.rng.random_ratio(1, 2) {
                self.nodes[at].own.meter.asked(publish::name(model), local);
            }
        }
        for model in self.nodes[at].offers.clone() {
            let rate = self.nodes[at].own.demand.per_second(&publish::name(model), local);
            self.placement(at, placement::Input::Demand(self.keys[model], rate));
            self.find_out(at, model, local);
        }
        if self.nodes[at].own.directory.len() > FULL_WATCH || self.plan.warm {
            self.neighbours(at);
            self.prune(at, now);
        }
        if self.nodes[at].lie.is_some() {
            self.deceive(at);
        }
    }

    /// Requests find out who does not serve what it claims to.
    fn find_out(&mut self, at: usize, model: usize, local: Millis) {
        for lease in self.nodes[at].own.placement.leases(self.keys[model], local) {
            let Some(holder) = self.find(&lease.node) else { continue };
            let false_word = self.nodes[holder].lie == Some(Lying::Serves) && holder != at;
            if false_word && self.rng.random_ratio(1, 2) {
                self.placement(at, placement::Input::Shun(lease.node, local + SHUN));
            }
        }
    }

    fn prune(&mut self, at: usize, now: Millis) {
        let node = &self.nodes[at];
        let old = node.links.iter().filter(|(_, conn)| now.since(conn.since) > UNNEEDED).map(|(peer, _)| *peer);
        let needed = |peer: &usize| {
            let other = &self.nodes[*peer];
            node.overlay.keeps(*peer) || node.watched.contains(peer) || other.watched.contains(&at)
        };
        let unneeded: Vec<usize> = old.filter(|peer| !needed(peer)).collect();
        for peer in unneeded {
            self.close(at, peer);
        }
    }

    fn count(&mut self, begin: bool) {
        for node in &mut self.nodes {
            let sent = std::mem::take(&mut node.traffic);
            if !begin {
                self.counted.add(&sent);
                if sent.all() > self.most.all() && node.lie.is_none() {
                    self.most = sent;
                }
            }
        }
        if begin {
            self.counted = Traffic::default();
        }
    }
}

fn label(msg: &Msg) -> &'static str {
    match msg {
        Msg::Sync(_) => "sync",
        Msg::Probe(_) => "probe",
        Msg::Word(_) => "word",
        Msg::Eager(_) => "eager",
        Msg::Have(_) => "have",
        Msg::Graft(_) => "graft",
        Msg::Prune => "prune",
    }
}

//! Connections and messages: dialling, delay, loss, silence; must not know what is said.

use std::rc::Rc;

use rand::RngExt;

use super::{
    Event, World,
    lab::Lab,
    node::{Conn, Msg},
    plan::{Blow, Plan},
    traffic::Purpose,
};
use crate::{directory, suspicion, time::Millis};

/// A connection that carries nothing closes after this long. Unit: milliseconds. Origin: QUIC's idle time of 2 s
/// less what was last heard before the silence.
const IDLE: std::ops::Range<u64> = 1_500..2_000;
/// A dial that is not answered is given up after this long.
const DIAL: Millis = Millis(1_500);
/// Who sent what no honest node sends is not spoken with for so long.
const BAN: Millis = Millis::secs(10);
/// A handshake with certificates, each way. Unit: bytes. Origin: guess, three datagrams.
const HANDSHAKE: usize = 3_600;

impl World {
    /// Which side of a cut a node is on; everybody is on side 0 without one.
    pub(super) fn side(&self, node: usize) -> u64 {
        match self.cut {
            Some(Blow::Cut(mask)) => (mask.rotate_right(node as u32 % 64) ^ (node as u64 / 64)) & 1,
            Some(Blow::CutOff(one_in)) => u64::from(node % one_in == one_in / 2),
            _ => 0,
        }
    }

    pub(super) fn reachable(&self, a: usize, b: usize) -> bool {
        self.nodes[a].up && self.nodes[b].up && self.side(a) == self.side(b)
    }

    fn delay(&mut self, from: usize, to: usize) -> Millis {
        let (least, most) = self.plan.delay;
        // A link has its own delay, the same each time.
        let link = (from.min(to) as u64).wrapping_mul(0x9E37_79B9).wrapping_add(from.max(to) as u64) ^ self.seed;
        let base = least + link.wrapping_mul(0x9E37_79B9_7F4A_7C15) % (most - least + 1);
        let late = if self.nodes[from].slow { self.rng.random_range(0..=Plan::SLOW) } else { 0 };
        Millis(base + self.rng.random_range(0..=self.plan.jitter) + late)
    }

    /// Sends over the connection there is. Without one a probe dials, and the rest is lost.
    pub(super) fn send(&mut self, from: usize, to: usize, msg: Msg) {
        if !self.nodes[from].up {
            return;
        }
        let Some(conn) = self.nodes[from].links.get(&to).copied() else {
            if matches!(msg, Msg::Probe(_)) {
                self.dial(from, to);
                self.nodes[from].dialing.entry(to).or_default().push(msg);
            }
            return;
        };
        let (purpose, bytes) = self.size(&msg);
        self.nodes[from].traffic.count(purpose, bytes);
        self.sent[purpose as usize] += 1;
        let delay = self.delay(from, to);
        if self.rng.random_range(0..1000) >= self.plan.loss {
            self.put_in(delay, Event::Deliver { from, to, life: conn.life, conn: conn.id, msg });
        }
    }

    fn size(&self, msg: &Msg) -> (Purpose, usize) {
        // The sizes of gossip's own messages: an id of 32 bytes, and a few for the rest.
        match msg {
            Msg::Sync(bytes) => (Purpose::Sync, bytes.len()),
            Msg::Probe(bytes) => (Purpose::Probes, bytes.len()),
            Msg::Word(bytes) => (Purpose::Gossip, bytes.len()),
            Msg::Eager(item) => (Purpose::Gossip, 40 + self.item(*item).map_or(0, |item| item.bytes.len())),
            Msg::Have(items) => (Purpose::Tree, 5 + 35 * items.len()),
            Msg::Graft(_) => (Purpose::Tree, 40),
            Msg::Prune => (Purpose::Tree, 5),
        }
    }

    pub(super) fn dial(&mut self, from: usize, to: usize) {
        let node = &self.nodes[from];
        if from == to || node.links.contains_key(&to) || node.dialing.contains_key(&to) || !node.up {
            return;
        }
        self.nodes[from].dialing.insert(to, Vec::new());
        let wait = if self.reachable(from, to) { self.delay(from, to) + self.delay(to, from) } else { DIAL };
        let life = self.nodes[from].life;
        self.put_in(wait, Event::Dialled { from, to, life });
    }

    pub(super) fn dialled(&mut self, from: usize, to: usize) {
        let pending = self.nodes[from].dialing.remove(&to).unwrap_or_default();
        let refuses = |a: usize, b: usize| {
            let list = self.nodes[a].own.directory.revocations();
            let taken_back = [b, Lab::issuer(b)].iter().any(|signer| list.expels(&self.nodes[*signer].id));
            self.nodes[a].banned.contains_key(&b) || taken_back
        };
        let ends = |a: usize, b: usize| self.nodes[a].links.get(&b).copied();
        let alive = |conn: Conn, peer: usize, back: Option<Conn>| {
            conn.life == self.nodes[peer].life && back.is_some_and(|back| back.id == conn.id)
        };
        let linked = ends(from, to).is_some_and(|conn| alive(conn, to, ends(to, from)));
        if !linked {
            if !self.reachable(from, to) || refuses(from, to) || refuses(to, from) {
                self.nodes[from].traffic.count(Purpose::Dials, HANDSHAKE);
                if !pending.is_empty() {
                    let peer = self.nodes[to].id;
                    self.suspicion(from, suspicion::Input::ProbeFailed(peer));
                }
                return;
            }
            self.conns += 1;
            for (at, peer) in [(from, to), (to, from)] {
                let conn = Conn { id: self.conns, life: self.nodes[peer].life, since: self.now() };
                self.nodes[at].traffic.count(Purpose::Dials, HANDSHAKE);
                self.nodes[at].links.insert(peer, conn);
            }
            for (at, peer) in [(from, to), (to, from)] {
                let id = self.nodes[peer].id;
                self.directory(at, directory::Input::LinkUp(id));
                self.suspicion(at, suspicion::Input::Heard(id));
                self.finish(at);
            }
        }
        for msg in pending {
            self.send(from, to, msg);
        }
    }

    /// One end closes a connection; the other end hears of it, or it runs into its idle time.
    pub(super) fn close(&mut self, at: usize, peer: usize) {
        let Some(conn) = self.nodes[at].links.get(&peer).copied() else { return };
        self.unlink(at, peer);
        let wait = if self.reachable(at, peer) { self.delay(at, peer) } else { Millis(IDLE.end) };
        self.put_in(wait, Event::Closed { at: peer, peer: at, conn: conn.id, gently: true });
    }

    fn unlink(&mut self, at: usize, peer: usize) {
        self.nodes[at].links.remove(&peer);
        self.nodes[at].overlay.part(peer);
        let id = self.nodes[peer].id;
        self.directory(at, directory::Input::LinkDown(id));
    }

    pub(super) fn closed(&mut self, at: usize, peer: usize, conn: u64, gently: bool) {
        let Some(own) = self.nodes[at].links.get(&peer).copied().filter(|own| own.id == conn) else { return };
        let whole = self.reachable(at, peer)
            && own.life == self.nodes[peer].life
            && self.nodes[peer].links.get(&at).is_some_and(|back| back.id == conn);
        if whole {
            return;
        }
        self.unlink(at, peer);
        if !gently {
            let id = self.nodes[peer].id;
            self.suspicion(at, suspicion::Input::Closed(id));
        }
    }

    /// After a death or a cut: connections that carry nothing any more close in their time.
    pub(super) fn sever(&mut self, of: Option<usize>) {
        let mut broken = Vec::new();
        for (at, node) in self.nodes.iter().enumerate().filter(|(at, node)| node.up && of != Some(*at)) {
            match of {
                Some(dead) => broken.extend(node.links.get(&dead).map(|conn| (at, dead, conn.id))),
                None => {
                    let cut = node.links.iter().filter(|(peer, _)| self.side(**peer) != self.side(at));
                    broken.extend(cut.map(|(peer, conn)| (at, *peer, conn.id)));
                }
            }
        }
        for (at, peer, conn) in broken {
            let wait = Millis(self.rng.random_range(IDLE));
            self.put_in(wait, Event::Closed { at, peer, conn, gently: false });
        }
    }

    /// An offence: the connection is closed, and none is had for a while.
    pub(super) fn offended(&mut self, at: usize, by: usize, what: &'static str) {
        if self.nodes[by].honest() && self.nodes[at].honest() {
            self.breaks(format!("node {at} takes offence ({what}) at node {by}, which is honest"));
        }
        let until = self.now() + BAN;
        self.nodes[at].banned.insert(by, until);
        self.trace.note(self.agenda.now(), at, what, by as u64);
        self.close(at, by);
    }

    /// Sends the same to all that are linked.
    pub(super) fn send_all(&mut self, from: usize, msg: impl Fn() -> Msg) {
        let peers: Vec<usize> = self.nodes[from].links.keys().copied().collect();
        for to in peers {
            self.send(from, to, msg());
        }
    }

    pub(super) fn probe(&mut self, from: usize, to: usize, frame: suspicion::ProbeFrame) {
        if let Ok(bytes) = crate::codec::encode(&frame) {
            self.send(from, to, Msg::Probe(Rc::new(bytes)));
        }
    }
}

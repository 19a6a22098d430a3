//! What must hold in a mesh: at each step, some seconds after each death, and after the calm; must not know why it
//! would not.

use std::collections::BTreeMap;

use super::{
    Event, World,
    lab::Lab,
    node::Node,
    plan::{Lying, Plan},
};
use crate::{
    placement::{Claim, LOAD_BOUND, Lease, ModelKey, Phase, TERM_CEILING},
    suspicion::{FULL_WATCH, Health},
    time::Millis,
};

/// Where everybody watches everybody, a death is noticed by all after this long. Issue: 3 s.
const NOTICED: Millis = Millis(3_000);
/// In bigger meshes. Made of: the watchers' 2.6 s, the accusation's way (0.1 s a hop, some ten hops, and for a message
/// that was lost 0.2 s for its name and 0.45 s to get it), the time to refute it (1 s), the look for oneself within
/// 0.5 s, which takes 2.6 s, and 0.2 s for clocks.
const NOTICED_BY_GOSSIP: Millis = Millis(8_600);
/// A peer that is there, and was there all the time for so long, is not declared dead. Made of: the longest silence that
/// is borne (2.6 s), a dial's 1.5 s.
const STEADY: Millis = Millis(5_000);
/// Before the end of the calm no disturbance, and each record that was published before this has come to all.
const SPREAD: Millis = Millis(8_000);
/// Two that claimed one place at once know of each other after this long: where one's word was lost, from its next record,
/// or from a round of anti-entropy. Made of: two announcements' time.
const AGREED: Millis = Millis(4_000);

impl World {
    /// Notes the first law that is broken.
    pub(super) fn breaks(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }

    /// After a step at `at`: its machine and its word agree with what it knows.
    pub(super) fn after_step(&mut self, at: usize) {
        if !self.nodes[at].up || !self.nodes[at].honest() {
            return;
        }
        let claims: Vec<(ModelKey, Claim)> = self.nodes[at].own.placement.claims().collect();
        let (local, now) = (self.clock(at).local, self.now());
        let node = &mut self.nodes[at];
        let before = std::mem::take(&mut node.claims);
        let mut begun = 0;
        let mut broken = None;
        for (model, claim) in claims {
            let held = before.get(&model).filter(|(slot, term, _)| (*slot, *term) == (claim.slot, claim.term));
            node.claims.insert(model, (claim.slot, claim.term, held.map_or(now, |(.., since)| *since)));
            if held.is_some() {
                continue;
            }
            begun += 1;
            let own = Lease { model, node: node.id, claim };
            let mut leases = node.own.placement.leases(model, local).into_iter();
            if let Some(lease) = leases.find(|lease| lease.claim.slot == claim.slot && lease.beats(&own)) {
                broken = Some(format!("node {at} claims {model} though it knows {lease}"));
            }
            let last = node.terms.insert((model, claim.slot), claim.term);
            if last.is_some_and(|last| last >= claim.term && last < TERM_CEILING) {
                broken = Some(format!("node {at} claimed {model} under {:?} twice", claim.term));
            }
        }
        self.moves += begun;
        if begun > 0 {
            self.trace.note(self.agenda.now(), at, "claims", begun);
        }
        broken.into_iter().for_each(|what| self.breaks(what));
    }

    /// A node died: in some seconds nobody must see it.
    pub(super) fn mourn(&mut self, node: usize) {
        let small = self.plan.nodes <= FULL_WATCH;
        let bound = if small { NOTICED } else { NOTICED_BY_GOSSIP };
        // Words of a slow node still come in after its death.
        let late = if self.nodes[node].slow { Plan::SLOW } else { 0 } + self.plan.delay.1 + self.plan.jitter;
        let life = self.nodes[node].life;
        self.put_in(bound + Millis(late), Event::Noticed { node, life, since: self.now() });
    }

    /// A node said goodbye to all: where nothing is lost, nobody sees it any more.
    pub(super) fn parted(&mut self, gone: usize, life: u32, since: Millis) {
        if self.nodes[gone].up || self.nodes[gone].life != life || self.plan.loss > 0 || self.shaken >= since {
            return;
        }
        for at in 0..self.nodes.len() {
            let (node, other) = (&self.nodes[at], &self.nodes[gone]);
            // Who was not linked just then has to notice.
            let told = node.up
                && node.honest()
                && node.links.get(&gone).is_some_and(|conn| conn.life == life && conn.since < since);
            let same = node
                .own
                .directory
                .get(&other.id)
                .is_some_and(|e| e.record.version.incarnation == other.version.incarnation);
            if told && other.honest() && same && self.side(at) == self.side(gone) && self.sees(at, gone) {
                self.breaks(format!("node {at} still sees node {gone}, which said goodbye at {since}"));
            }
        }
    }

    pub(super) fn noticed(&mut self, dead: usize, life: u32, since: Millis) {
        if self.nodes[dead].up || self.nodes[dead].life != life {
            return;
        }
        for at in 0..self.nodes.len() {
            let node = &self.nodes[at];
            // Who was cut off meanwhile did not hear, and who came later has its own time.
            let there = node.up && node.honest() && node.booted < since;
            if there && self.sees(at, dead) && (self.shaken < since || self.plan.nodes <= FULL_WATCH) {
                let health = node.own.suspicion.health(&self.nodes[dead].id);
                self.late.push((at, dead));
                if self.plan.nodes <= FULL_WATCH {
                    self.breaks(format!("node {at} still sees node {dead}, dead since {since} ({health:?})"));
                }
            }
        }
        self.deaths += 1;
    }

    /// Whether `at` would route to `node`: its record stands, and it is not doubted.
    pub(super) fn sees(&self, at: usize, node: usize) -> bool {
        let id = &self.nodes[node].id;
        let health = self.nodes[at].own.suspicion.health(id);
        let all = self.nodes[at].own.directory.len() <= FULL_WATCH;
        let well = match health {
            Some(health) => health == Health::Alive,
            None => !all,
        };
        self.nodes[at].is_member(node) && (well || at == node)
    }

    /// `at` has declared `node` dead: it must have had a reason.
    pub(super) fn declared(&mut self, at: usize, node: usize) {
        let (own, other) = (&self.nodes[at], &self.nodes[node]);
        let steady = self.shaken.max(own.booted).max(other.booted);
        let reason = !other.up || !self.reachable(at, node) || self.now().since(steady) < STEADY;
        if reason || !own.honest() || !other.honest() || own.banned.contains_key(&node) {
            return;
        }
        self.wrong += 1;
        if self.plan.nodes <= FULL_WATCH {
            self.breaks(format!("node {at} declares node {node} dead, which was there for {STEADY}"));
        }
    }

    /// After the calm all views are the truth, and all agree on every lease.
    pub(super) fn at_the_end(&mut self) {
        let running: Vec<usize> = (0..self.nodes.len()).filter(|at| self.nodes[*at].up).collect();
        let honest: Vec<usize> = running.iter().copied().filter(|at| self.nodes[*at].honest()).collect();
        for &at in &honest {
            if let Some(what) = self.view_is_wrong(at) {
                return self.breaks(what);
            }
            if !self.watches_rightly(at) {
                return self.breaks(format!("node {at} watches others than it should"));
            }
        }
        for model in 0..self.plan.models {
            if let Some(what) = self.leases_are_wrong(model, &honest) {
                return self.breaks(what);
            }
        }
    }

    fn view_is_wrong(&self, at: usize) -> Option<String> {
        for (other, node) in self.nodes.iter().enumerate() {
            // A late or lost answer may leave a doubt for a moment.
            let accused = self.plan.liars.contains(&Lying::Accuses);
            let slow = node.up && (self.plan.slow > 0 || self.plan.loss > 0 || accused);
            let doubts = matches!(self.nodes[at].own.suspicion.health(&node.id), Some(Health::Suspect { .. }));
            let sees = self.sees(at, other) || (slow && doubts && self.nodes[at].is_member(other));
            if node.expelled && self.nodes[at].is_member(other) && self.is_told(other) {
                return Some(format!("node {at} still believes node {other}, which was expelled"));
            }
            if !node.honest() {
                continue;
            }
            let health = self.nodes[at].own.suspicion.health(&node.id);
            let standing = self.nodes[at].is_member(other);
            if node.up != sees {
                let there = if node.up { "runs" } else { "is dead" };
                return Some(format!(
                    "node {at} is wrong on node {other}, which {there}: {standing}, {health:?}; refused: {:?}",
                    self.nodes[at].own.directory.refused()
                ));
            }
            let fresh = !node.up || self.now().since(node.said_at) < self.lag();
            let known = self.nodes[at].own.directory.get(&node.id).map(|entry| entry.record.version);
            let newest = node.said.keys().rfind(|version| version.incarnation == node.version.incarnation);
            if !fresh && known != newest.copied() {
                return Some(format!("node {at} knows {known:?} of node {other}, which says {newest:?}"));
            }
        }
        None
    }

    /// Whether a running honest node knows that `node`, or who let it in, was expelled. One may take the news with it.
    fn is_told(&self, node: usize) -> bool {
        let taken_back = |ids: [usize; 2], by: &Node| {
            ids.iter().any(|id| by.own.directory.revocations().expels(&self.nodes[*id].id))
        };
        let mut running = self.nodes.iter().filter(|other| other.up && other.honest());
        running.any(|other| taken_back([node, Lab::issuer(node)], other))
    }

    fn lag(&self) -> Millis {
        if self.plan.nodes <= FULL_WATCH { SPREAD } else { Millis(SPREAD.0 * 3) }
    }

    fn leases_are_wrong(&self, model: usize, honest: &[usize]) -> Option<String> {
        let key = self.keys[model];
        let able: Vec<usize> = honest.iter().copied().filter(|at| self.nodes[*at].offers.contains(&model)).collect();
        // Who forges is not spoken with for a while, here and there at different times; its leases come and go.
        let comes_and_goes = |node: &Node| node.lie == Some(Lying::Forges) && node.offers.contains(&model);
        let mut nodes = self.nodes.iter();
        let usurped = nodes.any(|node| comes_and_goes(node) || node.lie.is_some_and(Lying::claims))
            && self.plan.calm < LOAD_BOUND;
        // So their places fall vacant in the calm too, and two may take one at once.
        let forged = self.nodes.iter().any(comes_and_goes);
        let agreed = |at: usize| {
            let since = self.nodes[at].claims.get(&key).map(|(.., since)| *since);
            !forged || since.is_some_and(|since| self.now().since(since) >= AGREED)
        };
        let mut holders: BTreeMap<u8, usize> = BTreeMap::new();
        for &at in able.iter().filter(|at| agreed(**at)) {
            for (_, claim) in self.nodes[at].own.placement.claims().filter(|(claimed, _)| *claimed == key) {
                if let Some(other) = holders.insert(claim.slot.0, at) {
                    return Some(format!("nodes {other} and {at} both hold place {} of model {model}", claim.slot.0));
                }
            }
        }
        let others = (0..self.nodes.len()).filter(|at| self.nodes[*at].up);
        let mut others = others.filter(|at| !self.nodes[*at].expelled || !self.is_told(*at));
        let held = others.any(|at| self.nodes[at].own.placement.claims().any(|(claimed, _)| claimed == key));
        let wanted = able.iter().any(|at| self.nodes[*at].own.placement.hosts_wanted(key) > 0);
        let settled = self.plan.failing == 0 && !self.recent(&able);
        if wanted && !held && settled && !usurped {
            return Some(format!("nobody holds model {model}, which is wanted, and {able:?} could"));
        }
        let views = able.iter().map(|at| {
            let mut leases = self.nodes[*at].own.placement.leases(key, self.clock(*at).local);
            leases.iter_mut().for_each(|lease| lease.claim.phase = Phase::Serving);
            (*at, leases)
        });
        let views: Vec<(usize, Vec<Lease>)> = views.collect();
        let differ = views.windows(2).find(|pair| pair[0].1 != pair[1].1);
        let differ = differ.filter(|_| settled && !usurped);
        differ.map(|pair| format!("nodes {} and {} disagree on model {model}: {pair:?}", pair[0].0, pair[1].0))
    }

    /// Whether a claim may still be under way.
    fn recent(&self, able: &[usize]) -> bool {
        able.iter().any(|at| self.now().since(self.nodes[*at].said_at) < Millis(500) && self.plan.nodes > FULL_WATCH)
    }
}

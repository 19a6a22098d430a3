//! A cluster of placement machines, played from a seed; must not know what must hold (that is `check`).

use std::{collections::BTreeMap, rc::Rc};

use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use super::{
    Fault, Run, Scenario, Violation,
    agenda::Agenda,
    check::Laws,
    node::{Clock, Published, SimNode, Version},
    trace::Trace,
};
use crate::{
    identity::NodeId,
    placement::{Effect, Input, ModelKey, Placement, Weight},
    time::Millis,
};

/// Push-pull repair happens this often at each node. Unit: milliseconds. Origin: iroh.md 6.3.
const REPAIR: u64 = 2_000;
/// A death, or a cut, is noticed between these. Unit: milliseconds. Origin: issue 3, within 3 s.
const NOTICE: std::ops::Range<u64> = 1_000..3_000;
/// A load takes between these. Unit: milliseconds.
const LOADING: std::ops::Range<u64> = 100..3_000;

#[derive(Clone, Debug)]
enum Event {
    Fault(usize),
    Boot { node: usize, start: u32 },
    Heard { to: usize, start: u32, from: usize, word: Rc<Published> },
    Repair { node: usize, start: u32 },
    Noticed { by: usize, start: u32, of: usize, version: Version, cut: u64 },
    Forgiven { by: usize, start: u32, of: usize },
    Asked { node: usize, start: u32, model: usize, rate: u64 },
    LoadEnded { node: usize, start: u32, model: ModelKey, well: bool },
    Drained { node: usize, start: u32, model: ModelKey },
    Wake { node: usize, start: u32 },
    Leave { node: usize, start: u32 },
    Inspect,
}

/// The world.
pub(super) struct World {
    seed: u64,
    rng: ChaCha8Rng,
    agenda: Agenda<Event>,
    trace: Trace,
    pub(super) scenario: Scenario,
    pub(super) nodes: Vec<SimNode>,
    pub(super) keys: Vec<ModelKey>,
    /// Who has which model's files.
    pub(super) able: Vec<Vec<usize>>,
    /// The true demand by model, requests per 1000 seconds.
    pub(super) demand: Vec<u64>,
    /// Which side each node is on: a bit of the mask; `None` while the world is one.
    pub(super) cut: Option<u64>,
    cuts: u64,
    moves: u64,
    deliveries: u64,
}

/// Plays `scenario` from `seed`, and the calm after it.
///
/// # Errors
/// The first law that is broken.
pub fn run(scenario: &Scenario, seed: u64) -> Result<Run, Box<Violation>> {
    let mut world = World::new(scenario.clone(), seed);
    let mut laws = Laws::new(&world);
    let end = scenario.trouble + Scenario::CALM;
    while let Some(event) = world.agenda.next(end) {
        let inspect = matches!(event, Event::Inspect);
        let touched = world.play(event);
        let broken = touched.and_then(|node| laws.after_step(&mut world, node));
        let broken = broken.or_else(|| inspect.then(|| laws.inspect(&world)).flatten());
        if let Some(what) = broken {
            return Err(world.trace.violation(seed, world.now(), what));
        }
    }
    if let Some(what) = laws.at_the_end(&world) {
        return Err(world.trace.violation(seed, world.now(), what));
    }
    Ok(Run { trace: world.trace.hash(), steps: world.trace.steps(), moves: world.moves, deliveries: world.deliveries })
}

/// Plays the small world that `seed` draws.
///
/// # Errors
/// The first law that is broken.
pub fn run_small(seed: u64) -> Result<Run, Box<Violation>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    run(&Scenario::small(&mut rng), seed)
}

/// Plays a world of `nodes` for so many minutes of trouble.
///
/// # Errors
/// The first law that is broken.
pub fn run_large(nodes: usize, minutes: u64, seed: u64) -> Result<Run, Box<Violation>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    run(&Scenario::large(nodes, minutes, &mut rng), seed)
}

impl World {
    fn new(scenario: Scenario, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x5EED);
        let keys = (0..scenario.models).map(|model| ModelKey(*blake3::hash(&model.to_le_bytes()).as_bytes())).collect();
        let able: Vec<Vec<usize>> = (0..scenario.models)
            .map(|_| rand::seq::index::sample(&mut rng, scenario.nodes, scenario.able).into_vec())
            .collect();
        let mut nodes: Vec<SimNode> = (0..scenario.nodes).map(|index| new_node(index, &scenario, &mut rng)).collect();
        for (model, holders) in able.iter().enumerate() {
            for &node in holders {
                nodes[node].models.push(model);
                nodes[node].peers.extend(holders.iter().copied().filter(|peer| *peer != node));
            }
        }
        let mut agenda = Agenda::new();
        for (index, node) in nodes.iter_mut().enumerate() {
            node.peers.sort_unstable();
            node.peers.dedup();
            agenda.put(Millis(rng.random_range(0..2_000)), Event::Boot { node: index, start: 1 });
        }
        for (index, (at, _)) in scenario.faults.iter().enumerate() {
            agenda.put(*at, Event::Fault(index));
        }
        agenda.put(Millis(500), Event::Inspect);
        let demand = vec![0; scenario.models];
        let trace = Trace::new("small_clusters_keep_every_law");
        Self {
            seed,
            rng,
            agenda,
            trace,
            scenario,
            nodes,
            keys,
            able,
            demand,
            cut: None,
            cuts: 0,
            moves: 0,
            deliveries: 0,
        }
    }

    pub(super) fn now(&self) -> Millis {
        self.agenda.now()
    }

    pub(super) fn linked(&self, a: usize, b: usize) -> bool {
        self.side(a) == self.side(b)
    }

    /// Which side of a partition a node is on; everybody is on side 0 without one.
    pub(super) fn side(&self, node: usize) -> u64 {
        self.cut.map_or(0, |mask| (mask.rotate_right(node as u32 % 64) ^ (node as u64 / 64)) & 1)
    }

    fn current(&self, node: usize, start: u32) -> bool {
        self.nodes[node].up && self.nodes[node].start == start
    }

    /// Plays one event; says which node's machine was touched.
    fn play(&mut self, event: Event) -> Option<usize> {
        match event {
            Event::Fault(index) => {
                let (_, fault) = self.scenario.faults[index];
                return self.befall(fault);
            }
            Event::Inspect => {
                self.put_in(500, Event::Inspect);
                return None;
            }
            Event::Boot { node, start } if self.nodes[node].start < start && !self.nodes[node].up => {
                self.boot(node, start);
                return Some(node);
            }
            Event::Boot { .. } => return None,
            _ => {}
        }
        let (node, start) = whose(&event)?;
        if !self.current(node, start) {
            return None;
        }
        match event {
            Event::Heard { from, word, .. } => self.heard(node, from, &word),
            Event::Repair { .. } => self.repair(node),
            Event::Noticed { of, version, cut, .. } => self.noticed(node, of, version, cut),
            Event::Forgiven { of, .. } => {
                self.nodes[node].dead.remove(&of);
            }
            Event::Asked { model, rate, .. } => {
                let key = self.keys[model];
                self.tell(node, "asked", rate, Input::Demand(key, rate as f64 / 1000.0));
            }
            Event::LoadEnded { model, well, .. } => {
                self.nodes[node].loading.remove(&model);
                let input = if well { Input::Loaded(model) } else { Input::Failed(model) };
                self.tell(node, "load ended", u64::from(well), input);
            }
            Event::Drained { model, .. } => self.tell(node, "drained", 0, Input::Drained(model)),
            Event::Wake { .. } => {
                if self.nodes[node].wake == Some(self.now()) {
                    self.nodes[node].wake = None;
                    self.tell(node, "wake", 0, Input::Wake);
                }
            }
            Event::Leave { .. } => self.stop(node),
            Event::Fault(_) | Event::Boot { .. } | Event::Inspect => {}
        }
        Some(node)
    }

    fn befall(&mut self, fault: Fault) -> Option<usize> {
        let now = self.now();
        match fault {
            Fault::Crash(node) if self.nodes[node].up => {
                self.trace.note(now, node, "crash", 0);
                self.stop(node);
            }
            Fault::Restart(node) if !self.nodes[node].up => {
                let start = self.nodes[node].start + 1;
                self.agenda.put(now, Event::Boot { node, start });
            }
            Fault::Drain(node) if self.nodes[node].up && !self.nodes[node].leaving => {
                self.nodes[node].leaving = true;
                self.tell(node, "drain", 0, Input::Drain);
                let start = self.nodes[node].start;
                self.put_in(5_000, Event::Leave { node, start });
                return Some(node);
            }
            Fault::Partition(mask) => self.separate(Some(mask)),
            Fault::Heal => self.separate(None),
            Fault::Demand(model, rate) => {
                self.demand[model] = rate;
                self.trace.note(now, model, "demand", rate);
                for node in self.able[model].clone() {
                    let start = self.nodes[node].start;
                    let after = self.rng.random_range(0..2_000);
                    self.put_in(after, Event::Asked { node, start, model, rate });
                }
            }
            Fault::Crash(_) | Fault::Restart(_) | Fault::Drain(_) => {}
        }
        None
    }

    fn boot(&mut self, index: usize, start: u32) {
        let now = self.now();
        self.trace.note(now, index, "boot", u64::from(start));
        let drift = self.scenario.drift;
        let rate = self.rng.random_range(1000 - drift..=1000 + drift);
        let origin = self.rng.random_range(0..1_000_000);
        let node = &mut self.nodes[index];
        node.clock = Clock { origin, rate };
        node.start = start;
        node.sequence = 0;
        node.up = true;
        node.leaving = false;
        node.machine = Placement::new(node.id, node.clock.local(now));
        node.known.clear();
        node.dead.clear();
        node.loading.clear();
        node.terms.clear();
        node.claims.clear();
        node.published = None;
        node.wake = None;
        let weight = node.weight;
        for model in node.models.clone() {
            let key = self.keys[model];
            self.tell(index, "offer", model as u64, Input::Offer { model: key, pinned: false, weight });
            let rate = self.demand[model];
            self.tell(index, "asked", rate, Input::Demand(key, rate as f64 / 1000.0));
        }
        let first = self.rng.random_range(0..REPAIR);
        self.put_in(first, Event::Repair { node: index, start });
    }

    /// A node is no more; its peers notice in their time.
    fn stop(&mut self, index: usize) {
        self.nodes[index].up = false;
        let version = self.nodes[index].version();
        for by in self.nodes[index].peers.clone() {
            self.will_notice(by, index, version);
        }
    }

    fn will_notice(&mut self, by: usize, of: usize, version: Version) {
        let (start, cut, after) = (self.nodes[by].start, self.cuts, self.rng.random_range(NOTICE));
        self.put_in(after, Event::Noticed { by, start, of, version, cut });
    }

    fn separate(&mut self, mask: Option<u64>) {
        self.trace.note(self.now(), 0, "cut", mask.unwrap_or_default());
        self.cut = mask;
        self.cuts += 1;
        for by in 0..self.nodes.len() {
            for of in self.nodes[by].peers.clone() {
                if !self.linked(by, of) {
                    let version = self.nodes[of].version();
                    self.will_notice(by, of, version);
                } else if self.nodes[of].up {
                    let (start, after) = (self.nodes[by].start, self.rng.random_range(0..REPAIR));
                    self.put_in(after, Event::Forgiven { by, start, of });
                }
            }
        }
    }

    /// `by` has found that `of` is silent: it died, or the cut of that time still stands.
    fn noticed(&mut self, by: usize, of: usize, version: Version, cut: u64) {
        let other = &self.nodes[of];
        let died = !other.up || other.start > version.0;
        let apart = !self.linked(by, of) && cut == self.cuts;
        if !died && !apart {
            return;
        }
        let last = if died { (version.0, u64::MAX) } else { version };
        let node = &mut self.nodes[by];
        if node.known.get(&of).is_some_and(|word| word.version > last) {
            return;
        }
        node.known.remove(&of);
        node.dead.insert(of, last);
        let id = self.nodes[of].id;
        self.tell(by, "gone", of as u64, Input::Gone(id));
    }

    fn heard(&mut self, to: usize, from: usize, word: &Rc<Published>) {
        if !self.linked(to, from) || !self.nodes[to].is_news(from, word.version) {
            return;
        }
        self.deliveries += 1;
        self.nodes[to].dead.remove(&from);
        for (model, claim) in word.view.models.iter().filter_map(|said| Some((said.model, said.claim?))) {
            let highest = self.nodes[to].terms.entry((model, claim.slot)).or_default();
            *highest = claim.term.max(*highest);
        }
        self.nodes[to].known.insert(from, Rc::clone(word));
        self.tell(to, "heard", from as u64, Input::Peer(word.view.clone()));
        if !self.nodes[from].up || self.nodes[from].start != word.version.0 {
            // The word of a dead node, by way of one that has not noticed: its age will tell.
            self.will_notice(to, from, word.version);
        }
    }

    /// One round of push-pull with a random peer: both end up with the newer word on each node.
    fn repair(&mut self, node: usize) {
        let start = self.nodes[node].start;
        self.put_in(REPAIR, Event::Repair { node, start });
        let peers = &self.nodes[node].peers;
        if peers.is_empty() {
            return;
        }
        let other = peers[self.rng.random_range(0..peers.len())];
        if !self.nodes[other].up || !self.linked(node, other) {
            return;
        }
        for (from, to) in [(node, other), (other, node)] {
            let delay = self.delay(from, to);
            let start = self.nodes[to].start;
            let own = self.nodes[from].published.clone().map(|word| (from, word));
            let known = self.nodes[from].known.iter().map(|(of, word)| (*of, Rc::clone(word)));
            let interesting = |(of, word): &(usize, Rc<Published>)| {
                self.nodes[to].peers.binary_search(of).is_ok() && self.nodes[to].is_news(*of, word.version)
            };
            let news: Vec<_> = known.chain(own).filter(interesting).collect();
            for (of, word) in news {
                self.put_in(delay, Event::Heard { to, start, from: of, word });
            }
        }
    }

    fn publish(&mut self, index: usize) {
        self.nodes[index].published_at = self.now();
        let node = &mut self.nodes[index];
        node.sequence += 1;
        let word = Rc::new(Published { version: node.version(), view: node.word() });
        node.published = Some(Rc::clone(&word));
        for to in self.nodes[index].peers.clone() {
            if self.rng.random_range(0..1000) >= self.scenario.loss && self.linked(index, to) {
                let (delay, start) = (self.delay(index, to), self.nodes[to].start);
                self.put_in(delay, Event::Heard { to, start, from: index, word: Rc::clone(&word) });
            }
        }
    }

    fn delay(&mut self, a: usize, b: usize) -> u64 {
        let (least, most) = self.scenario.delay;
        let factor = if self.nodes[a].slow || self.nodes[b].slow { 20 } else { 1 };
        self.rng.random_range(least.0..=most.0) * factor
    }

    fn put_in(&mut self, after: u64, event: Event) {
        self.agenda.put(self.now() + Millis(after), event);
    }

    /// Gives a machine an input, does what it says, and sets its alarm.
    fn tell(&mut self, index: usize, what: &'static str, detail: u64, input: Input) {
        let now = self.now();
        self.trace.note(now, index, what, detail);
        let local = self.nodes[index].clock.local(now);
        self.nodes[index].machine.handle(input, local);
        let start = self.nodes[index].start;
        let mut announce = false;
        while let Some(effect) = self.nodes[index].machine.poll_effect() {
            match effect {
                Effect::Announce => announce = true,
                Effect::Load(model) => {
                    self.trace.note(now, index, "load", 0);
                    self.nodes[index].loading.insert(model);
                    let well = self.rng.random_range(0..1000) >= self.scenario.failing;
                    let after = self.rng.random_range(LOADING);
                    self.put_in(after, Event::LoadEnded { node: index, start, model, well });
                }
                Effect::StepDown { lease, .. } => {
                    self.trace.note(now, index, "step down", lease.claim.term.0);
                    let after = self.rng.random_range(0..2_000);
                    self.put_in(after, Event::Drained { node: index, start, model: lease.model });
                }
                Effect::Unload(_) => self.trace.note(now, index, "unload", 0),
            }
        }
        if announce {
            self.publish(index);
        }
        let node = &mut self.nodes[index];
        let wake = node.machine.next_wakeup().map(|at| node.clock.world(at).max(now + Millis(1)));
        if wake != node.wake {
            node.wake = wake;
            if let Some(at) = wake {
                self.agenda.put(at, Event::Wake { node: index, start });
            }
        }
    }

    /// Notes a claim that the laws have seen.
    pub(super) fn moved(&mut self, node: usize, term: u64) {
        self.moves += 1;
        self.trace.note(self.now(), node, "claim", term);
    }

    pub(super) fn moves(&self) -> u64 {
        self.moves
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }
}

fn whose(event: &Event) -> Option<(usize, u32)> {
    match event {
        Event::Heard { to, start, .. } => Some((*to, *start)),
        Event::Noticed { by, start, .. } | Event::Forgiven { by, start, .. } => Some((*by, *start)),
        Event::Repair { node, start }
        | Event::Asked { node, start, .. }
        | Event::LoadEnded { node, start, .. }
        | Event::Drained { node, start, .. }
        | Event::Wake { node, start }
        | Event::Leave { node, start } => Some((*node, *start)),
        Event::Fault(_) | Event::Boot { .. } | Event::Inspect => None,
    }
}

fn new_node(index: usize, scenario: &Scenario, rng: &mut ChaCha8Rng) -> SimNode {
    let id = NodeId(rng.random());
    let (liars, lie) = scenario.liars;
    SimNode {
        id,
        up: false,
        leaving: false,
        start: 0,
        sequence: 0,
        clock: Clock { origin: 0, rate: 1000 },
        slow: index >= liars && index < liars + scenario.slow,
        lie: (index < liars).then_some(lie),
        machine: Placement::new(id, Millis(0)),
        models: Vec::new(),
        weight: Weight(1 << rng.random_range(0..7)),
        peers: Vec::new(),
        known: BTreeMap::new(),
        dead: BTreeMap::new(),
        published: None,
        published_at: Millis(0),
        loading: Default::default(),
        terms: BTreeMap::new(),
        claims: BTreeMap::new(),
        wake: None,
    }
}

//! A whole mesh played from a seed: the directory, the failure detector, the placement and the demand of every node,
//! with real records, certificates and frames; must not know real time, sockets or threads.
//!
//! What is modelled here is what lies between the machines: connections that are dialled, idle out and are closed,
//! messages that are late, lost or overtake each other, clocks that differ, and gossip among neighbours where not
//! everybody is linked to everybody. All else is what a node runs. docs/mesh-simulation.md says what came out.

mod drive;
mod lab;
mod laws;
mod liar;
mod net;
mod node;
mod notary;
mod overlay;
mod plan;
mod play;
mod publish;
mod traffic;
mod warm;
mod watch;

use std::collections::{BTreeMap, VecDeque};

use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

pub use lab::Lab;
pub use plan::{Blow, Lying, Plan};
pub use traffic::{Purpose, Traffic};

use self::{
    lab::DAY,
    node::{Machines, Msg, Node},
    notary::Notary,
    overlay::{Item, Overlay},
    watch::Ring,
};
use super::{Run, Violation, agenda::Agenda, node::Clock, trace::Trace};
use crate::{
    demand::{DemandMeter, DemandView},
    directory::Directory,
    identity::{MeshId, NodeId, RevocationList, Revocations},
    placement::{ModelKey, Placement},
    record::{Memory, Version},
    suspicion::{Config, Suspicion},
    time::{Millis, Now},
};

#[derive(Clone, Debug)]
enum Event {
    Blow(usize),
    Boot { node: usize, life: u32 },
    Stop { node: usize, life: u32 },
    Deliver { from: usize, to: usize, life: u32, conn: u64, msg: Msg },
    Dialled { from: usize, to: usize, life: u32 },
    Closed { at: usize, peer: usize, conn: u64, gently: bool },
    Wake { node: usize, life: u32 },
    Second { node: usize, life: u32 },
    Loaded { node: usize, life: u32, model: ModelKey, well: bool },
    Drained { node: usize, life: u32, model: ModelKey },
    Name { node: usize, life: u32 },
    Missing { node: usize, life: u32, number: u32, tries: u32 },
    Noticed { node: usize, life: u32, since: Millis },
    Parted { node: usize, life: u32, since: Millis },
    Stand,
    Count(bool),
}

struct World {
    seed: u64,
    rng: ChaCha8Rng,
    agenda: Agenda<Event>,
    trace: Trace,
    plan: Plan,
    lab: Lab,
    notary: Notary,
    nodes: Vec<Node>,
    /// By the beginning of each id.
    index: BTreeMap<u64, usize>,
    ring: Ring,
    keys: Vec<ModelKey>,
    list: RevocationList,
    cut: Option<Blow>,
    /// The last cut or heal.
    shaken: Millis,
    conns: u64,
    items: VecDeque<Item>,
    items_gone: u32,
    item_ids: BTreeMap<[u8; 32], u32>,
    broken: Option<String>,
    moves: u64,
    deliveries: u64,
    deaths: u64,
    late: Vec<(usize, usize)>,
    wrong: u64,
    counted: Traffic,
    most: Traffic,
    /// Messages by purpose, since somebody was told.
    sent: [u64; 5],
}

/// A run, and what it measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What happened.
    pub run: Run,
    /// What all nodes sent while it was counted.
    pub traffic: Traffic,
    /// What the node sent that sent most.
    pub most: Traffic,
    /// How long that was.
    pub counted: Millis,
    /// Deaths that should have been noticed, and how often a node had not when its time was over.
    pub deaths: u64,
    /// See [`Outcome::deaths`].
    pub unnoticed: u64,
    /// How often a node was declared dead though it had been there for long. 0 in small meshes, or the run fails.
    pub wrong: u64,
}

/// How far a run is, once a second of the world's.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// The world's time.
    pub now: Millis,
    /// When it ends.
    pub end: Millis,
    /// Events so far.
    pub steps: u64,
    /// What all nodes sent since the last time, in the order of [`Purpose::ALL`]: messages.
    pub sent: [u64; 5],
    /// Connections that both ends of which were told of, so far.
    pub links: u64,
    /// Deaths so far, see [`Outcome::deaths`].
    pub deaths: u64,
    /// See [`Outcome::wrong`].
    pub wrong: u64,
}

/// Plays the small mesh that `seed` draws.
///
/// # Errors
/// The first law that is broken.
pub fn run_small(lab: &Lab, seed: u64) -> Result<Outcome, Box<Violation>> {
    let plan = Plan::small(&mut ChaCha8Rng::seed_from_u64(seed));
    run(lab, plan, seed)
}

/// Plays a mesh of `nodes` through so many seconds of trouble, and says each second how far it is: the biggest take half
/// an hour.
///
/// # Errors
/// The first law that is broken.
pub fn run_large(
    lab: &Lab,
    nodes: usize,
    seconds: u64,
    seed: u64,
    tell: &mut dyn FnMut(&Progress),
) -> Result<Outcome, Box<Violation>> {
    let plan = Plan::large(nodes, seconds, &mut ChaCha8Rng::seed_from_u64(seed));
    World::new(lab.clone(), plan, seed).run(tell)
}

/// Plays `plan` from `seed`, and the calm after it.
///
/// # Errors
/// The first law that is broken.
pub fn run(lab: &Lab, plan: Plan, seed: u64) -> Result<Outcome, Box<Violation>> {
    World::new(lab.clone(), plan, seed).run(&mut |_| {})
}

impl World {
    fn new(lab: Lab, plan: Plan, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x5EED);
        let keys: Vec<ModelKey> = (0..plan.models).map(|model| publish::identity(model).key()).collect();
        let able: Vec<Vec<usize>> = (0..plan.models)
            .map(|_| rand::seq::index::sample(&mut rng, plan.nodes, plan.able.min(plan.nodes)).into_vec())
            .collect();
        let notary = Notary::default();
        let mut nodes = Vec::with_capacity(plan.nodes);
        for number in 0..plan.nodes.min(lab.len()) {
            nodes.extend(new_node(number, &lab, &plan, &notary, &mut rng));
        }
        for (model, able) in able.iter().enumerate() {
            able.iter().for_each(|node| nodes[*node].offers.push(model));
        }
        let ids: Vec<NodeId> = nodes.iter().map(|node| node.id).collect();
        let mut agenda = Agenda::new();
        for node in 0..nodes.len() {
            agenda.put(Millis(rng.random_range(0..1_000)), Event::Boot { node, life: 1 });
        }
        for (index, (at, _)) in plan.blows.iter().enumerate() {
            agenda.put(*at, Event::Blow(index));
        }
        if plan.warm {
            agenda.put(warm::STANDS, Event::Stand);
        }
        agenda.put(plan.counted.0, Event::Count(true));
        agenda.put(plan.counted.1, Event::Count(false));
        let mesh = nodes.first().map_or(MeshId([0; 32]), |node| MeshId::of(&node.chain.root));
        Self {
            seed,
            rng,
            agenda,
            trace: Trace::new(match plan.nodes {
                0..100 => "a_seed_of_small_meshes",
                100..1_000 => "a_hundred_nodes_agree_through_trouble",
                1_000..10_000 => "--release --run-ignored all a_thousand_nodes_agree_through_trouble",
                _ => "--release --run-ignored all ten_thousand_nodes_agree_through_trouble",
            }),
            plan,
            lab,
            notary,
            index: ids.iter().enumerate().map(|(number, id)| (beginning(id), number)).collect(),
            ring: Ring::new(&ids),
            nodes,
            keys,
            list: RevocationList::empty(mesh),
            cut: None,
            shaken: Millis(0),
            conns: 0,
            items: VecDeque::new(),
            items_gone: 0,
            item_ids: BTreeMap::new(),
            broken: None,
            moves: 0,
            deliveries: 0,
            deaths: 0,
            late: Vec::new(),
            wrong: 0,
            counted: Traffic::default(),
            most: Traffic::default(),
            sent: [0; 5],
        }
    }

    fn run(mut self, tell: &mut dyn FnMut(&Progress)) -> Result<Outcome, Box<Violation>> {
        let end = self.plan.trouble + self.plan.calm;
        let mut told = Millis(0);
        while let Some(event) = self.agenda.next(end) {
            if self.now() >= told + Millis::secs(1) {
                told = Millis(self.now().0 / 1000 * 1000);
                tell(&self.progress(end));
            }
            if let Some(node) = self.play(event) {
                self.finish(node);
                self.after_step(node);
            }
            if let Some(what) = self.broken.take() {
                return Err(self.trace.violation(self.seed, self.now(), what));
            }
        }
        self.at_the_end();
        if let Some(what) = self.broken.take() {
            return Err(self.trace.violation(self.seed, self.now(), what));
        }
        let (trace, steps) = (self.trace.hash(), self.trace.steps());
        Ok(Outcome {
            run: Run { trace, steps, moves: self.moves, deliveries: self.deliveries },
            traffic: self.counted,
            most: self.most,
            counted: self.plan.counted.1 - self.plan.counted.0,
            deaths: self.deaths,
            unnoticed: self.late.len() as u64,
            wrong: self.wrong,
        })
    }

    fn progress(&mut self, end: Millis) -> Progress {
        Progress {
            now: self.now(),
            end,
            steps: self.trace.steps(),
            sent: std::mem::take(&mut self.sent),
            links: self.conns,
            deaths: self.deaths,
            wrong: self.wrong,
        }
    }

    fn now(&self) -> Millis {
        self.agenda.now()
    }

    fn put_in(&mut self, after: Millis, event: Event) {
        self.agenda.put(self.agenda.now() + after, event);
    }

    /// Whether `at` has files of a model of which `node` has, or says that it has.
    fn shares(&self, at: usize, node: usize) -> bool {
        let (own, other) = (&self.nodes[at], &self.nodes[node]);
        let says = other.lie.is_some_and(Lying::claims);
        says || own.offers.iter().any(|model| other.offers.contains(model))
    }
}

fn beginning(id: &NodeId) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&id.0[..8]);
    u64::from_be_bytes(bytes)
}

fn new_node(number: usize, lab: &Lab, plan: &Plan, notary: &Notary, rng: &mut ChaCha8Rng) -> Option<Node> {
    let (key, id, chain) = lab.member(number)?.clone();
    let mesh = MeshId::of(&chain.root);
    let skew = plan.skew;
    let wall = DAY + rng.random_range(0..=2 * skew) - skew;
    let honest = plan.honest();
    let size = 1 << rng.random_range(0..3);
    Some(Node {
        own: Machines::new(id, Revocations::new(mesh), notary, 0, Now::default()),
        id,
        key,
        chain,
        lie: number.checked_sub(honest).and_then(|liar| plan.liars.get(liar).copied()),
        slow: number < honest && number + plan.slow >= honest,
        door: number.is_multiple_of(plan.door_each),
        expelled: false,
        up: false,
        leaving: false,
        life: 0,
        booted: Millis(0),
        clock: Clock { origin: 0, rate: 1000 },
        wall,
        version: Version::default(),
        next_record: Millis(0),
        dirty: false,
        wake: None,
        memory: Memory { budget: size << 34, free: size << 33, bandwidth: 100 << 30 },
        offers: Vec::new(),
        loading: Default::default(),
        terms: Default::default(),
        claims: Default::default(),
        links: Default::default(),
        dialing: Default::default(),
        banned: Default::default(),
        few: false,
        watched: Default::default(),
        members: vec![0; plan.nodes.div_ceil(64)],
        overlay: Overlay::default(),
        said: Default::default(),
        said_at: Millis(0),
        traffic: Traffic::default(),
    })
}

impl Machines {
    /// A process that has just started, with the revocations that lie on its disk.
    fn new(id: NodeId, list: Revocations, notary: &Notary, seed: u64, now: Now) -> Self {
        Self {
            directory: Directory::with_judge(id, list, notary.clone(), seed, now.local),
            suspicion: Suspicion::new(id, now.unix.0, Config::default(), seed),
            placement: Placement::new(id, now.local),
            meter: DemandMeter::default(),
            demand: DemandView::default(),
        }
    }
}

//! What a world consists of and what befalls it; must not know how it is played.

use rand::{RngExt, rngs::ChaCha8Rng};

use crate::time::Millis;

/// Something that befalls the world.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// A node dies without a word.
    Crash(usize),
    /// A dead node comes back, with nothing in memory.
    Restart(usize),
    /// A node is asked to stop, and leaves when it has.
    Drain(usize),
    /// Every node falls on one of two sides, by its index's bits under this mask.
    Partition(u64),
    /// One side again.
    Heal,
    /// The demand for a model, requests per 1000 seconds.
    Demand(usize, u64),
}

/// How a node lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// It says it could take anything.
    Heavy,
    /// It claims every first place under the highest term there is.
    Usurper,
    /// It claims every first place, and loads for ever.
    EverLoading,
}

/// A world.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// Nodes.
    pub nodes: usize,
    /// Models.
    pub models: usize,
    /// Nodes with each model's files.
    pub able: usize,
    /// Broadcasts lost, per thousand.
    pub loss: u32,
    /// Loads that fail, per thousand.
    pub failing: u32,
    /// A message takes between these.
    pub delay: (Millis, Millis),
    /// Nodes whose messages take twenty times as long.
    pub slow: usize,
    /// Nodes that lie: this many, each in this way.
    pub liars: (usize, Lie),
    /// Local clocks run up to so many thousandths fast or slow.
    pub drift: u64,
    /// When what befalls.
    pub faults: Vec<(Millis, Fault)>,
    /// Length of the troubled part. A calm of [`Scenario::CALM`] follows, in which everybody must come to agree.
    pub trouble: Millis,
}

impl Scenario {
    /// The calm: the slowest settling (a cold restart, a load, a stagger) twice over. Unit: seconds.
    pub const CALM: Millis = Millis::secs(60);
    /// In this last part of the calm nothing may move.
    pub const STILL: Millis = Millis::secs(20);

    /// A small world of everything, drawn from `rng`.
    pub fn small(rng: &mut ChaCha8Rng) -> Self {
        let nodes = rng.random_range(3..=9);
        let models = rng.random_range(1..=3);
        let lie = [Lie::Heavy, Lie::Usurper, Lie::EverLoading][rng.random_range(0..3)];
        let mut scenario = Self {
            nodes,
            models,
            able: rng.random_range(2..=nodes),
            loss: rng.random_range(0..=300),
            failing: [0, 0, 100][rng.random_range(0..3)],
            delay: (Millis(1), Millis(rng.random_range(2..=200))),
            slow: rng.random_range(0..=1),
            liars: (usize::from(rng.random_ratio(1, 4)), lie),
            drift: rng.random_range(0..=20),
            faults: Vec::new(),
            trouble: Millis::secs(60),
        };
        scenario.starting_demand(rng);
        let mut at = 5_000;
        while at < scenario.trouble.0 {
            scenario.trouble_at(Millis(at), rng);
            at += rng.random_range(500..12_000);
        }
        scenario.sort();
        scenario
    }

    /// A world of `nodes`, 1 % of which crash and come back each minute, with 5 % loss, one partition and
    /// one liar in a hundred. Each model has 30 able nodes.
    pub fn large(nodes: usize, minutes: u64, rng: &mut ChaCha8Rng) -> Self {
        let trouble = Millis::secs(60 * minutes);
        let mut scenario = Self {
            nodes,
            models: (nodes / 20).max(1),
            able: nodes.min(30),
            loss: 50,
            failing: 10,
            delay: (Millis(5), Millis(700)),
            slow: nodes / 100,
            liars: (nodes / 100, Lie::Heavy),
            drift: 5,
            faults: Vec::new(),
            trouble,
        };
        scenario.starting_demand(rng);
        for _ in 0..(nodes as u64 * minutes).div_ceil(100) {
            let at = rng.random_range(10_000..trouble.0);
            let node = rng.random_range(0..nodes);
            scenario.faults.push((Millis(at), Fault::Crash(node)));
            scenario.faults.push((Millis(at + rng.random_range(500..20_000)), Fault::Restart(node)));
        }
        let cut = trouble.0 / 2;
        scenario.faults.push((Millis(cut), Fault::Partition(rng.random())));
        scenario.faults.push((Millis(cut + 15_000), Fault::Heal));
        scenario.sort();
        scenario
    }

    fn starting_demand(&mut self, rng: &mut ChaCha8Rng) {
        for model in 0..self.models {
            let rate = [200, 1_000, 3_000, 7_000][rng.random_range(0..4)];
            self.faults.push((Millis(rng.random_range(0..2_000)), Fault::Demand(model, rate)));
        }
    }

    fn trouble_at(&mut self, at: Millis, rng: &mut ChaCha8Rng) {
        let node = rng.random_range(0..self.nodes);
        let later = at + Millis(rng.random_range(100..15_000));
        match rng.random_range(0..10) {
            0..5 => {
                self.faults.push((at, Fault::Crash(node)));
                let long = Millis(if rng.random_ratio(1, 3) { 40_000 } else { 0 });
                self.faults.push((later + long, Fault::Restart(node)));
            }
            5 => self.faults.push((at, Fault::Drain(node))),
            6..8 => {
                self.faults.push((at, Fault::Partition(rng.random())));
                self.faults.push((later, Fault::Heal));
            }
            _ => {
                let model = rng.random_range(0..self.models);
                self.faults.push((at, Fault::Demand(model, rng.random_range(100..9_000))));
            }
        }
    }

    /// In the order of time; everything heals by the end of the trouble.
    fn sort(&mut self) {
        let end = self.trouble;
        self.faults.iter_mut().for_each(|(at, _)| *at = (*at).min(end));
        self.faults.push((end, Fault::Heal));
        self.faults.sort_by_key(|(at, _)| *at);
    }
}

//! What a mesh consists of and what befalls it; must not know how it is played.

use rand::{RngExt, rngs::ChaCha8Rng};

use crate::{placement::LOAD_BOUND, time::Millis};

/// Something that befalls the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// A node dies without a word.
    Kill(usize),
    /// It comes back with its key and nothing in memory; its wall clock has gone back by so much.
    Restart(usize, Millis),
    /// It drains, says goodbye and goes.
    Leave(usize),
    /// Every node falls on one of two sides, by its index's bit under this mask.
    Cut(u64),
    /// One node in so many is cut off from the others; these hear each other.
    CutOff(usize),
    /// One side again.
    Heal,
    /// The founder takes a node's membership back.
    Revoke(usize),
}

/// How a node lies, beside saying what any node says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lying {
    /// It claims to serve every model, and serves none.
    Serves,
    /// It claims every first place and loads for ever.
    Loads,
    /// The same under a new term every half minute, with a pause every minute.
    LoadsAnew,
    /// It says that it is idle and huge.
    Idle,
    /// It accuses the living, vouches for the dead, and asks without end.
    Accuses,
    /// It sends forged, altered and old records of others, and versions that never were.
    Forges,
}

impl Lying {
    /// Whether it claims places that it does not fill.
    pub fn claims(self) -> bool {
        matches!(self, Self::Serves | Self::Loads | Self::LoadsAnew)
    }
}

/// A mesh and its fate.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Nodes.
    pub nodes: usize,
    /// Models.
    pub models: usize,
    /// Nodes with each model's files.
    pub able: usize,
    /// One node in so many has users.
    pub door_each: usize,
    /// Messages lost, per thousand.
    pub loss: u32,
    /// Loads that fail, per thousand.
    pub failing: u32,
    /// A link takes between these, one way.
    pub delay: (u64, u64),
    /// A message takes up to so much longer, so that messages overtake each other.
    pub jitter: u64,
    /// Nodes whose words come up to [`Plan::SLOW`] late.
    pub slow: usize,
    /// Wall clocks are up to so many milliseconds off, either way.
    pub skew: u64,
    /// Local clocks run up to so many thousandths fast or slow.
    pub drift: u64,
    /// The last nodes lie, each in its way.
    pub liars: Vec<Lying>,
    /// When what befalls.
    pub blows: Vec<(Millis, Blow)>,
    /// End of the troubled part.
    pub trouble: Millis,
    /// The calm after it, in which all must come to agree.
    pub calm: Millis,
    /// The mesh stands already, and every node is told of all others at once.
    pub warm: bool,
    /// Traffic is counted between these.
    pub counted: (Millis, Millis),
}

impl Plan {
    /// How late a slow node's words are, at most: with the way there and back its answers come 1.5 s late.
    pub const SLOW: u64 = 1300;

    /// How far wall clocks are off, at most: two are then within [`crate::identity::SKEW`] of each other.
    pub const SKEW: u64 = 59_000;

    /// A small mesh of everything, drawn from `rng`.
    pub fn small(rng: &mut ChaCha8Rng) -> Self {
        let nodes = rng.random_range(3..=7);
        let lies = [Lying::Serves, Lying::Loads, Lying::LoadsAnew, Lying::Idle, Lying::Accuses, Lying::Forges];
        let lie = lies[rng.random_range(0..lies.len())];
        let mut plan = Self {
            nodes,
            models: rng.random_range(1..=2),
            able: rng.random_range(2..=nodes),
            door_each: 2,
            loss: [0, 50][rng.random_range(0..2)],
            failing: [0, 0, 0, 200][rng.random_range(0..4)],
            delay: (1, rng.random_range(2..=40)),
            jitter: rng.random_range(0..=40),
            slow: usize::from(rng.random_ratio(1, 4)),
            skew: [0, 50, Self::SKEW][rng.random_range(0..3)],
            drift: rng.random_range(0..=5),
            liars: vec![lie; usize::from(nodes > 3 && rng.random_ratio(1, 2))],
            blows: Vec::new(),
            trouble: Millis::secs(20),
            calm: Millis::secs(25),
            warm: false,
            counted: (Millis::secs(30), Millis::secs(45)),
        };
        let mut at = 3_000 + rng.random_range(0..3_000);
        while at < plan.trouble.0 {
            plan.blow(Millis(at), rng);
            at += rng.random_range(300..6_000);
        }
        plan.sort();
        plan
    }

    /// A mesh of `nodes` that stands already: 5 % loss, a hundredth of it killed and started again each minute, one
    /// slow and one lying node in a hundred, a tenth cut off for nine seconds, and one expelled.
    pub fn large(nodes: usize, seconds: u64, rng: &mut ChaCha8Rng) -> Self {
        let start = 12_000;
        let trouble = Millis(start + seconds * 1000);
        let kinds = [Lying::Idle, Lying::Accuses, Lying::Forges, Lying::Loads];
        let liars = (0..nodes / 100).map(|liar| kinds[liar % kinds.len()]).collect();
        let mut plan = Self {
            nodes,
            models: (nodes / 20).max(1),
            able: nodes.min(20),
            door_each: (nodes / 100).max(2),
            loss: 50,
            failing: 10,
            delay: (5, 50),
            jitter: 50,
            slow: nodes / 100,
            skew: 30_000,
            drift: 1,
            liars,
            blows: Vec::new(),
            trouble,
            // Above a thousand nodes a second of the mesh's takes ten of ours.
            calm: Millis::secs(if nodes > 1_000 { 12 } else { 40 }),
            warm: nodes > 100,
            counted: (Millis(start), trouble),
        };
        let honest = nodes - plan.liars.len();
        // Above a thousand nodes a hundred: what each of the many does about each of the few is what takes the time.
        let apart = 10.max(nodes / 100);
        plan.blows.push((Millis(start + 500), Blow::CutOff(apart)));
        plan.blows.push((Millis(start + 9_500), Blow::Heal));
        for _ in 0..(nodes as u64 * seconds).div_ceil(6_000) {
            let (at, node) = (rng.random_range(start + 10_000..trouble.0 - 4_000), rng.random_range(0..honest));
            plan.blows.push((Millis(at), Blow::Kill(node)));
            plan.blows.push((Millis(at + rng.random_range(500..20_000)), Blow::Restart(node, Millis(0))));
        }
        plan.blows.push((Millis(start + 5_000), Blow::Revoke(honest - 1)));
        plan.sort();
        plan
    }

    /// The same mesh, in which nothing befalls anybody.
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.blows.clear();
        self.liars.clear();
        self.slow = 0;
        self
    }

    /// A small mesh with such a liar, left alone for longer than anybody may load.
    pub fn patient(lie: Lying, rng: &mut ChaCha8Rng) -> Self {
        let small = Self::small(rng).quiet();
        let calm = Millis(LOAD_BOUND.0 + 30_000);
        Self { nodes: 4, models: 1, able: 4, failing: 0, liars: vec![lie], calm, ..small }
    }

    /// How many nodes at the beginning do not lie.
    pub fn honest(&self) -> usize {
        self.nodes - self.liars.len()
    }

    fn blow(&mut self, at: Millis, rng: &mut ChaCha8Rng) {
        let node = rng.random_range(0..self.honest());
        let later = at + Millis(rng.random_range(100..8_000));
        match rng.random_range(0..12) {
            0..6 => {
                self.blows.push((at, Blow::Kill(node)));
                if rng.random_ratio(3, 4) {
                    let back = [0, 0, 1_000, 8_000][rng.random_range(0..4)];
                    self.blows.push((later, Blow::Restart(node, Millis(back))));
                }
            }
            6 => {
                self.blows.push((at, Blow::Leave(node)));
                self.blows.push((later + Millis(2_000), Blow::Restart(node, Millis(0))));
            }
            7..11 => {
                self.blows.push((at, Blow::Cut(rng.random())));
                self.blows.push((later, Blow::Heal));
            }
            _ => self.blows.push((at, Blow::Revoke(rng.random_range(1..self.nodes)))),
        }
    }

    /// In the order of time; all is one again by the end of the trouble.
    fn sort(&mut self) {
        let end = self.trouble;
        self.blows.iter_mut().for_each(|(at, _)| *at = (*at).min(end));
        self.blows.push((end, Blow::Heal));
        self.blows.sort_by_key(|(at, _)| *at);
    }
}

//! The scheduler against random drivers: clients that come, leave, stop reading and go on, answers that end at any
//! token, steps that are refused or lost. The world below checks every plan as a strict decoder would.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};

use engine::{
    decoder::{Sampled, SeqId, StepPlan},
    scheduler::{LOOKAHEAD, Refusal, Scheduler, SchedulerLimits},
};
use mesh_proto::TokenId;
use proptest::prelude::*;

/// What the driver knows of one request, over all sequences that it had.
#[derive(Clone, Debug)]
struct Request {
    prompt: u32,
    most: u32,
    /// Tokens read.
    got: u32,
    /// Its answer ends after this many tokens, if `most` does not end it before.
    ends_after: u32,
    paused: bool,
}

/// What a decoder knows of one open sequence.
#[derive(Clone, Debug)]
struct Open {
    prompt: u32,
    prefilled: u32,
    chosen: u32,
}

#[derive(Clone, Debug)]
enum Act {
    Add { prompt: u32, most: u32, ends_after: u32 },
    Cancel(usize),
    Pause(usize),
    Resume(usize),
    Turn { cached: u32 },
    RefusedStep,
    LostStep,
    LostDevice,
}

struct World {
    scheduler: Scheduler,
    limits: SchedulerLimits,
    next: u64,
    requests: BTreeMap<SeqId, Request>,
    open: BTreeMap<SeqId, Open>,
    in_flight: VecDeque<StepPlan>,
    /// Requests that ended as they should, and tokens that they got and should have got.
    finished: u32,
}

impl World {
    fn new(limits: SchedulerLimits) -> Self {
        Self {
            scheduler: Scheduler::new(limits),
            limits,
            next: 0,
            requests: BTreeMap::new(),
            open: BTreeMap::new(),
            in_flight: VecDeque::new(),
            finished: 0,
        }
    }

    fn id(&mut self) -> SeqId {
        self.next += 1;
        SeqId(self.next)
    }

    fn pick(&self, index: usize) -> Option<SeqId> {
        let count = self.requests.len().max(1);
        self.requests.keys().nth(index % count).copied()
    }

    fn resubmit(&mut self, seqs: Vec<SeqId>) {
        for old in seqs {
            let request = self.requests.remove(&old).unwrap();
            self.open.remove(&old).expect("only open ones lose their place");
            let new = self.id();
            self.scheduler.resubmit(new, request.prompt + request.got, request.most - request.got).unwrap();
            if request.paused {
                self.scheduler.pause(new);
            }
            self.requests.insert(new, request);
        }
    }

    fn admit(&mut self, cached: u32) {
        // Families of prompts that begin alike, some of them further than others.
        let shared = |a: SeqId, b: SeqId| if a.0 % 3 == b.0 % 3 { 40 + (a.0 ^ b.0) as u32 % 160 } else { 20 };
        let admission = self.scheduler.admit(shared);
        self.resubmit(admission.preempt);
        for seq in admission.open {
            let request = &self.requests[&seq];
            let prompt = request.prompt + request.got;
            let prefilled = cached.min(prompt - 1);
            assert!(!request.paused, "nobody is opened whose client does not read");
            assert!(self.open.insert(seq, Open { prompt, prefilled, chosen: 0 }).is_none());
            self.scheduler.opened(seq, cached);
        }
        assert!(self.open.len() <= self.limits.max_running as usize);
    }

    /// Checks a plan against the decoder's contract, and carries it out.
    fn submit(&mut self) -> bool {
        let plan = self.scheduler.step();
        if plan.is_empty() {
            return false;
        }
        let mut named: Vec<SeqId> =
            plan.decode.iter().copied().chain(plan.prefill.iter().map(|chunk| chunk.seq)).collect();
        named.sort();
        named.dedup();
        assert_eq!(named.len(), plan.decode.len() + plan.prefill.len(), "once in a step");
        for seq in &plan.decode {
            let open = self.open.get_mut(seq).expect("open");
            assert_eq!(open.prefilled, open.prompt, "a row decodes after its prompt");
            open.chosen += 1;
        }
        let mut prefill = 0;
        for chunk in &plan.prefill {
            let open = self.open.get_mut(&chunk.seq).expect("open");
            assert!(chunk.len > 0);
            assert_eq!(chunk.start, open.prefilled, "pieces are contiguous");
            open.prefilled += chunk.len;
            assert!(open.prefilled <= open.prompt);
            assert_eq!(chunk.last, open.prefilled == open.prompt);
            open.chosen += u32::from(chunk.last);
            prefill += chunk.len;
        }
        assert!(prefill <= self.limits.step_tokens, "the step's budget");
        for seq in &named {
            let (open, request) = (&self.open[seq], &self.requests[seq]);
            assert!(!request.paused);
            assert!(open.prompt + open.chosen <= request.prompt + request.most, "past its last token");
            assert!(open.prompt + open.chosen <= self.limits.context_tokens, "past its context");
        }
        let kv: u64 = self.open.values().map(|open| u64::from(open.prefilled + open.chosen)).sum();
        assert!(kv * self.limits.kv_bytes_per_token <= self.limits.kv_budget_bytes, "the memory's budget");
        // Every open row that could run is in the step.
        for (seq, open) in &self.open {
            let request = &self.requests[seq];
            if open.prefilled == open.prompt && !request.paused && !named.contains(seq) {
                assert_eq!(open.prompt + open.chosen, request.prompt + request.most, "a row was left out");
            }
        }
        self.in_flight.push_back(plan);
        assert!(self.in_flight.len() <= LOOKAHEAD);
        true
    }

    fn collect(&mut self) {
        let Some(plan) = self.in_flight.pop_front() else { return };
        let ends = plan.prefill.iter().filter(|chunk| chunk.last).map(|chunk| chunk.seq);
        let sampled: Vec<Sampled> = plan
            .decode
            .iter()
            .copied()
            .chain(ends)
            .filter(|seq| self.open.contains_key(seq))
            .map(|seq| Sampled { seq, token: TokenId(0), odds: None })
            .collect();
        assert!(self.scheduler.collected(&sampled).is_empty());
        for Sampled { seq, .. } in sampled {
            let request = self.requests.get_mut(&seq).unwrap();
            request.got += 1;
            assert!(request.got <= request.most);
            if request.got == request.most || request.got == request.ends_after {
                self.end(seq);
                self.finished += 1;
            }
        }
    }

    fn end(&mut self, seq: SeqId) {
        let open = self.open.remove(&seq);
        assert_eq!(self.scheduler.end(seq), open.is_some());
        assert!(!self.scheduler.end(seq), "nothing is left of it");
        self.requests.remove(&seq);
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Add { prompt, most, ends_after } => {
                let seq = self.id();
                let ceiling = self.limits.ceiling_tokens();
                let places = self.limits.max_running + self.limits.max_waiting;
                match self.scheduler.add(seq, prompt, most) {
                    Ok(()) => {
                        assert!(prompt < ceiling);
                        let most = most.min(ceiling - prompt);
                        self.requests.insert(seq, Request { prompt, most, got: 0, ends_after, paused: false });
                    }
                    Err(Refusal::Busy { .. }) => assert!(self.requests.len() >= places as usize),
                    Err(Refusal::TooLong { .. }) => assert!(prompt >= ceiling),
                    Err(Refusal::Empty) => unreachable!("there are no empty requests here"),
                }
            }
            Act::Cancel(index) => {
                if let Some(seq) = self.pick(index) {
                    self.end(seq);
                }
            }
            Act::Pause(index) | Act::Resume(index) => {
                if let Some(seq) = self.pick(index) {
                    let paused = matches!(act, Act::Pause(_));
                    if paused {
                        self.scheduler.pause(seq)
                    } else {
                        self.scheduler.resume(seq)
                    }
                    self.requests.get_mut(&seq).unwrap().paused = paused;
                }
            }
            Act::Turn { cached } => {
                self.turn(cached);
            }
            Act::RefusedStep => {
                self.admit(0);
                let before = self.open.clone();
                if self.submit() {
                    self.in_flight.pop_back();
                    self.scheduler.withdraw();
                    self.open = before;
                }
            }
            Act::LostStep => {
                if self.in_flight.pop_front().is_some() {
                    let lost = self.scheduler.discard();
                    self.resubmit(lost);
                }
            }
            Act::LostDevice => {
                self.in_flight.clear();
                for seq in self.scheduler.lose_all() {
                    assert!(self.open.remove(&seq).is_some());
                    self.requests.remove(&seq);
                }
                assert!(self.open.is_empty());
            }
        }
        assert_eq!(self.scheduler.running() as usize, self.open.len());
        assert_eq!(self.scheduler.waiting() as usize, self.requests.len() - self.open.len());
        assert_eq!(self.scheduler.in_flight(), self.in_flight.len());
        assert!(self.scheduler.kv_bytes() <= self.limits.kv_budget_bytes);
    }

    /// One turn as the worker makes it.
    fn turn(&mut self, cached: u32) {
        self.admit(cached);
        let submitted = self.submit();
        if !submitted || self.in_flight.len() == LOOKAHEAD {
            self.collect();
        }
    }
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (1u32..220, 1u32..400, 1u32..600)
            .prop_map(|(prompt, most, ends_after)| Act::Add { prompt, most, ends_after }),
        1 => any::<usize>().prop_map(Act::Cancel),
        1 => any::<usize>().prop_map(Act::Pause),
        2 => any::<usize>().prop_map(Act::Resume),
        30 => (0u32..100).prop_map(|cached| Act::Turn { cached }),
        1 => Just(Act::RefusedStep),
        1 => Just(Act::LostStep),
    ]
}

fn limits() -> impl Strategy<Value = SchedulerLimits> {
    (1u32..6, 0u32..6, 1u32..200, 50u32..600, prop_oneof![Just(0u64), Just(3)], 100u64..1500).prop_map(
        |(max_running, max_waiting, step_tokens, context_tokens, kv_bytes_per_token, tokens)| SchedulerLimits {
            max_running,
            max_waiting,
            step_tokens,
            context_tokens,
            kv_bytes_per_token,
            kv_budget_bytes: tokens * 3,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Every plan keeps the contract, whatever happens, and when everybody reads again everybody ends.
    #[test]
    fn whatever_happens_plans_are_valid_and_everybody_ends(
        limits in limits(),
        acts in prop::collection::vec(act(), 1..400),
    ) {
        let mut world = World::new(limits);
        for act in &acts {
            world.act(act);
        }
        for seq in world.requests.keys().copied().collect::<Vec<_>>() {
            world.scheduler.resume(seq);
            world.requests.get_mut(&seq).unwrap().paused = false;
        }
        // The oldest moves by half a budget of its prompt, or by a token, in each turn; a preempted one repeats its
        // prompt. The bound below is far from tight; that there is one is the promise.
        let step = limits.step_tokens.div_ceil(2);
        let work: u32 = world.requests.values().map(|r| r.most + (r.prompt + r.most) / step + 8).sum();
        let bound = work * (1 + world.requests.len() as u32);
        for _ in 0..bound {
            if world.requests.is_empty() && world.in_flight.is_empty() {
                break;
            }
            world.turn(0);
        }
        prop_assert!(world.requests.is_empty(), "left after {bound} turns: {:?}", world.requests);
        prop_assert_eq!(world.scheduler.kv_bytes(), 0);
        prop_assert_eq!(world.scheduler.running() + world.scheduler.waiting(), 0);
    }

    /// A steady stream of short prompts does not keep a long one from its end, nor the other way round.
    #[test]
    fn a_long_prompt_ends_beside_any_stream_of_short_ones(
        step_tokens in 2u32..300,
        long in 500u32..3000,
        short in 1u32..64,
    ) {
        let limits = SchedulerLimits {
            max_running: 8, max_waiting: 8, step_tokens, context_tokens: 4000,
            kv_bytes_per_token: 1, kv_budget_bytes: 100_000,
        };
        let mut world = World::new(limits);
        world.act(&Act::Add { prompt: long, most: 1, ends_after: 1 });
        let first = world.pick(0).unwrap();
        let mut turns = 0;
        while world.requests.contains_key(&first) {
            for _ in 0..8 {
                world.act(&Act::Add { prompt: short, most: 3, ends_after: 3 });
            }
            world.act(&Act::Turn { cached: 0 });
            turns += 1;
            prop_assert!(turns <= long.div_ceil(step_tokens.div_ceil(2)) + 4, "starved for {turns} turns");
        }
        if short <= step_tokens / 4 {
            prop_assert!(world.finished > turns / 8, "{} short ones in {turns} turns", world.finished);
        }
    }

    /// A device that fails takes the open ones with it, and nothing else.
    #[test]
    fn after_a_lost_device_those_who_waited_run(acts in prop::collection::vec(act(), 1..60)) {
        let limits = SchedulerLimits {
            max_running: 3, max_waiting: 5, step_tokens: 64, context_tokens: 500,
            kv_bytes_per_token: 3, kv_budget_bytes: 3000,
        };
        let mut world = World::new(limits);
        for act in &acts {
            world.act(act);
        }
        let waiting = world.scheduler.waiting();
        world.act(&Act::LostDevice);
        prop_assert_eq!(world.requests.len(), waiting as usize);
        prop_assert_eq!(world.scheduler.kv_bytes(), 0);
    }
}

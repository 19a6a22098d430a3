//! Doors whose generations must outlive their hosts, played from a seed; must not know how elections go.
//!
//! The router, the breakers and the attempt machine are the real ones; hosts are modelled. They crash (with
//! and without a word), hang, drain, are cut off, stall, repeat or skip tokens, and one may serve another model
//! by the same name. Where one host stays well throughout, every answer must come whole; everywhere, no
//! token may be lost, repeated or of another model, and every request must end.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use super::{
    Run, Violation,
    agenda::Agenda,
    host::{Host, Job, Running, Vice, token},
    trace::Trace,
};
use crate::{
    ModelId,
    placement::ModelKey,
    record::Capabilities,
    routing::{
        Attempt, AttemptConfig, CONNECT, Choice, FIRST_EVENT, Failure, GiveUp, HEARTBEAT, Heard, PrefixChain, Step,
        Targets, TryNumber, Wish, route,
    },
    time::Millis,
};

/// Requests begin before this, and must have ended by [`END`].
const ASKING: u64 = 30_000;
/// The world's end: the last request, its stalls (20 s each, four in a row at most) and its wait for a take-over.
const END: Millis = Millis(ASKING + 150_000);

#[derive(Clone, Debug)]
enum Event {
    Ask { door: usize, request: usize, tokens: u32 },
    Wake { door: usize, request: usize },
    Open { host: usize, job: Job, from: u32, of: u32 },
    Reset { host: usize, job: Job },
    Beat { host: usize, start: u32, job: Job },
    Generate { host: usize, start: u32, job: Job },
    Frame { host: usize, job: Job, heard: Heard, tokens: Vec<u32> },
    Crash { host: usize, loud: bool },
    Restart { host: usize },
    Hang { host: usize, until: Millis },
    Drain { host: usize },
    Cut { door: usize, host: usize, until: Millis },
    Seen { door: usize, host: usize, listed: bool },
}

struct Request {
    attempt: Attempt,
    of: u32,
    got: Vec<u32>,
    asked: Millis,
    last: Millis,
    heard: Millis,
    current: Option<usize>,
}

struct Door {
    targets: Targets,
    requests: BTreeMap<usize, Request>,
    listed: Vec<bool>,
    cut: Vec<Millis>,
}

impl Door {
    fn heard_from(&mut self, request: usize, now: Millis) {
        if let Some(state) = self.requests.get_mut(&request) {
            state.heard = now;
        }
    }
}

struct World {
    rng: ChaCha8Rng,
    agenda: Agenda<Event>,
    trace: Trace,
    hosts: Vec<Host>,
    doors: Vec<Door>,
    steady: bool,
    delay: u64,
    loss: u32,
    tries: u64,
    frames: u64,
    longest_pause: Millis,
    broken: Option<String>,
}

/// How a run of streams went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streams {
    /// Trace, steps, tries and frames.
    pub run: Run,
    /// The longest time a client that got its whole answer waited between two tokens.
    pub longest_pause: Millis,
}

/// Plays the world that `seed` draws.
///
/// # Errors
/// The first law that is broken.
pub fn run(seed: u64) -> Result<Streams, Box<Violation>> {
    let mut world = World::new(seed);
    while let Some(event) = world.agenda.next(END) {
        world.play(event);
        if let Some(what) = world.broken.take() {
            return Err(world.trace.violation(seed, world.agenda.now(), what));
        }
    }
    for (door, requests) in world.doors.iter().map(|door| &door.requests).enumerate() {
        if let Some((request, _)) = requests.iter().find(|(_, request)| !request.attempt.is_over()) {
            let what = format!("request {request} at door {door} never ended");
            return Err(world.trace.violation(seed, END, what));
        }
    }
    let (trace, steps) = (world.trace.hash(), world.trace.steps());
    let run = Run { trace, steps, moves: world.tries, deliveries: world.frames };
    Ok(Streams { run, longest_pause: world.longest_pause })
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x57EA);
        let steady = rng.random_ratio(3, 4);
        let hosts: Vec<Host> =
            (0..rng.random_range(2..=5)).map(|index| Host::new(index, steady && index == 0, &mut rng)).collect();
        let mut agenda = Agenda::new();
        let doors: Vec<Door> = (0..rng.random_range(1..=2))
            .map(|door| Door {
                targets: Targets::new(door),
                requests: BTreeMap::new(),
                listed: vec![true; hosts.len()],
                cut: vec![Millis(0); hosts.len()],
            })
            .collect();
        for door in 0..doors.len() {
            for request in 0..rng.random_range(3..12) {
                let tokens = rng.random_range(1..300);
                agenda.put(Millis(rng.random_range(0..ASKING)), Event::Ask { door, request, tokens });
            }
        }
        for host in usize::from(steady)..hosts.len() {
            let mut at = rng.random_range(500..8_000);
            while at < ASKING {
                let until = Millis(at + rng.random_range(200..10_000));
                match rng.random_range(0..6) {
                    0..3 => {
                        agenda.put(Millis(at), Event::Crash { host, loud: rng.random() });
                        agenda.put(until, Event::Restart { host });
                    }
                    3 => agenda.put(Millis(at), Event::Hang { host, until }),
                    4 => agenda.put(Millis(at), Event::Drain { host }),
                    _ => agenda.put(Millis(at), Event::Cut { door: rng.random_range(0..doors.len()), host, until }),
                }
                at += rng.random_range(500..8_000);
            }
        }
        let (delay, loss) = (rng.random_range(1..80), rng.random_range(0..100));
        let (trace, longest_pause) = (Trace::new("streams_outlive_their_hosts_without_a_seam"), Millis(0));
        Self { rng, agenda, trace, hosts, doors, steady, delay, loss, tries: 0, frames: 0, longest_pause, broken: None }
    }

    fn put_in(&mut self, after: u64, event: Event) {
        self.agenda.put(self.agenda.now() + Millis(after), event);
    }

    fn delay(&mut self) -> u64 {
        let lost = self.rng.random_range(0..1000) < self.loss;
        let again = if lost { self.rng.random_range(100..400) } else { 0 };
        self.rng.random_range(0..=self.delay) + again
    }

    fn play(&mut self, event: Event) {
        let now = self.agenda.now();
        match event {
            Event::Ask { door, request, tokens } => self.ask(door, request, tokens),
            Event::Wake { door, request } => {
                if let Some(asked) = self.doors[door].requests.get_mut(&request) {
                    asked.attempt.wake(now);
                    self.follow(door, request, &[]);
                }
            }
            Event::Open { host, job, from, of } => self.open(host, job, from, of),
            Event::Reset { host, job } => {
                self.hosts[host].jobs.remove(&job);
            }
            Event::Beat { host, start, job } => self.beat(host, start, job),
            Event::Generate { host, start, job } => self.generate(host, start, job),
            Event::Frame { host, job, heard, tokens } => self.frame(host, job, heard, &tokens),
            Event::Crash { host, loud } => self.crash(host, loud),
            Event::Restart { host } => {
                let state = &mut self.hosts[host];
                state.up = true;
                state.well_since = now;
                state.draining = false;
                state.start += 1;
                self.tell_doors(host, true, 2_000);
            }
            Event::Hang { host, until } => {
                self.hosts[host].hung_until = until;
                self.hosts[host].well_since = until;
            }
            Event::Drain { host } => {
                self.hosts[host].draining = true;
                let jobs: Vec<Job> = self.hosts[host].jobs.keys().copied().collect();
                jobs.into_iter().for_each(|job| self.send(host, job, Heard::Failed(Failure::Draining), vec![]));
                self.hosts[host].jobs.clear();
                self.tell_doors(host, false, 500);
            }
            Event::Cut { door, host, until } => {
                self.doors[door].cut[host] = until;
                self.hosts[host].well_since = until;
            }
            Event::Seen { door, host, listed } => self.doors[door].listed[host] = listed,
        }
    }

    fn tell_doors(&mut self, host: usize, listed: bool, within: u64) {
        for door in 0..self.doors.len() {
            let after = self.rng.random_range(0..within);
            self.put_in(after, Event::Seen { door, host, listed });
        }
    }

    fn crash(&mut self, host: usize, loud: bool) {
        self.trace.note(self.agenda.now(), host, "crash", u64::from(loud));
        let jobs: Vec<Job> = self.hosts[host].jobs.keys().copied().collect();
        if loud {
            jobs.into_iter().for_each(|job| self.send(host, job, Heard::Failed(Failure::Lost), vec![]));
        }
        self.hosts[host].up = false;
        self.hosts[host].jobs.clear();
        self.tell_doors(host, false, 3_000);
    }

    fn choices(&self, door: usize, model: Option<ModelKey>) -> Vec<Choice> {
        let (door, now) = (&self.doors[door], self.agenda.now());
        let listed = self.hosts.iter().enumerate().filter(|(host, _)| door.listed[*host]);
        let candidates: Vec<_> = listed.map(|(_, host)| host.candidate(false)).collect();
        let wish = Wish {
            name: ModelId::new("m"),
            model,
            context_tokens: 10,
            needs: Capabilities::default(),
            prefix: PrefixChain::default(),
            session: None,
            salt: now.0,
        };
        route(&candidates, &wish, &door.targets, now).map(|routed| routed.choices).unwrap_or_default()
    }

    fn ask(&mut self, door: usize, request: usize, of: u32) {
        let now = self.agenda.now();
        let attempt = Attempt::new(AttemptConfig::default(), self.choices(door, None), now);
        let state = Request { attempt, of, got: Vec::new(), asked: now, last: now, heard: now, current: None };
        self.doors[door].requests.insert(request, state);
        self.follow(door, request, &[]);
    }

    /// Does what a request's attempt says; `tokens` are those of the frame it has just heard.
    fn follow(&mut self, door: usize, request: usize, tokens: &[u32]) {
        let now = self.agenda.now();
        if let Some(state) = self.doors[door].requests.get_mut(&request) {
            let silent = now.since(state.heard);
            if state.current.is_some() && silent > CONNECT.max(FIRST_EVENT) {
                self.broken = Some(format!("request {request} held on to a host silent for {silent}"));
            }
        }
        while let Some(state) = self.doors[door].requests.get_mut(&request) {
            let Some(step) = state.attempt.poll_step() else { break };
            match step {
                Step::Try { number, choice, resume_from } => {
                    if resume_from as usize != state.got.len() {
                        self.broken = Some(format!("resumed from {resume_from}, has {}", state.got.len()));
                    }
                    let Some(host) = self.hosts.iter().position(|host| host.id == choice.candidate.node) else {
                        return;
                    };
                    state.asked = now;
                    state.heard = now;
                    state.current = Some(host);
                    let (job, of) = ((door, request, number.0), state.of);
                    self.doors[door].targets.sent(choice.candidate.node, now);
                    self.tries += 1;
                    self.trace.note(now, host, "try", u64::from(resume_from));
                    let after = self.delay();
                    if self.doors[door].cut[host] <= now {
                        self.put_in(after, Event::Open { host, job, from: resume_from, of });
                    }
                }
                Step::Deliver { count } => {
                    if count as usize != tokens.len() {
                        self.broken = Some(format!("delivers {count} of {} tokens", tokens.len()));
                    }
                    state.got.extend_from_slice(tokens);
                    let pause = now.since(state.last);
                    state.last = now;
                    if self.steady && state.got.len() > tokens.len() {
                        self.longest_pause = self.longest_pause.max(pause);
                    }
                }
                Step::Abandon { number, node, failure } => {
                    state.current = None;
                    let targets = &mut self.doors[door].targets;
                    match failure {
                        Some(failure) if failure.node_is_well() => targets.refused(node),
                        Some(_) => targets.failed(node, now),
                        None => targets.ended(node),
                    }
                    let after = self.delay();
                    if let Some(host) = self.hosts.iter().position(|host| host.id == node) {
                        self.put_in(after, Event::Reset { host, job: (door, request, number.0) });
                    }
                }
                Step::Refresh => {
                    let model = state.attempt.model();
                    let choices = self.choices(door, model);
                    if let Some(state) = self.doors[door].requests.get_mut(&request) {
                        state.attempt.choices(choices, now);
                    }
                }
                Step::Done { node } => {
                    let model = state.attempt.model().unwrap_or(ModelKey([1; 32]));
                    let whole: Vec<u32> = (0..state.of).map(|at| token(model, door, request, at)).collect();
                    if state.got != whole {
                        self.broken = Some(format!("request {request} ended with other tokens than the undisturbed"));
                    }
                    self.trace.note(now, door, "done", request as u64);
                    state.current = None;
                    self.doors[door].targets.done(node);
                }
                Step::GiveUp(why) => {
                    self.trace.note(now, door, "give up", request as u64);
                    let (model, listed) = (state.attempt.model(), &self.doors[door].listed);
                    let mut hosts = self.hosts.iter().enumerate();
                    let well = hosts.find(|(index, host)| listed[*index] && host.could_take(model, now));
                    let accident = matches!(why, GiveUp::TooManyTries { .. } | GiveUp::Busy { .. })
                        || matches!(why, GiveUp::NobodyLeft { last: Failure::Busy { .. }, .. });
                    if let Some((host, _)) = well.filter(|_| !accident) {
                        self.broken = Some(format!("request {request} gave up ({why}) though host {host} was well"));
                    }
                }
            }
        }
        if let Some(at) = self.doors[door].requests.get(&request).and_then(|state| state.attempt.next_wakeup()) {
            self.agenda.put(at, Event::Wake { door, request });
        }
    }

    fn open(&mut self, host: usize, job: Job, from: u32, of: u32) {
        let now = self.agenda.now();
        let state = &mut self.hosts[host];
        if !state.up {
            return;
        }
        let refusal = if state.draining {
            Some(Failure::Draining)
        } else {
            (state.jobs.len() >= state.slots).then_some(Failure::Busy { retry_after: Millis(500) })
        };
        let prefill_until = now.max(state.hung_until) + Millis(self.rng.random_range(20..3_000));
        state.jobs.insert(job, Running { at: from, of, prefill_until, arrived: now });
        let start = state.start;
        if let Some(failure) = refusal {
            self.send(host, job, Heard::Failed(failure), vec![]);
            self.hosts[host].jobs.remove(&job);
            return;
        }
        self.send(host, job, Heard::Connected, vec![]);
        self.put_in(0, Event::Beat { host, start, job });
        self.agenda.put(prefill_until, Event::Generate { host, start, job });
    }

    /// The job's state if the host still runs it, or when to look again if the host hangs.
    fn running(&self, host: usize, start: u32, job: Job) -> Option<Result<Running, Millis>> {
        let state = &self.hosts[host];
        let running = state.jobs.get(&job).filter(|_| state.up && state.start == start)?;
        Some(if self.agenda.now() < state.hung_until { Err(state.hung_until) } else { Ok(*running) })
    }

    fn beat(&mut self, host: usize, start: u32, job: Job) {
        match self.running(host, start, job) {
            Some(Ok(running)) => {
                let stalls = self.hosts[host].vice == Some(Vice::Stalls);
                let left = running.prefill_until.since(self.agenda.now()).0;
                let progress = if stalls { 0 } else { left.wrapping_add(u64::from(running.at) << 32) };
                self.send(host, job, Heard::Heartbeat { progress }, vec![]);
                self.put_in(HEARTBEAT.0, Event::Beat { host, start, job });
            }
            Some(Err(later)) => self.agenda.put(later, Event::Beat { host, start, job }),
            None => {}
        }
    }

    fn generate(&mut self, host: usize, start: u32, job: Job) {
        let running = match self.running(host, start, job) {
            Some(Ok(running)) => running,
            Some(Err(later)) => return self.agenda.put(later, Event::Generate { host, start, job }),
            None => return,
        };
        let (door, request, _) = job;
        if self.hosts[host].vice == Some(Vice::Stalls) {
            return;
        }
        if running.at >= running.of {
            self.send(host, job, Heard::Finished, vec![]);
            self.hosts[host].jobs.remove(&job);
            return;
        }
        let count = self.rng.random_range(1..=4).min(running.of - running.at);
        let wrong = running.at > 20 && self.rng.random_ratio(1, 10);
        let at = match self.hosts[host].vice {
            Some(Vice::Repeats) if wrong => running.at - 1,
            Some(Vice::Skips) if wrong => running.at + 1,
            _ => running.at,
        };
        let model = self.hosts[host].model;
        let tokens = (at..at + count).map(|at| token(model, door, request, at)).collect();
        self.send(host, job, Heard::Tokens { at, count }, tokens);
        if let Some(running) = self.hosts[host].jobs.get_mut(&job) {
            running.at += count;
        }
        let pace = self.hosts[host].token_ms * u64::from(count);
        self.put_in(pace, Event::Generate { host, start, job });
    }

    /// A frame on its way to the door; in order, as QUIC keeps it.
    fn send(&mut self, host: usize, job: Job, heard: Heard, tokens: Vec<u32>) {
        let now = self.agenda.now();
        let arrives = now + Millis(self.delay());
        let arrives = self.hosts[host].jobs.get_mut(&job).map_or(arrives, |running| {
            running.arrived = running.arrived.max(arrives);
            running.arrived
        });
        self.agenda.put(arrives, Event::Frame { host, job, heard, tokens });
    }

    fn frame(&mut self, host: usize, job: Job, heard: Heard, tokens: &[u32]) {
        let (now, (door, request, number)) = (self.agenda.now(), job);
        if now < self.doors[door].cut[host] {
            // What is lost in a cut is lost with its connection: nothing later of this job may come.
            self.hosts[host].jobs.remove(&job);
            return;
        }
        self.frames += 1;
        self.trace.note(now, host, "frame", u64::from(number));
        let id = self.hosts[host].id;
        let Some(state) = self.doors[door].requests.get_mut(&request) else { return };
        let first = state.current == Some(host) && heard == Heard::Connected;
        let latency = now.since(state.asked);
        if state.attempt.progress().tries == number {
            self.doors[door].heard_from(request, now);
        }
        let Some(state) = self.doors[door].requests.get_mut(&request) else { return };
        state.attempt.heard(TryNumber(number), heard, now);
        if first {
            self.doors[door].targets.answered(id, latency, now);
        }
        self.follow(door, request, tokens);
    }
}

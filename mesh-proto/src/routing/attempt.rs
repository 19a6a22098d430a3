//! One request's way through the hosts until its answer is whole; must not know how hosts are reached or what
//! tokens say.

use std::collections::{BTreeMap, VecDeque};

use super::{
    BETWEEN_EVENTS, CONNECT, Choice, FIRST_EVENT, Failure, GiveUp, Heard, MAX_TRIES, REFRESH, STALL, Step, TAKE_OVER,
    TryNumber,
};
use crate::{identity::NodeId, placement::ModelKey, record::Capabilities, time::Millis};

/// An attempt's times and bounds; the defaults are the constants of the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptConfig {
    /// [`CONNECT`].
    pub connect: Millis,
    /// [`FIRST_EVENT`].
    pub first_event: Millis,
    /// [`BETWEEN_EVENTS`].
    pub between_events: Millis,
    /// [`STALL`].
    pub stall: Millis,
    /// [`TAKE_OVER`].
    pub take_over: Millis,
    /// [`MAX_TRIES`].
    pub max_tries: u32,
    /// When the request must have ended, on the caller's clock; `None`: it may take as long as it moves.
    pub deadline: Option<Millis>,
}

impl Default for AttemptConfig {
    fn default() -> Self {
        Self {
            connect: CONNECT,
            first_event: FIRST_EVENT,
            between_events: BETWEEN_EVENTS,
            stall: STALL,
            take_over: TAKE_OVER,
            max_tries: MAX_TRIES,
            deadline: None,
        }
    }
}

/// How far a request is, for logs and headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Tokens the client has.
    pub delivered: u32,
    /// Tries begun.
    pub tries: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Connected,
    Flowing,
}

#[derive(Clone, Copy, Debug)]
struct Current {
    node: NodeId,
    model: ModelKey,
    phase: Phase,
    heard_at: Millis,
    moved_at: Millis,
    progress: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Trying(Current),
    /// Nobody left; ask for choices at this time.
    Waiting(Millis),
    Over,
}

/// The attempt machine of one generation. Give it choices ([`Attempt::choices`]), tell it what the stream says
/// ([`Attempt::heard`]), and do what [`Attempt::poll_step`] says.
#[derive(Clone, Debug)]
pub struct Attempt {
    config: AttemptConfig,
    state: State,
    choices: VecDeque<Choice>,
    failed: BTreeMap<NodeId, (Failure, Millis)>,
    /// The model that the delivered tokens are of.
    model: Option<ModelKey>,
    progress: Progress,
    fruitless: u32,
    last: Failure,
    /// Since when there has been nobody to ask.
    stuck_since: Option<Millis>,
    steps: VecDeque<Step>,
}

impl Attempt {
    /// Begins with the router's choices, best first.
    pub fn new(config: AttemptConfig, choices: Vec<Choice>, now: Millis) -> Self {
        let mut attempt = Self {
            config,
            state: State::Waiting(now + REFRESH),
            choices: choices.into(),
            failed: BTreeMap::new(),
            model: None,
            progress: Progress::default(),
            fruitless: 0,
            last: Failure::Connect,
            stuck_since: None,
            steps: VecDeque::new(),
        };
        attempt.advance(now);
        attempt
    }

    /// The next thing to do.
    pub fn poll_step(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    /// When to call [`Attempt::wake`]; `None` when it is over.
    pub fn next_wakeup(&self) -> Option<Millis> {
        let due = match &self.state {
            State::Trying(current) => self.times_out(current).0,
            State::Waiting(until) => *until,
            State::Over => return None,
        };
        Some(self.config.deadline.map_or(due, |deadline| due.min(deadline)))
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Whether nothing more will come.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Which model the delivered tokens are of: choices must be of this one.
    pub fn model(&self) -> Option<ModelKey> {
        self.model
    }

    /// Takes the router's newest choices: after [`Step::Refresh`], or when the directory has changed.
    pub fn choices(&mut self, choices: Vec<Choice>, now: Millis) {
        let (failed, fresh): (Vec<Choice>, Vec<Choice>) =
            choices.into_iter().partition(|choice| self.failed.contains_key(&choice.candidate.node));
        self.choices = fresh.into_iter().chain(failed).collect();
        if matches!(self.state, State::Waiting(_)) {
            self.advance(now);
        }
    }

    /// The client went away.
    pub fn cancel(&mut self) {
        if let State::Trying(Current { node, .. }) = self.state {
            self.steps.push_back(Step::Abandon { number: self.number(), node, failure: None });
        }
        self.state = State::Over;
    }

    /// Takes what try `number` says.
    pub fn heard(&mut self, number: TryNumber, heard: Heard, now: Millis) {
        let current_number = self.number();
        let State::Trying(current) = &mut self.state else { return };
        if number != current_number {
            return;
        }
        current.heard_at = now;
        match heard {
            Heard::Connected => {
                if current.phase == Phase::Connecting {
                    current.phase = Phase::Connected;
                    current.moved_at = now;
                }
            }
            Heard::Heartbeat { progress } => {
                current.phase = Phase::Flowing;
                if current.progress.replace(progress) != Some(progress) {
                    self.stuck_since = None;
                    current.moved_at = now;
                }
            }
            Heard::Tokens { at, count } if at == self.progress.delivered && count > 0 => {
                current.phase = Phase::Flowing;
                current.moved_at = now;
                self.model = Some(current.model);
                self.progress.delivered = at.saturating_add(count);
                self.fruitless = 0;
                self.stuck_since = None;
                self.steps.push_back(Step::Deliver { count });
            }
            Heard::Tokens { .. } => self.fail(Failure::OutOfStep, now),
            Heard::Finished => {
                self.steps.push_back(Step::Done { node: current.node });
                self.state = State::Over;
            }
            Heard::Failed(failure) => self.fail(failure, now),
        }
    }

    /// The time of [`Attempt::next_wakeup`] has come.
    pub fn wake(&mut self, now: Millis) {
        if !self.is_over() && self.config.deadline.is_some_and(|deadline| deadline <= now) {
            self.cancel();
            self.steps.push_back(Step::GiveUp(GiveUp::Deadline));
            return;
        }
        match &self.state {
            State::Trying(current) => {
                let (due, failure) = self.times_out(current);
                if due <= now {
                    self.fail(failure, now);
                }
            }
            State::Waiting(until) if *until <= now => {
                self.state = State::Waiting(now + REFRESH);
                if !self.gave_up_waiting(now) {
                    self.steps.push_back(Step::Refresh);
                }
            }
            State::Waiting(_) | State::Over => {}
        }
    }

    fn number(&self) -> TryNumber {
        TryNumber(self.progress.tries)
    }

    fn times_out(&self, current: &Current) -> (Millis, Failure) {
        match current.phase {
            Phase::Connecting => (current.heard_at + self.config.connect, Failure::Connect),
            Phase::Connected => (current.heard_at + self.config.first_event, Failure::Silent),
            Phase::Flowing => {
                let silent = (current.heard_at + self.config.between_events, Failure::Silent);
                let stalled = (current.moved_at + self.config.stall, Failure::Stalled);
                if stalled.0 < silent.0 { stalled } else { silent }
            }
        }
    }

    fn fail(&mut self, failure: Failure, now: Millis) {
        let State::Trying(Current { node, .. }) = self.state else { return };
        self.steps.push_back(Step::Abandon { number: self.number(), node, failure: Some(failure) });
        self.last = failure;
        self.failed.insert(node, (failure, now));
        if failure == Failure::Caller {
            return self.give_up(GiveUp::Caller);
        }
        if failure.may_be_the_requests() {
            self.fruitless += 1;
            if self.fruitless >= self.config.max_tries {
                let Progress { delivered, .. } = self.progress;
                return self.give_up(GiveUp::TooManyTries { tries: self.fruitless, delivered, last: failure });
            }
        }
        self.stuck_since.get_or_insert(now);
        self.advance(now);
    }

    /// Tries the next choice, or waits for one.
    fn advance(&mut self, now: Millis) {
        while let Some(choice) = self.choices.pop_front() {
            if self.may_ask(&choice, now) {
                let (node, model) = (choice.candidate.node, choice.candidate.model);
                let phase = Phase::Connecting;
                self.progress.tries += 1;
                self.state =
                    State::Trying(Current { node, model, phase, heard_at: now, moved_at: now, progress: None });
                let (number, resume_from) = (self.number(), self.progress.delivered);
                self.steps.push_back(Step::Try { number, choice: Box::new(choice), resume_from });
                return;
            }
        }
        self.stuck_since.get_or_insert(now);
        self.state = State::Waiting(now + REFRESH);
        if self.progress.delivered == 0
            && let Some(retry_after) = self.all_busy()
        {
            self.give_up(GiveUp::Busy { retry_after });
        } else {
            self.gave_up_waiting(now);
        }
    }

    fn may_ask(&self, choice: &Choice, now: Millis) -> bool {
        let candidate = &choice.candidate;
        let resumable =
            self.model.is_none_or(|model| model == candidate.model && candidate.capabilities.has(Capabilities::RESUME));
        let before = self.failed.get(&candidate.node);
        resumable && before.is_none_or(|(failure, at)| failure.may_pass() && now.since(*at) >= REFRESH)
    }

    /// The shortest time to come back, where every failure so far was for being busy.
    fn all_busy(&self) -> Option<Millis> {
        let times = self.failed.values().map(|(failure, _)| match failure {
            Failure::Busy { retry_after } => Some(*retry_after),
            _ => None,
        });
        times.collect::<Option<Vec<Millis>>>()?.into_iter().min()
    }

    fn gave_up_waiting(&mut self, now: Millis) -> bool {
        let over = self.stuck_since.is_some_and(|since| now.since(since) >= self.config.take_over);
        if over {
            let delivered = self.progress.delivered;
            self.give_up(match self.last {
                Failure::Busy { retry_after } if delivered == 0 => GiveUp::Busy { retry_after },
                last => GiveUp::NobodyLeft { delivered, last },
            });
        }
        over
    }

    fn give_up(&mut self, why: GiveUp) {
        self.state = State::Over;
        self.steps.push_back(Step::GiveUp(why));
    }
}

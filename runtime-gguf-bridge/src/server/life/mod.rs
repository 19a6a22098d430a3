//! A child's life as a machine: inputs in, effects out; must not know clocks, processes or sockets.

mod config;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, fmt};

use mesh_proto::time::Millis;

pub use self::config::Config;

/// What others see of it.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// It loads.
    Starting {
        /// How much of it, 0 to 1, where it says so.
        progress: Option<f32>,
    },
    /// It serves.
    Ready,
    /// It does not answer at the moment.
    Unhealthy,
    /// It crashed and will be started again.
    Restarting {
        /// The how manieth crash in a row it was.
        attempt: u32,
        /// When, on its driver's clock.
        until: Millis,
    },
    /// It is given up until somebody asks for it again.
    Failed {
        /// Why, one line.
        words: String,
    },
    /// It was stopped, for good.
    Stopped,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting { progress: Some(progress) } => write!(f, "loading: {:.0} %", progress * 100.0),
            Self::Starting { progress: None } => f.write_str("loading"),
            Self::Ready => f.write_str("ready"),
            Self::Unhealthy => f.write_str("not answering"),
            Self::Restarting { attempt, .. } => write!(f, "restarting after crash {attempt}"),
            Self::Failed { words } => write!(f, "failed: {words}"),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

/// What the machine is told.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::server) enum Input {
    /// It is wanted: for the first time, or again after it was given up.
    Start,
    /// The asked process is there.
    Spawned,
    /// It could not be made.
    SpawnFailed(String),
    /// How much is loaded, 0 to 1.
    Progress(f32),
    /// It says that it is ready; its health decides.
    Listening,
    /// A check's answer.
    HealthOk,
    /// The same.
    HealthFailed,
    /// The process is gone. Told once for each [`Input::Spawned`].
    Exited {
        /// Why, one line: how it ended and its last words.
        words: String,
    },
    /// How many requests wait for it at this moment. One whose client does not read does not wait.
    Streams(usize),
    /// Something came for one of them.
    TokenProgress,
    /// CPU time that it and its children have used, in milliseconds.
    CpuTime(u64),
    /// It is not wanted any more.
    StopWanted,
    /// The time of [`Life::next_wakeup`] has come.
    Wake,
}

/// What the driver is to do.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::server) enum Effect {
    /// Make the process, and answer with [`Input::Spawned`] or [`Input::SpawnFailed`].
    Spawn,
    /// Ask it to end.
    Stop,
    /// End it at once.
    Kill,
    /// Answer with [`Input::HealthOk`] or [`Input::HealthFailed`].
    CheckHealth,
    /// Answer with [`Input::CpuTime`], or not at all where it cannot be told.
    MeasureCpu,
    /// Others are to see this.
    TellState(State),
}

#[derive(Clone, Debug, PartialEq)]
enum Phase {
    Idle,
    /// Asked for, not answered.
    Spawning,
    Loading,
    Serving,
    /// Killed for a reason, not gone yet.
    Dying {
        why: String,
        again: Millis,
    },
    Waiting {
        until: Millis,
    },
    Failed,
    Stopping {
        spawning: bool,
        kill: Millis,
    },
    Stopped,
}

/// In which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hang {
    /// Neither tokens nor CPU time.
    Idle,
    /// No tokens.
    Silent,
}

/// One child's life, over all of its processes.
#[derive(Debug)]
pub(in crate::server) struct Life {
    config: Config,
    phase: Phase,
    effects: VecDeque<Effect>,
    told: Option<State>,
    crashes: u32,
    ever_ready: bool,
    ready_since: Option<Millis>,
    progress: Option<f32>,
    /// The last sign that the start goes on.
    sign: Millis,
    next_check: Millis,
    checking: Option<Millis>,
    misses: u32,
    unhealthy: bool,
    waiting: usize,
    /// Since when somebody waits for it.
    owed: Option<Millis>,
    token: Option<Millis>,
    next_measure: Millis,
    /// The last reading that was a sign of life, the time of it, and the time of the last reading at all.
    cpu: Option<(u64, Millis)>,
    measured: Option<Millis>,
}

impl Life {
    /// Of a child that nobody has asked for yet.
    pub(in crate::server) fn new(config: Config) -> Self {
        Self {
            config,
            phase: Phase::Idle,
            effects: VecDeque::new(),
            told: None,
            crashes: 0,
            ever_ready: false,
            ready_since: None,
            progress: None,
            sign: Millis(0),
            next_check: Millis(0),
            checking: None,
            misses: 0,
            unhealthy: false,
            waiting: 0,
            owed: None,
            token: None,
            next_measure: Millis(0),
            cpu: None,
            measured: None,
        }
    }

    /// What to do next.
    pub(in crate::server) fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Whether it was stopped and its process is gone.
    pub(in crate::server) fn is_over(&self) -> bool {
        self.phase == Phase::Stopped
    }

    /// Takes one input, and does what has become due.
    pub(in crate::server) fn handle(&mut self, input: Input, now: Millis) {
        match input {
            Input::Start if matches!(self.phase, Phase::Idle | Phase::Failed) => {
                (self.crashes, self.ever_ready) = (0, false);
                self.spawn(now);
            }
            Input::Spawned => self.spawned(now),
            Input::SpawnFailed(why) => match self.phase {
                Phase::Spawning => self.ended(why, now),
                Phase::Stopping { spawning: true, .. } => self.enter(Phase::Stopped),
                _ => {}
            },
            Input::Progress(progress) if self.phase == Phase::Loading && self.progress != Some(progress) => {
                (self.progress, self.sign) = (Some(progress), now);
                self.tell();
            }
            Input::Listening if self.phase == Phase::Loading => self.next_check = now,
            Input::HealthOk => self.healthy(now),
            Input::HealthFailed => self.missed(now),
            Input::Exited { words } => match &self.phase {
                Phase::Loading | Phase::Serving => self.ended(words, now),
                Phase::Dying { why, .. } => self.ended(why.clone(), now),
                Phase::Stopping { .. } => self.enter(Phase::Stopped),
                _ => {}
            },
            Input::Streams(waiting) => self.waiting = waiting,
            Input::TokenProgress => self.token = Some(now),
            Input::CpuTime(ms) => self.measured_cpu(ms, now),
            Input::StopWanted => self.stop(now),
            Input::Start | Input::Progress(_) | Input::Listening | Input::Wake => {}
        }
        self.advance(now);
    }

    /// When [`Input::Wake`] is due at the latest. None where only the driver or somebody's wish can change anything.
    pub(in crate::server) fn next_wakeup(&self) -> Option<Millis> {
        match self.phase {
            Phase::Idle | Phase::Spawning | Phase::Failed | Phase::Stopped => None,
            Phase::Waiting { until } => Some(until),
            Phase::Dying { again, .. } => Some(again),
            Phase::Stopping { kill, .. } => Some(kill),
            Phase::Loading => Some((self.sign + self.config.start_stall).min(self.check_due()).min(self.next_measure)),
            Phase::Serving => {
                let dues = [self.hung_at().map(|(at, _)| at), self.owed.map(|_| self.next_measure)];
                Some(dues.into_iter().flatten().fold(self.check_due(), Millis::min))
            }
        }
    }

    fn advance(&mut self, now: Millis) {
        let owes = self.phase == Phase::Serving && (self.waiting > 0 || self.unhealthy);
        match (owes, self.owed) {
            (true, None) => (self.owed, self.next_measure) = (Some(now), now),
            (false, Some(_)) => self.owed = None,
            _ => {}
        }
        match self.phase {
            Phase::Waiting { until } if now >= until => self.spawn(now),
            Phase::Loading if now >= self.sign + self.config.start_stall => {
                let stalled = self.config.start_stall.0 / 1000;
                self.kill(format!("it made no progress in loading for {stalled} s and was killed"), now);
            }
            Phase::Serving => {
                if let Some((_, hang)) = self.hung_at().filter(|(at, _)| now >= *at) {
                    let (span, more) = match hang {
                        Hang::Idle => (self.config.hang_idle, " and no CPU time used"),
                        Hang::Silent => (self.config.hang_silent, ""),
                    };
                    self.kill(format!("it hung (no token for {} s{more}) and was killed", span.0.div_ceil(1000)), now);
                }
            }
            Phase::Dying { ref mut again, .. } | Phase::Stopping { kill: ref mut again, spawning: false }
                if now >= *again =>
            {
                *again = now + self.config.kill_again;
                self.effects.push_back(Effect::Kill);
            }
            Phase::Stopping { ref mut kill, spawning: true } if now >= *kill => *kill = now + self.config.kill_again,
            _ => {}
        }
        if matches!(self.phase, Phase::Loading | Phase::Serving) {
            self.look(now);
        }
    }

    /// Health and CPU time, where due.
    fn look(&mut self, now: Millis) {
        if self.checking.is_some_and(|since| now >= since + self.config.health_limit) {
            self.missed(now);
        }
        if self.checking.is_none() && now >= self.next_check {
            let serving = self.phase == Phase::Serving && !self.unhealthy;
            let every = if serving { self.config.health_ready } else { self.config.health_starting };
            self.next_check = now + every;
            let alive = self.token.is_some_and(|at| now.since(at) < every);
            if !(serving && alive) {
                self.checking = Some(now);
                self.effects.push_back(Effect::CheckHealth);
            }
        }
        if (self.phase == Phase::Loading || self.owed.is_some()) && now >= self.next_measure {
            self.next_measure = now + self.config.measure_every;
            let fresh = self.token.is_some_and(|at| now.since(at) < self.config.measure_every);
            if !fresh {
                self.effects.push_back(Effect::MeasureCpu);
            }
        }
    }

    fn check_due(&self) -> Millis {
        match self.checking {
            Some(since) => since + self.config.health_limit,
            None => self.next_check,
        }
    }

    /// When it counts as hung if nothing comes of it, and for how long nothing has come then.
    fn hung_at(&self) -> Option<(Millis, Hang)> {
        let owed = self.owed?;
        let token = self.token.unwrap_or_default().max(owed);
        let silent = token + self.config.hang_silent;
        let (_, used) = self.cpu.unwrap_or_default();
        let idle = token.max(used) + self.config.hang_idle;
        // What was not measured says nothing.
        let lately = self.config.measure_every + self.config.measure_every;
        let known = self.measured.is_some_and(|at| at >= owed && at + lately >= idle);
        if known && idle < silent { Some((idle, Hang::Idle)) } else { Some((silent, Hang::Silent)) }
    }

    fn spawn(&mut self, now: Millis) {
        self.progress = None;
        self.sign = now;
        (self.next_check, self.next_measure) = (now + self.config.health_starting, now + self.config.measure_every);
        (self.checking, self.misses, self.unhealthy) = (None, 0, false);
        (self.owed, self.token, self.cpu, self.measured, self.ready_since) = (None, None, None, None, None);
        self.effects.push_back(Effect::Spawn);
        self.enter(Phase::Spawning);
    }

    fn spawned(&mut self, now: Millis) {
        match self.phase {
            Phase::Spawning => {
                self.sign = now;
                self.enter(Phase::Loading);
            }
            Phase::Stopping { spawning: true, .. } => self.ask_to_stop(now),
            _ => {}
        }
    }

    fn healthy(&mut self, now: Millis) {
        (self.checking, self.misses, self.unhealthy) = (None, 0, false);
        if self.phase == Phase::Loading {
            self.ever_ready = true;
            self.ready_since = Some(now);
            self.next_check = now + self.config.health_ready;
            self.enter(Phase::Serving);
        }
        self.tell();
    }

    fn missed(&mut self, now: Millis) {
        self.checking = None;
        if self.phase == Phase::Serving {
            self.misses = self.misses.saturating_add(1);
            self.unhealthy = self.misses >= self.config.health_misses;
            if self.unhealthy {
                self.next_check = self.next_check.min(now + self.config.health_starting);
            }
            self.tell();
        }
    }

    fn measured_cpu(&mut self, ms: u64, now: Millis) {
        self.measured = Some(now);
        // A sum over processes falls when one of them ends, which is a sign as well.
        if self.cpu.is_none_or(|(before, _)| ms.abs_diff(before) >= self.config.cpu_floor) {
            self.cpu = Some((ms, now));
            self.sign = now;
        }
    }

    /// The process is gone without having been asked to stop.
    fn ended(&mut self, words: String, now: Millis) {
        if !self.ever_ready {
            // A bad model stays bad.
            return self.fail(words);
        }
        let served = self.ready_since.take().map_or(Millis(0), |since| now.since(since));
        if served >= self.config.forget_after {
            self.crashes = 0;
        }
        self.crashes += 1;
        if self.crashes >= self.config.crashes {
            return self.fail(format!("it crashed {} times in a row, last: {words}", self.crashes));
        }
        let doubled = self.config.backoff_base.0.saturating_mul(1 << (self.crashes - 1).min(20));
        let until = now + Millis(doubled).min(self.config.backoff_ceiling);
        self.enter(Phase::Waiting { until });
    }

    fn fail(&mut self, words: String) {
        self.phase = Phase::Failed;
        self.told = Some(State::Failed { words: words.clone() });
        self.effects.push_back(Effect::TellState(State::Failed { words }));
    }

    fn kill(&mut self, why: String, now: Millis) {
        self.effects.push_back(Effect::Kill);
        self.enter(Phase::Dying { why, again: now + self.config.kill_again });
    }

    fn stop(&mut self, now: Millis) {
        match self.phase {
            Phase::Idle | Phase::Failed | Phase::Waiting { .. } => self.enter(Phase::Stopped),
            Phase::Spawning => {
                self.enter(Phase::Stopping { spawning: true, kill: now + self.config.stop_grace });
            }
            Phase::Loading | Phase::Serving | Phase::Dying { .. } => self.ask_to_stop(now),
            Phase::Stopping { .. } | Phase::Stopped => {}
        }
    }

    fn ask_to_stop(&mut self, now: Millis) {
        self.effects.push_back(Effect::Stop);
        self.enter(Phase::Stopping { spawning: false, kill: now + self.config.stop_grace });
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.tell();
    }

    /// Says what others are to see, where it changed.
    fn tell(&mut self) {
        let state = match self.phase {
            Phase::Idle | Phase::Failed => return,
            Phase::Spawning | Phase::Loading => State::Starting { progress: self.progress },
            Phase::Serving if self.unhealthy => State::Unhealthy,
            Phase::Serving => State::Ready,
            Phase::Dying { .. } => State::Unhealthy,
            Phase::Waiting { until } => State::Restarting { attempt: self.crashes, until },
            // It may still be about to go, but nobody is to send it anything.
            Phase::Stopping { .. } | Phase::Stopped => State::Stopped,
        };
        if self.told.as_ref() != Some(&state) {
            self.told = Some(state.clone());
            self.effects.push_back(Effect::TellState(state));
        }
    }
}

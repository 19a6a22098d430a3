//! Leaves a failing target alone for a while; must not know what failed.

use crate::time::Millis;

/// Failures in a row that open a breaker. Unit: failures. Default: 3. Origin: Envoy's default is 5, for much
/// shorter requests. Cost of less: one lost packet's worth of bad luck shuns a host for a second.
pub const TRIP_AFTER: u32 = 3;

/// How long a breaker is open for the first time; doubles with each failed probe. Unit: milliseconds.
/// Default: 1000. Origin: about a process's restart. Cost of less: more requests spent on probing.
pub const OPEN_BASE: Millis = Millis(1000);

/// The longest a breaker stays open. Unit: milliseconds. Default: 30,000. Origin: guess. Cost: how long a healed
/// host waits at most for its first request.
pub const OPEN_CEILING: Millis = Millis(30_000);

/// What a breaker lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Everything.
    Closed,
    /// Nothing before the time given.
    Open {
        /// When it becomes half-open.
        until: Millis,
    },
    /// One probe; its end decides. `probing`: it is on its way.
    HalfOpen {
        /// A probe is on its way, so nothing else passes.
        probing: bool,
    },
}

impl BreakerState {
    /// Whether a request may be sent.
    pub fn allows(self) -> bool {
        matches!(self, Self::Closed | Self::HalfOpen { probing: false })
    }
}

/// A circuit breaker of one target. Back-off varies by a quarter with `seed`, so that many doors don't
/// probe a returning host in one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    seed: u64,
    failures: u32,
    openings: u32,
    open_until: Option<Millis>,
    probe_since: Option<Millis>,
}

impl Breaker {
    /// A closed one.
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// What it lets through at `now`. A probe that has said nothing for [`OPEN_CEILING`] is given up.
    pub fn state(&self, now: Millis) -> BreakerState {
        match self.open_until {
            None => BreakerState::Closed,
            Some(until) if now < until => BreakerState::Open { until },
            Some(_) => {
                let probing = self.probe_since.is_some_and(|since| now.since(since) < OPEN_CEILING);
                BreakerState::HalfOpen { probing }
            }
        }
    }

    /// A request is on its way.
    pub fn sent(&mut self, now: Millis) {
        if self.open_until.is_some_and(|until| now >= until) {
            self.probe_since = Some(now);
        }
    }

    /// The target has begun to answer, which says that it lives and not that it does well: a probe lets requests through
    /// again, and the next failure stops them, for longer than the last one.
    pub fn began(&mut self) {
        if self.probe_since.take().is_some() {
            (self.open_until, self.failures) = (None, TRIP_AFTER - 1);
        }
    }

    /// The target did what it should, to the end; a refusal for being busy counts as that.
    pub fn succeeded(&mut self) {
        *self = Self::new(self.seed);
    }

    /// The request ended before it told anything.
    pub fn withdrawn(&mut self) {
        self.probe_since = None;
    }

    /// The target did not answer, or broke off.
    pub fn failed(&mut self, now: Millis) {
        self.failures = self.failures.saturating_add(1);
        match self.state(now) {
            // What was sent before it opened says nothing new.
            BreakerState::Open { .. } => {}
            BreakerState::Closed if self.failures < TRIP_AFTER => {}
            BreakerState::Closed | BreakerState::HalfOpen { .. } => {
                self.open_until = Some(now + self.back_off());
                self.openings = self.openings.saturating_add(1);
                self.probe_since = None;
            }
        }
    }

    /// The base, doubled per opening up to the ceiling, times 0.75 to 1.
    fn back_off(&self) -> Millis {
        let doubled = (OPEN_BASE.0 << self.openings.min(16)).min(OPEN_CEILING.0);
        let mixed = (self.seed ^ u64::from(self.openings)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        Millis(doubled - doubled / 4 * (mixed % 1024) / 1024)
    }
}

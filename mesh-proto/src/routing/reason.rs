//! Why a node was chosen, for a header and a log line; must not know how it was compared.

use std::fmt;

use super::{BreakerState, Load};

/// How much of a prompt a host's KV holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Matched {
    /// Blocks of the prompt that are cached.
    pub blocks: usize,
    /// Blocks the prompt has.
    pub of: usize,
    /// The host knows the session.
    pub session: bool,
}

/// One choice's grounds. Prints as `prefix=12/20 session=yes load=3+0/8 latency=41ms estimate=87ms breaker=closed`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reason {
    /// Prefix and session.
    pub matched: Matched,
    /// The node's own word on its load.
    pub load: Load,
    /// Requests this door has on their way there.
    pub outstanding: u32,
    /// Peak EWMA of the time to the first event, milliseconds; what the node says of itself before the first.
    pub latency_ms: f64,
    /// What was compared: the estimated time to the first token, milliseconds.
    pub estimate_ms: f64,
    /// What the breaker lets through.
    pub breaker: BreakerState,
    /// It is suspected dead: asked only after all others.
    pub suspect: bool,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { matched, load, .. } = self;
        let session = if matched.session { "yes" } else { "no" };
        let breaker = match self.breaker {
            BreakerState::Closed => "closed",
            BreakerState::Open { .. } => "open",
            BreakerState::HalfOpen { .. } => "half-open",
        };
        write!(f, "prefix={}/{} session={session} ", matched.blocks, matched.of)?;
        write!(f, "load={}+{}/{} outstanding={} ", load.in_flight, load.queued, load.slots, self.outstanding)?;
        write!(f, "latency={:.0}ms estimate={:.0}ms breaker={breaker}", self.latency_ms, self.estimate_ms)?;
        if self.suspect { f.write_str(" suspect") } else { Ok(()) }
    }
}

//! Which node answers a request, and which one next when it does not; must not know sockets, engines or
//! how a model's name became its identity.
//!
//! [`route`] filters and orders what the directory knows ([`Candidate`]) by estimated time to the first
//! token; [`Targets`] is what this door has learned of each node (latency, breaker, its own requests in flight);
//! [`Attempt`] walks down the order until the generation has ended, resuming it from what the client has.

mod attempt;
mod breaker;
mod candidate;
mod ewma;
mod from_record;
mod order;
mod reason;
mod sketch;
mod steps;
mod targets;

pub use attempt::{Attempt, AttemptConfig, Progress};
pub use breaker::{Breaker, BreakerState, OPEN_BASE, OPEN_CEILING, TRIP_AFTER};
pub use candidate::{Candidate, Filtered, Load, Wish};
pub use ewma::{EWMA_HALF_LIFE, PeakEwma, UNKNOWN_LATENCY};
pub use from_record::SKETCH_KIND;
pub use order::{CLOSE_ENOUGH, Choice, RouteError, Routed, SESSION_SAVES, route};
pub use reason::{Matched, Reason};
pub use sketch::{BLOCK_BYTES, MAX_BLOCKS, MAX_SKETCH, PrefixChain, SessionKey, Sketch, SketchKeeper};
pub use steps::{
    BETWEEN_EVENTS, CONNECT, FIRST_EVENT, Failure, GiveUp, HEARTBEAT, Heard, MAX_TRIES, REFRESH, STALL, Step,
    TAKE_OVER, TryNumber,
};
pub use targets::Targets;

//! The words an attempt is told and tells, and its times; must not know the machine between them.

use thiserror::Error;

use super::Choice;
use crate::{identity::NodeId, time::Millis};

/// A node must be connected within this. Unit: milliseconds. Default: 1500. Origin: iroh.md 0.3, a dial to a corpse
/// blocks for 3 s or more; a live one takes 2 ms on a LAN, three round trips elsewhere. Cost: added to a fail-over
/// whose host died unnoticed.
pub const CONNECT: Millis = Millis(1500);

/// A connected node must say something (a heartbeat will do) within this. Unit: milliseconds. Default: 2000. Origin:
/// guess: a round trip, and a node that just started to load something. Cost: as above.
pub const FIRST_EVENT: Millis = Millis(2000);

/// A serving node sends at least a heartbeat this often, in the queue and in prefill too. Unit: milliseconds.
/// Default: 200. Origin: a quarter of [`BETWEEN_EVENTS`], so that three may be late. Cost: five small frames a
/// second and stream.
pub const HEARTBEAT: Millis = Millis(200);

/// A stream silent for this long is dead. Unit: milliseconds. Default: 800. Origin: a client must not wait for a second,
/// the next host's prefill included. Cost of less: a lossy link's retransmissions look like death; the
/// generation then goes on elsewhere, and one prefill is wasted.
pub const BETWEEN_EVENTS: Millis = Millis(800);

/// Heartbeats without progress for this long are a hung engine. Unit: milliseconds. Default: 20,000. Origin: guess,
/// above the slowest step seen (one prefill chunk, one token of a large model in swap). Cost: how long such a
/// host holds a client.
pub const STALL: Millis = Millis(20_000);

/// With nobody left to ask, new hosts are waited for this long. Unit: milliseconds. Default: 10,000. Origin: notice
/// (3 s), election (0.2 s), load (seconds). Cost: how long a client waits for a bad end.
pub const TAKE_OVER: Millis = Millis(10_000);

/// How often the router is asked again meanwhile, and the least time between two tries of one node. Unit:
/// milliseconds. Default: 250. Origin: guess. Cost: one routing each.
pub const REFRESH: Millis = Millis(250);

/// Hosts that may break off in a row without one new token. Unit: tries. Default: 4. Origin: a request that kills
/// engines must not walk through the whole mesh. Cost: gives up on four honest accidents in a row.
pub const MAX_TRIES: u32 = 4;

/// Which try of a request an event belongs to, from 1. Events of an abandoned try are ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TryNumber(pub u32);

/// What a try's stream says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The request is at the node.
    Connected,
    /// It lives. `progress` is any number that changes when work gets done (place in the queue, prompt tokens
    /// read, tokens generated).
    Heartbeat {
        /// See above.
        progress: u64,
    },
    /// Tokens of the answer.
    Tokens {
        /// Index of the first one in the whole answer, resumed part included.
        at: u32,
        /// How many.
        count: u32,
    },
    /// The end as it should be, behind all tokens.
    Finished,
    /// Another end.
    Failed(Failure),
}

/// Why a try ended badly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Failure {
    /// Link: no connection in time.
    #[error("no connection")]
    Connect,
    /// Link: the stream broke.
    #[error("the stream broke")]
    Lost,
    /// Link: nothing said in time.
    #[error("silent")]
    Silent,
    /// Engine: it lives, and gets nowhere.
    #[error("hung")]
    Stalled,
    /// Engine: its tokens do not continue what the client has.
    #[error("out of step with what was already sent")]
    OutOfStep,
    /// Engine: it failed.
    #[error("the engine failed")]
    Engine,
    /// Nobody's: too much to do.
    #[error("busy")]
    Busy {
        /// When to come back.
        retry_after: Millis,
    },
    /// Nobody's: it stops; a running generation is handed over.
    #[error("draining")]
    Draining,
    /// It does not serve this model (any more).
    #[error("does not serve the model")]
    Unserved,
    /// Caller: the request is wrong, and is so everywhere.
    #[error("the request is refused")]
    Caller,
}

impl Failure {
    /// Whether the node did its part, so that its breaker must not count this.
    pub fn node_is_well(self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Draining | Self::Unserved | Self::Caller)
    }

    /// Whether the request itself may have done it.
    pub(super) fn may_be_the_requests(self) -> bool {
        matches!(self, Self::Lost | Self::Silent | Self::Stalled | Self::OutOfStep | Self::Engine)
    }

    /// Whether the same node may be asked again for this request, after all others: it may have come back as a
    /// new process. What an engine does wrong with this request, it will do again.
    pub(super) fn may_pass(self) -> bool {
        !matches!(self, Self::Stalled | Self::OutOfStep | Self::Caller)
    }
}

/// What the caller is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Ask this node to generate from token `resume_from` on; the tokens before it go with the request.
    Try {
        /// To be given back with all that is heard.
        number: TryNumber,
        /// Whom, and why.
        choice: Box<Choice>,
        /// Tokens that the client already has.
        resume_from: u32,
    },
    /// Pass the tokens just heard on to the client.
    Deliver {
        /// How many.
        count: u32,
    },
    /// Reset this try's stream. Tell [`Targets`](super::Targets) what happened.
    Abandon {
        /// Which.
        number: TryNumber,
        /// At whom.
        node: NodeId,
        /// Why; `None`: the client went away.
        failure: Option<Failure>,
    },
    /// Route again and hand the choices in.
    Refresh,
    /// The answer is whole.
    Done {
        /// Who finished it.
        node: NodeId,
    },
    /// Nobody can (go on to) answer. A stream ends in an error event, never in a finish reason.
    GiveUp(GiveUp),
}

/// Why an answer will not be whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum GiveUp {
    /// The request is wrong: pass the host's words on.
    #[error("the request is refused")]
    Caller,
    /// Every host is busy.
    #[error("every host is busy; try again in {retry_after}")]
    Busy {
        /// The shortest of their times.
        retry_after: Millis,
    },
    /// Nobody took over in time.
    #[error("no host took over after {delivered} tokens: {last}")]
    NobodyLeft {
        /// Tokens the client has.
        delivered: u32,
        /// What the last one died of.
        last: Failure,
    },
    /// Too many hosts broke off on it in a row.
    #[error("{tries} hosts in a row failed on this request after {delivered} tokens: {last}")]
    TooManyTries {
        /// How many.
        tries: u32,
        /// Tokens the client has.
        delivered: u32,
        /// What the last one died of.
        last: Failure,
    },
    /// The request's own time is over.
    #[error("the request's deadline has passed")]
    Deadline,
}

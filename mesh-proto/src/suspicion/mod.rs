//! Who is alive: a failure detector in SWIM's manner, for meshes whose links tell much; must not know records,
//! sockets or clocks.
//!
//! Each watched peer has one clock: when this node last heard from it, directly. A peer that is silent is
//! probed, then suspected while others are asked to probe it, then declared dead. Nobody's word kills: an
//! accusation only makes this node look for itself. And nobody's word revives for long: who is vouched for by
//! others but not heard here stays suspected, and is not routed to.
//!
//! ```text
//! heard ── 0.5 s ─ probe ── 1.2 s ─ suspect, ask 3 others ── 2.6 s ─ dead
//!   kill -9 or a cut link: declared after 2.1 to 2.6 s, whatever the QUIC idle time
//!   a peer that answers 1.5 s late: silent for 2.0 s at most, then heard as often as before
//! ```
//!
//! ```
//! use mesh_proto::{identity::NodeId, suspicion::*, time::Millis};
//!
//! let (me, peer) = (NodeId([1; 32]), NodeId([2; 32]));
//! let mut detector = Suspicion::new(me, 10, Config::default(), 7);
//! detector.handle(Input::Watch { node: peer, incarnation: 20 }, Millis(0));
//! detector.handle(Input::Heard(peer), Millis(100));
//! while detector.next_wakeup().is_some_and(|at| at < Millis(3000)) {
//!     let at = detector.next_wakeup().unwrap_or_default();
//!     detector.handle(Input::Wake, at);
//! }
//! assert!(matches!(detector.health(&peer), Some(Health::Dead { .. })));
//! ```

mod config;
mod frame;
mod hear;
mod machine;
mod peer;
mod watch;

pub use config::Config;
pub use frame::ProbeFrame;
pub use machine::{Effect, Input, Suspicion};
pub use peer::{Death, Doubt, Health};
pub use watch::{FULL_WATCH, Rewatch, WATCHERS, Watchlist, watched};

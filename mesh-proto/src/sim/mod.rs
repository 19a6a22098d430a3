//! A seeded world in which the machines are driven; must not know real time, sockets or threads.
//!
//! One seed gives one run: the same faults, the same deliveries, the same [`Run::trace`]. What must always
//! hold is checked after each step; what must hold in the end, in a calm after the last fault. A
//! [`Violation`] prints its seed and how to run it again; put it into the tests' list of seeds.
//!
//! - [`cluster`]: placement machines from 3 to 10,000 nodes under loss, reordering, partitions, crashes,
//!   restarts, drains, slow and lying nodes and skewed clocks.
//! - [`streams`]: doors whose generations must outlive their hosts.
//!
//! - [`world`]: whole nodes. Directory, failure detector, placement and demand together, over real frames.
//!
//! In [`cluster`] it is only modelled how records travel (broadcast with delay and loss, push-pull repair every two
//! seconds, deaths noticed within three), so that it plays more faults of placement in less time than [`world`].

mod agenda;
mod check;
pub mod cluster;
mod host;
mod node;
mod scenario;
pub mod streams;
mod trace;
pub mod world;

pub use scenario::{Fault, Lie, Scenario};
pub use trace::{Run, Violation};

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
//! How records travel is modelled here (broadcast with delay and loss, push-pull repair every two seconds,
//! deaths noticed within three), so that thousands of nodes fit one thread; the directory and suspicion
//! machines have tests of their own.

mod agenda;
mod check;
pub mod cluster;
mod host;
mod node;
mod scenario;
pub mod streams;
mod trace;

pub use scenario::{Fault, Lie, Scenario};
pub use trace::{Run, Violation};

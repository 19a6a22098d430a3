//! Which models the mesh is asked for, and how often; must not know clocks, records' encoding or who hosts what.
//!
//! Every node counts what its own door is asked ([`DemandMeter`]), publishes that, and adds up what each
//! node says of itself ([`DemandView`]). Nobody reports for a third party, and no node's word counts for
//! more than [`MAX_NODE_RATE`].

mod rate;
mod view;

pub use rate::{DecayedRate, HALF_LIFE};
pub use view::{DemandMeter, DemandView, MAX_DEMANDED_MODELS, MAX_NODE_RATE, ModelDemand, UNWANTED_BELOW};

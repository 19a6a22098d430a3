//! Who hosts which model; must not know sockets, records' encoding or requests in flight.
//!
//! Each node runs one [`Placement`] over what it believes of the others ([`HostView`]). For a wanted model
//! with a free place, the able node that ranks first ([`rank`]) claims a lease under a new term; where two
//! nodes claim one place, the higher (term, score) stays and the other steps down. A host is a preference
//! of the router, not a lock: two at once waste memory for a moment, and nothing else.

mod from_record;
mod key;
mod lease;
mod machine;
mod model;
mod score;
mod view;
mod wanted;

pub use from_record::weight;
pub use key::ModelKey;
pub use lease::{Claim, Fence, Lease, Phase, Slot, Stale, TERM_CEILING, Term};
pub use machine::{Effect, Input, Placement};
pub use model::{LOAD_BOUND, LOAD_RETRY, LOAD_RETRY_CEILING, SETTLE, STAGGER, StepDown, WARM_UP};
pub use score::{Capacity, MAX_WEIGHT, Ranked, Weight, rank, score};
pub use view::{HostView, ModelView};
pub use wanted::{DOWN_HOLD, DOWN_MARGIN, HOST_RATE, IDLE_HOLD, MAX_HOSTS, UP_HOLD, Wanted};

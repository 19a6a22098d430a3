//! Who is in the mesh and what each says of itself, kept equal on all nodes; must not know how bytes travel.
//!
//! A map from node to its newest believed record. Correctness comes from push-pull anti-entropy over an ALPN of
//! our own; gossip of fresh records ([`Announce`]) is the fast path and may lose anything.
//!
//! ```text
//! A → B  Digest   the whole range: how many, and the sum of their hashes        (30 bytes; ends here if equal)
//! B → A  Digest   sixteen sub-ranges, where they differ and are big; or
//!        Items    who is in it at which version, where they are small; or
//!        Records  all of it, where A has nothing
//! A → B  Records  what B lacks, each with its age,   and   Want   what A lacks
//! B → A  Records
//! ```
//!
//! Three fences keep the dead dead: versions only grow, a tombstone remembers the last one for as long as the
//! node's certificate stands, and a record carries its age, so that relaying does not make it younger.

mod budget;
mod event;
mod frame;
mod judge;
mod live;
mod machine;
mod range;
mod reach;
mod store;
mod sync;

pub use event::{Effect, Input};
pub use frame::{Aged, Announce, Item, SyncFrame};
pub use judge::{Believed, Judge};
pub use live::Entry;
pub use machine::{Directory, MAX_NODES, REACH_EVERY, ROUND};
pub use range::{Range, RangeDigest};
pub use store::Gone;

//! Events to responses and their stream, pure; must not know where events come from or how they travel.
//!
//! Reasoning is told as open models' servers tell it: in clear, as `reasoning_text` parts of the item's content. Its
//! summary stays empty, since nobody here sums it up.

mod object;
mod writer;

pub(super) use writer::{Told, Writer};

use super::{
    Head,
    lower::{Echo, Names},
};

#[cfg(test)]
mod tests;

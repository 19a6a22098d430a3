//! `catalog::hub` against a hub of ours that misbehaves on demand: what is fetched, how often, and what is left behind.
#![allow(clippy::unwrap_used, reason = "a test's helpers may fail loudly")]

mod cache;
mod elsewhere;
mod faults;
mod fetch;
mod full;
mod ranges;
mod resume;
mod support;

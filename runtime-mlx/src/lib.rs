//! x
mod config;
mod decoder;
mod error;
mod families;
mod kv;
mod layers;
mod load;
mod loader;
mod memory;
mod prefix;
mod sampling;
#[cfg(test)]
mod parity;
mod step;
mod sys;
mod weights;
pub use error::MlxError;

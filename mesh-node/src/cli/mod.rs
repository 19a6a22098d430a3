//! The command line: as typed, then as meant; must not know how anything is served.

mod config;
mod env;
mod log;
pub mod say;
mod typed;

pub use config::{Config, Listen, LogFormat, Logging, ModelSource, Serving};
pub use env::Environment;
pub use log::start as start_log;
pub use typed::Typed;

//! The command line: as typed, then as meant; must not know how anything is served.

mod config;
mod env;
mod gguf;
mod hub;
mod keys;
mod log;
mod manage;
mod mesh;
mod models;
pub mod say;
pub(crate) mod screen;
mod timeouts;
mod typed;

pub use config::{Command, Config, Console, Listen, LogFormat, Logging, ModelSource, Serving};
pub use env::Environment;
pub use gguf::GgufServing;
pub use log::start as start_log;
pub use manage::{Ask, CONSOLE_PORT, Manage, TicketTerms};
pub use mesh::{MeshOptions, Relay, Share, Way};
pub use models::{Choice, Models, ModelsAsk};
pub use typed::Typed;

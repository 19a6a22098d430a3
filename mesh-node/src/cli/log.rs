//! The log, to standard error; must not know what is logged.

use std::io::{self, IsTerminal};

use clap::error::ErrorKind;
use tracing_subscriber::EnvFilter;

use super::{LogFormat, Logging, config::usage, screen};

/// Our own notes, and others' warnings. The engine's note on each generation would only repeat the request's.
const DEFAULT: &str = "warn,mesh_llm=info,mesh_node=info,runtime_mlx=info,runtime_gguf_bridge=info,catalog=info,\
                       iroh=error,iroh_gossip=error,iroh_relay=error,swarm_discovery=error";

/// Starts logging for the whole process.
///
/// # Errors
/// A usage error, when the filter is none.
pub fn start(logging: &Logging) -> Result<(), clap::Error> {
    let directives = logging.filter.as_deref().unwrap_or(DEFAULT);
    let filter = EnvFilter::try_new(directives)
        .map_err(|e| usage(ErrorKind::InvalidValue, format!("MESH_LLM_LOG or RUST_LOG: {e}")))?;
    let coloured = io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_writer(screen::Lines).with_ansi(coloured).with_env_filter(filter);
    match logging.format {
        LogFormat::Text => log.with_target(false).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    Ok(())
}

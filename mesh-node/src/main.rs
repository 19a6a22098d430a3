//! `mesh-llm`: reads the command line, serves, and tells how it ended; must not know more.

use anyhow::Context;
use clap::Parser;
use mesh_node::{
    cli::{self, Config, Environment, Typed, say},
    node,
};

/// 0: ended as asked. 2: usage (clap's own). 1: anything else.
fn main() {
    let config = Config::from(Typed::parse(), Environment::read()).unwrap_or_else(|error| error.exit());
    cli::start_log(&config.logging).unwrap_or_else(|error| error.exit());
    let code = match serve(config) {
        Ok(()) => 0,
        Err(error) => {
            say::failure(format!("{error:#}"));
            1
        }
    };
    // Not `return`: that runs the exit handlers of C++ libraries, which pull OpenBLAS from under MLX's own threads
    // while these still compute the step after the last one. (seen as SIGSEGV and SIGABRT, a few in several hundred exits)
    signal_hook::low_level::exit(code)
}

fn serve(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    Ok(runtime.block_on(node::serve(config.serving))?)
}

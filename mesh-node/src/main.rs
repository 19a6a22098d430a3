//! `mesh-llm`: reads the command line, does what it says, and tells how it ended; must not know more.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use mesh_node::{
    GUARD,
    cli::{self, Command, Config, Environment, Typed, say},
    manage, models, node,
};
use runtime_gguf_bridge::guard_main;

/// 0: ended as asked. 2: usage (clap's own). 1: anything else.
fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == GUARD) {
        // Not this program's command line, and nothing of a node: the process that ends a llama-server with its node.
        return guard_main(arguments);
    }
    mesh_node::choose_tls();
    let config = Config::from(Typed::parse(), Environment::read()).unwrap_or_else(|error| error.exit());
    cli::start_log(&config.logging).unwrap_or_else(|error| error.exit());
    let code = match run(config.command) {
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

fn run(command: Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let result = match command {
        Command::Serve(serving) => runtime.block_on(node::serve(*serving)).map_err(Into::into),
        Command::Manage(manage) => runtime.block_on(manage::run(manage)).map_err(Into::into),
        Command::Models(asked) => runtime.block_on(models::run(asked)).map_err(Into::into),
    };
    // A model that is still being read when the node is stopped is no reason to wait.
    runtime.shutdown_background();
    result
}

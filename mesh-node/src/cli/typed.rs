//! The command line as typed: names, help and syntax; must not know what flags mean together.
//!
//! A flag stands here when it works. One that does not is unknown, so that nobody believes in it.

use std::{net::IpAddr, path::PathBuf};

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, builder::NonEmptyStringValueParser};

use super::LogFormat;

/// One LLM endpoint, OpenAI's API, models computed in this process by MLX.
#[derive(Parser)]
#[command(name = "mesh-llm", version, args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub struct Typed {
    #[command(subcommand)]
    pub(super) verb: Option<Verb>,
    #[command(flatten)]
    pub(super) serve: ServeArgs,
}

const EXAMPLES: &str = "Examples:
  mesh-llm --model mesh-tiny --mlx                 the tiny model that lies in this binary
  mesh-llm --mlx-file ~/models/Qwen3-4B-4bit       a folder that you have

Environment: MESH_LLM_API_KEY (as --api-key), MESH_LLM_LOG or RUST_LOG (what is logged, e.g. debug),
MESH_LLM_CACHE (default: mesh-llm in XDG_CACHE_HOME or ~/.cache)";

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Serve models (the default)
    Serve(ServeArgs),
}

#[derive(Args)]
pub(super) struct ServeArgs {
    /// Serve this model: mesh-tiny, or a folder; repeat for more
    #[arg(long = "model", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(super) models: Vec<String>,
    /// Compute the models named with --model by MLX
    #[arg(long)]
    pub(super) mlx: bool,
    /// Serve the MLX model in this folder, or around this file; repeat for more
    #[arg(long = "mlx-file", value_name = "DIR_OR_SAFETENSORS")]
    pub(super) mlx_files: Vec<PathBuf>,
    /// Port of the API; 0 takes any that is free
    #[arg(long, default_value_t = 9337)]
    pub(super) port: u16,
    /// Address of the API; 0.0.0.0 or :: is every address of this machine
    #[arg(long, default_value = "127.0.0.1")]
    pub(super) host: IpAddr,
    /// Answer only who sends this key; repeat for more (MESH_LLM_API_KEY does not show in the process list)
    #[arg(long = "api-key", value_name = "KEY", value_parser = NonEmptyStringValueParser::new())]
    pub(super) api_keys: Vec<String>,
    /// Most tokens of prompt and answer together [default: what the model was made for]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) ctx_size: Option<u32>,
    /// Most answers computed at the same time, for each model; more wait
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(super) parallel: u32,
    /// Most memory that each model may take, weights and KV cache, e.g. 8GiB [default: what the machine has]
    #[arg(long, value_name = "SIZE")]
    pub(super) max_memory: Option<ByteSize>,
    /// How the log is written, to standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(super) log_format: LogFormat,
}

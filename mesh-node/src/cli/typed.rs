//! The command line as typed: names, help and syntax; must not know what flags mean together.
//!
//! A flag stands here when it works. One that does not is unknown, so that nobody believes in it.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, builder::NonEmptyStringValueParser};

use super::{LogFormat, gguf::GgufArgs, manage::ManageVerb, models::ModelsVerb};

/// One LLM endpoint out of several machines: OpenAI's API, models computed by MLX in this process or by llama-server.
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
  mesh-llm --model mesh-tiny --gguf                the same in llama-server
  mesh-llm --mlx-file ~/models/Qwen3-4B-4bit       a folder that you have
  mesh-llm --gguf-file ~/models/Qwen3-4B-Q4_K_M.gguf    a file that you have
  mesh-llm --mesh-name home --ticket-file t        found a mesh, and write a ticket for it to t
  mesh-llm --model mesh-tiny --mlx --join-file t   join it, from another machine
  mesh-llm client --join-file t                    no model here, all of the mesh's
  mesh-llm models list --fits                      what this machine has the memory for

A ticket is a password. Typed after --join, it shows in the process list and in the shell's history; --join-file and \
MESH_LLM_JOIN keep it out of both.

Environment: MESH_LLM_API_KEY (as --api-key; several with commas between), MESH_LLM_API_KEY_FILE (as --api-key-file), \
MESH_LLM_JOIN (as --join), MESH_LLM_STATE (as --state), MESH_LLM_LOG or \
RUST_LOG (what is logged, e.g. debug), MESH_LLM_CACHE (files that can be made again; default: mesh-llm in \
XDG_CACHE_HOME or ~/.cache), HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_TOKEN_PATH, HF_ENDPOINT, HF_HUB_OFFLINE (downloads: as the \
hub's own tools)";

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Serve models (the default); without one, load it later with `mesh-llm load`
    Serve(Box<ServeArgs>),
    /// Join a mesh without models of one's own: the local port is a door to it
    Client(Box<ClientArgs>),
    /// Models: what there is, and what of it fits this machine
    #[command(subcommand)]
    Models(ModelsVerb),
    #[command(flatten)]
    Manage(ManageVerb),
}

#[derive(Args)]
pub(super) struct ServeArgs {
    /// Serve this model: mesh-tiny, a name of `models list`, ORG/NAME[@REVISION][:QUANT] of the hub, or a folder; repeat for
    /// more. What is not here is downloaded
    #[arg(long = "model", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(super) models: Vec<String>,
    /// Compute the models named with --model by MLX, in this process
    #[arg(long, conflicts_with = "gguf")]
    pub(super) mlx: bool,
    /// Compute the models named with --model by llama-server
    #[arg(long)]
    pub(super) gguf: bool,
    /// Serve the MLX model in this folder, or around this file; repeat for more
    #[arg(long = "mlx-file", value_name = "DIR_OR_SAFETENSORS")]
    pub(super) mlx_files: Vec<PathBuf>,
    /// Serve the GGUF model in this file, or in this folder; of one in parts, the first; repeat for more
    #[arg(long = "gguf-file", value_name = "FILE")]
    pub(super) gguf_files: Vec<PathBuf>,
    /// Ask no hub: serve what is on this machine (also HF_HUB_OFFLINE)
    #[arg(long)]
    pub(super) offline: bool,
    /// Most tokens of prompt and answer together [default: what the model was made for]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) ctx_size: Option<u32>,
    /// Most answers computed at the same time, for each model; more wait
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(super) parallel: u32,
    /// Most memory that each model may take, weights and KV cache, e.g. 8GiB [default: what the machine has]
    #[arg(long, value_name = "SIZE")]
    pub(super) max_memory: Option<ByteSize>,
    #[command(flatten)]
    pub(super) door: DoorArgs,
    /// Found a mesh of this name
    #[arg(long, value_name = "NAME", conflicts_with_all = ["joins", "join_file"], help_heading = "Mesh")]
    pub(super) mesh_name: Option<String>,
    /// Write a ticket for the founded mesh to this file, for its owner's eyes only
    #[arg(long, value_name = "FILE", requires = "mesh_name", help_heading = "Mesh")]
    pub(super) ticket_file: Option<PathBuf>,
    /// Give no model files to the mesh's other nodes [default: those of repositories that are open to everybody]
    #[arg(long, conflicts_with = "shares", help_heading = "Mesh")]
    pub(super) no_share: bool,
    /// Give the files of this repository to the mesh's other nodes although it is gated or private; repeat for more
    #[arg(long = "share", value_name = "ORG/NAME", help_heading = "Mesh")]
    pub(super) shares: Vec<String>,
    #[command(flatten)]
    pub(super) mesh: MeshArgs,
    #[command(flatten)]
    pub(super) llama: GgufArgs,
}

// The door comes first: a heading holds for all flags behind it.
#[derive(Args)]
pub(super) struct ClientArgs {
    #[command(flatten)]
    pub(super) door: DoorArgs,
    #[command(flatten)]
    pub(super) mesh: MeshArgs,
}

/// What this node offers to its own machine.
#[derive(Args)]
pub(super) struct DoorArgs {
    /// Port of the API; 0 takes any that is free
    #[arg(long, default_value_t = 9337)]
    pub(super) port: u16,
    /// Address of the API; 0.0.0.0 or :: is every address of this machine
    #[arg(long, default_value = "127.0.0.1")]
    pub(super) host: IpAddr,
    /// Answer only who sends this key; repeat for more (MESH_LLM_API_KEY does not show in the process list)
    #[arg(long = "api-key", value_name = "KEY", value_parser = NonEmptyStringValueParser::new())]
    pub(super) api_keys: Vec<String>,
    /// Answer only who sends a key of this file, which has one a line; with --api-key, of either
    #[arg(long, value_name = "FILE")]
    pub(super) api_key_file: Option<PathBuf>,
    /// Port of the management API, on the loopback address only; 0 takes any that is free [default: 3131]
    #[arg(long, value_name = "PORT")]
    pub(super) console: Option<u16>,
    /// No management API: load, unload, status, stop, ticket and expel do not reach this node
    #[arg(long, conflicts_with = "console")]
    pub(super) no_console: bool,
    #[command(flatten)]
    pub(super) state: StateArg,
    /// How the log is written, to standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(super) log_format: LogFormat,
}

/// Where a node keeps what must not be lost.
#[derive(Args)]
pub(super) struct StateArg {
    /// Folder of the node's key, certificates and console token [default: mesh-llm in XDG_STATE_HOME or ~/.local/state]
    #[arg(long = "state", value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
}

/// How this node meets others.
#[derive(Args)]
#[command(next_help_heading = "Mesh")]
pub(super) struct MeshArgs {
    /// Join the mesh of this ticket, which then shows in the process list; repeat for more ways in
    // No parser: clap would print what it refuses, and a ticket is a password.
    #[arg(long = "join", value_name = "TICKET")]
    pub(super) joins: Vec<String>,
    /// Join the mesh of the ticket in this file
    #[arg(long, value_name = "FILE")]
    pub(super) join_file: Option<PathBuf>,
    /// UDP address of the mesh; once for IPv4 and once for IPv6 [default: every address, at the port it had last]
    #[arg(long = "bind", value_name = "ADDR:PORT")]
    pub(super) binds: Vec<SocketAddr>,
    /// Use this relay where nodes cannot reach each other directly [default: iroh's public ones]
    #[arg(long, value_name = "URL")]
    pub(super) relay: Option<String>,
    /// Use no relay: nodes that cannot reach each other directly do not meet
    #[arg(long, conflicts_with = "relay")]
    pub(super) no_relay: bool,
    /// Do not look for the mesh's nodes on the local network
    #[arg(long)]
    pub(super) no_mdns: bool,
    /// How long a phase of a request to another node may take before the next node is asked, e.g. connect=1500ms;
    /// repeat for more. Phases: connect, first-event, between-events, stall, take-over
    #[arg(long = "timeout", value_name = "PHASE=TIME")]
    pub(super) timeouts: Vec<String>,
}

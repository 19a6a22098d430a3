//! The command line and the environment as meant, one tree; must not know clap's attributes or how values are used.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use catalog::{Format, hub::HubConfig};
use clap::{CommandFactory, ValueEnum, error::ErrorKind};
use mesh_proto::{identity::MemberRole, routing::AttemptConfig};

use super::{
    CONSOLE_PORT, Environment, GgufServing, Manage, MeshOptions, Models, Typed,
    gguf::GgufArgs,
    keys,
    manage::state,
    mesh::{self, Beside},
    models::folder,
    timeouts,
    typed::{ClientArgs, DoorArgs, ServeArgs, Verb},
};
use crate::api::Keys;

/// All that was asked for.
#[derive(Clone, Debug)]
pub struct Config {
    /// How to log.
    pub logging: Logging,
    /// What to do.
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// Be a node.
    Serve(Box<Serving>),
    /// Have a word with one.
    Manage(Manage),
    /// Say what models there are.
    Models(Models),
}

/// How to log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logging {
    /// How lines look.
    pub format: LogFormat,
    /// What is logged, in tracing's filter language; `None`: our own notes and others' warnings.
    pub filter: Option<String>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines, one object a line.
    Json,
}

/// What to serve, and where.
#[derive(Clone, Debug)]
pub struct Serving {
    /// The models, as named.
    pub models: Vec<ModelSource>,
    /// Where the API listens.
    pub listen: Listen,
    /// Who may use it.
    pub keys: Keys,
    /// The mesh that it is in; `None`: alone.
    pub mesh: Option<MeshOptions>,
    /// How long requests to other nodes may take.
    pub timeouts: AttemptConfig,
    /// Where the management API listens.
    pub console: Console,
    /// Where files lie that can be made again: bundled models, hashes.
    pub cache: PathBuf,
    /// Where files lie that must not be lost: keys, tokens.
    pub state: PathBuf,
    /// Most tokens of a sequence; `None`: the model's own limit.
    pub context_tokens: Option<u32>,
    /// Most sequences at once, for each model.
    pub parallel: u32,
    /// Most bytes of memory, for each model.
    pub max_memory: Option<u64>,
    /// Where models are downloaded from, and to; `None`: there is no folder for them.
    pub hub: Option<HubConfig>,
    /// What GGUF models are served with.
    pub gguf: GgufServing,
}

/// Where the API listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The address.
    pub host: IpAddr,
    /// The port; 0: any.
    pub port: u16,
}

impl Listen {
    /// Both together.
    pub fn address(self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }
}

/// Where the management API listens, on the loopback address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Console {
    /// Nowhere.
    Off,
    /// At the usual port if that is free.
    Usual,
    /// At this port or not at all; 0: any.
    At(u16),
}

impl Console {
    /// The port to try.
    pub fn port(self) -> Option<u16> {
        match self {
            Self::Off => None,
            Self::Usual => Some(CONSOLE_PORT),
            Self::At(port) => Some(port),
        }
    }
}

/// A model, as the command line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// `--model NAME`, with `--mlx`, `--gguf`, or neither.
    Named(String, Option<Format>),
    /// `--mlx-file PATH`.
    MlxFile(PathBuf),
    /// `--gguf-file PATH`.
    GgufFile(PathBuf),
}

impl ModelSource {
    /// Whether MLX was asked for.
    pub fn is_mlx(&self) -> bool {
        matches!(self, Self::Named(_, Some(Format::Mlx)) | Self::MlxFile(_))
    }
}

impl Config {
    /// What was meant.
    ///
    /// # Errors
    /// A usage error, when flags or variables do not fit together.
    pub fn from(typed: Typed, environment: Environment) -> Result<Self, clap::Error> {
        let logging = Logging {
            format: LogFormat::default(),
            filter: environment.log.clone().map(|log| text("MESH_LLM_LOG", log)).transpose()?,
        };
        let (args, role) = match typed.verb {
            Some(Verb::Manage(verb)) => {
                return Ok(Self { logging, command: Command::Manage(verb.meant(environment.state)?) });
            }
            Some(Verb::Models(verb)) => {
                return Ok(Self {
                    logging,
                    command: Command::Models(verb.meant(environment.cache, &environment.hub)?),
                });
            }
            Some(Verb::Client(args)) => (client(*args), MemberRole::Client),
            Some(Verb::Serve(args)) => (*args, MemberRole::Serve),
            None => (typed.serve, MemberRole::Serve),
        };
        let logging = Logging { format: args.door.log_format, ..logging };
        Ok(Self { logging, command: Command::Serve(Box::new(serving(args, role, environment)?)) })
    }
}

/// A node without models is told the same as one with them, less what is about models.
fn client(args: ClientArgs) -> ServeArgs {
    ServeArgs {
        models: Vec::new(),
        mlx: false,
        gguf: false,
        mlx_files: Vec::new(),
        gguf_files: Vec::new(),
        offline: false,
        ctx_size: None,
        parallel: 1,
        max_memory: None,
        mesh_name: None,
        ticket_file: None,
        no_share: false,
        shares: Vec::new(),
        mesh: args.mesh,
        door: args.door,
        llama: GgufArgs::default(),
    }
}

fn serving(args: ServeArgs, role: MemberRole, environment: Environment) -> Result<Serving, clap::Error> {
    if args.mlx && args.models.is_empty() {
        return Err(usage(ErrorKind::MissingRequiredArgument, "--mlx needs --model NAME (--mlx-file goes without it)"));
    }
    if args.gguf && args.models.is_empty() {
        return Err(usage(
            ErrorKind::MissingRequiredArgument,
            "--gguf needs --model NAME (--gguf-file goes without it)",
        ));
    }
    let cache = folder(environment.cache)?;
    let DoorArgs { port, host, api_keys, api_key_file, console, no_console, state: folder, .. } = args.door;
    let keys = keys::meant(api_keys, api_key_file, environment.api_key, environment.api_key_file)?;
    let state = state(folder, environment.state)?;
    let beside = Beside {
        role,
        mesh_name: args.mesh_name,
        ticket_file: args.ticket_file,
        share: mesh::share(args.no_share, args.shares)?,
        environment: environment.join,
        state: state.clone(),
    };
    let timeouts = timeouts::meant(&args.mesh.timeouts)?;
    let mesh = mesh::meant(args.mesh, beside)?;
    if role == MemberRole::Client && mesh.is_none() {
        let message = "client needs a mesh: --join TICKET, --join-file FILE or MESH_LLM_JOIN";
        return Err(usage(ErrorKind::MissingRequiredArgument, message));
    }
    let format = match (args.mlx, args.gguf) {
        (true, _) => Some(Format::Mlx),
        (_, true) => Some(Format::Gguf),
        _ => None,
    };
    let by_mlx = args.mlx_files.len() + if args.mlx { args.models.len() } else { 0 };
    let others = args.gguf_files.len() + if args.mlx { 0 } else { args.models.len() };
    let gguf = args.llama.meant(by_mlx, others)?;
    let named = args.models.into_iter().map(|name| ModelSource::Named(name, format));
    let mlx_files = args.mlx_files.into_iter().map(ModelSource::MlxFile);
    let gguf_files = args.gguf_files.into_iter().map(ModelSource::GgufFile);
    Ok(Serving {
        models: named.chain(mlx_files).chain(gguf_files).collect(),
        listen: Listen { host, port },
        keys,
        mesh,
        timeouts,
        console: match console {
            _ if no_console => Console::Off,
            None => Console::Usual,
            Some(port) => Console::At(port),
        },
        cache,
        state,
        context_tokens: args.ctx_size,
        parallel: args.parallel,
        max_memory: args.max_memory.map(|size| size.as_u64()),
        hub: environment.hub.meant(args.offline),
        gguf,
    })
}

/// The value itself stays out of the message: it may be a key.
pub(super) fn text(name: &str, value: std::ffi::OsString) -> Result<String, clap::Error> {
    value.into_string().map_err(|_| usage(ErrorKind::InvalidUtf8, format!("{name} is not UTF-8")))
}

pub(super) fn usage(kind: ErrorKind, message: impl std::fmt::Display) -> clap::Error {
    Typed::command().error(kind, message)
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;

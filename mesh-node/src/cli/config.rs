//! The command line and the environment as meant, one tree; must not know clap's attributes or how values are used.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use clap::{CommandFactory, ValueEnum, error::ErrorKind};

use super::{Environment, Typed, typed::Verb};
use crate::api::Keys;

/// All that was asked for.
#[derive(Clone, Debug)]
pub struct Config {
    /// How to log.
    pub logging: Logging,
    /// What to serve, and where.
    pub serving: Serving,
}

/// How to log.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Where bundled models are laid out.
    pub cache: PathBuf,
    /// Most tokens of a sequence; `None`: the model's own limit.
    pub context_tokens: Option<u32>,
    /// Most sequences at once, for each model.
    pub parallel: u32,
    /// Most bytes of memory, for each model.
    pub max_memory: Option<u64>,
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

/// A model, as the command line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// `--model NAME --mlx`.
    Named(String),
    /// `--mlx-file PATH`.
    MlxFile(PathBuf),
}

impl Config {
    /// What was meant.
    ///
    /// # Errors
    /// A usage error, when flags or variables do not fit together.
    pub fn from(typed: Typed, environment: Environment) -> Result<Self, clap::Error> {
        let args = match typed.verb {
            Some(Verb::Serve(args)) => args,
            None => typed.serve,
        };
        if args.mlx && args.models.is_empty() {
            return Err(usage(
                ErrorKind::MissingRequiredArgument,
                "--mlx needs --model NAME (--mlx-file goes without it)",
            ));
        }
        if args.models.is_empty() && args.mlx_files.is_empty() {
            return Err(usage(ErrorKind::MissingRequiredArgument, "name a model: --model mesh-tiny --mlx"));
        }
        if let Some(model) = args.models.first().filter(|_| !args.mlx) {
            let message = format!("--model {model} needs --mlx: GGUF models do not work yet");
            return Err(usage(ErrorKind::MissingRequiredArgument, message));
        }
        let cache = environment.cache.ok_or_else(|| {
            usage(
                ErrorKind::MissingRequiredArgument,
                "there is no home folder: set MESH_LLM_CACHE to a folder for files",
            )
        })?;
        let keys = if args.api_keys.is_empty() {
            let key = environment.api_key.map(|key| text("MESH_LLM_API_KEY", key)).transpose()?;
            Keys::new(key.as_deref())
        } else {
            Keys::new(args.api_keys.iter().map(String::as_str))
        };
        let named = args.models.into_iter().map(ModelSource::Named);
        let files = args.mlx_files.into_iter().map(ModelSource::MlxFile);
        Ok(Self {
            logging: Logging {
                format: args.log_format,
                filter: environment.log.map(|log| text("MESH_LLM_LOG", log)).transpose()?,
            },
            serving: Serving {
                models: named.chain(files).collect(),
                listen: Listen { host: args.host, port: args.port },
                keys,
                cache,
                context_tokens: args.ctx_size,
                parallel: args.parallel,
                max_memory: args.max_memory.map(|size| size.as_u64()),
            },
        })
    }
}

/// The value itself stays out of the message: it may be a key.
fn text(name: &str, value: std::ffi::OsString) -> Result<String, clap::Error> {
    value.into_string().map_err(|_| usage(ErrorKind::InvalidUtf8, format!("{name} is not UTF-8")))
}

pub(super) fn usage(kind: ErrorKind, message: impl std::fmt::Display) -> clap::Error {
    Typed::command().error(kind, message)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn config(line: &str) -> Result<Config, String> {
        config_with(line, Environment { cache: Some("/cache".into()), ..Environment::default() })
    }

    fn config_with(line: &str, environment: Environment) -> Result<Config, String> {
        let words = std::iter::once("mesh-llm").chain(line.split_whitespace());
        let typed = Typed::try_parse_from(words).map_err(|e| e.to_string())?;
        Config::from(typed, environment).map_err(|e| e.to_string())
    }

    #[test]
    fn clap_finds_no_fault_in_the_command() {
        Typed::command().debug_assert();
    }

    #[test]
    fn serve_is_the_default_verb() {
        for line in ["--model mesh-tiny --mlx", "serve --model mesh-tiny --mlx"] {
            let serving = config(line).unwrap().serving;
            assert_eq!(serving.models, [ModelSource::Named("mesh-tiny".into())]);
            assert_eq!(serving.listen.address().to_string(), "127.0.0.1:9337");
            assert_eq!((serving.parallel, serving.context_tokens, serving.max_memory), (64, None, None));
            assert!(serving.keys.is_open());
        }
    }

    #[test]
    fn every_flag_arrives() {
        let line = "--model a --model ./b --mlx --mlx-file c --port 0 --host ::1 --api-key k --ctx-size 4096 \
                    --parallel 2 --max-memory 8GiB --log-format json";
        let Config { logging, serving } = config(line).unwrap();
        let named = |name: &str| ModelSource::Named(name.into());
        assert_eq!(serving.models, [named("a"), named("./b"), ModelSource::MlxFile("c".into())]);
        assert_eq!(serving.listen.address().to_string(), "[::1]:0");
        assert_eq!((serving.parallel, serving.context_tokens, serving.max_memory), (2, Some(4096), Some(8 << 30)));
        assert_eq!(logging.format, LogFormat::Json);
        assert!(!serving.keys.is_open());
    }

    #[test]
    fn what_does_not_work_yet_is_an_error() {
        for (line, said) in [
            ("", "name a model"),
            ("serve", "name a model"),
            ("--model x", "needs --mlx"),
            ("--mlx", "needs --model"),
            ("--model x --gguf", "--gguf"),
            ("--model x --mlx --join t", "--join"),
            ("--model x --mlx --draft y", "--draft"),
            ("client --join t", "client"),
            ("status", "status"),
            ("--model x --mlx --parallel 0", "--parallel"),
            ("--model x --mlx --ctx-size -1", "-1"),
            ("--model x --mlx --port 70000", "--port"),
            ("--model x --mlx --max-memory lots", "--max-memory"),
            ("--model x --mlx --log-format xml", "--log-format"),
        ] {
            let error = config(line).map(|_| ()).unwrap_err();
            assert!(error.contains(said), "{line}: {error}");
        }
    }

    #[test]
    fn a_key_comes_from_the_environment_unless_it_was_typed() {
        let environment =
            Environment { cache: Some("/cache".into()), api_key: Some("from-env".into()), log: Some("debug".into()) };
        let Config { serving, logging } = config_with("--model x --mlx", environment).unwrap();
        assert!(!serving.keys.is_open());
        assert_eq!(logging.filter.as_deref(), Some("debug"));
    }

    #[test]
    fn without_a_home_the_cache_must_be_named() {
        assert!(config_with("--model x --mlx", Environment::default()).unwrap_err().contains("MESH_LLM_CACHE"));
    }
}

//! The verbs about models that need no running node: as typed, then as meant; must not know how they are carried out.

use std::path::PathBuf;

use catalog::Format;
use clap::{Args, Subcommand, builder::NonEmptyStringValueParser, error::ErrorKind};

use super::config::usage;

#[derive(Subcommand)]
pub(super) enum ModelsVerb {
    /// List the models known by name: in this binary, and in its catalog
    List(ListArgs),
    /// Say what a model is and whether it fits this machine, term by term
    Show(ShowArgs),
}

#[derive(Args)]
struct FormArgs {
    /// Only MLX
    #[arg(long, conflicts_with = "gguf")]
    mlx: bool,
    /// Only GGUF
    #[arg(long)]
    gguf: bool,
}

impl FormArgs {
    fn format(&self) -> Option<Format> {
        if self.mlx { Some(Format::Mlx) } else { self.gguf.then_some(Format::Gguf) }
    }
}

#[derive(Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    form: FormArgs,
    /// Only what fits this machine's memory; a graphics card's own is not looked at
    #[arg(long)]
    fits: bool,
    /// Also what no engine of this version serves yet
    #[arg(long)]
    all: bool,
    /// Print JSON, for scripts
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct ShowArgs {
    /// Its name as `models list` has it, its repository there, or the path of one that you have
    #[arg(value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    name: String,
    #[command(flatten)]
    form: FormArgs,
    /// Print JSON, for scripts
    #[arg(long)]
    json: bool,
}

/// A question about models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Models {
    /// What is asked.
    pub ask: ModelsAsk,
    /// Where files lie that can be made again: bundled models.
    pub cache: PathBuf,
    /// Answer in JSON.
    pub json: bool,
}

/// What is asked about models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelsAsk {
    /// `models list`.
    List(Choice),
    /// `models show NAME`, with `--mlx`, `--gguf`, or neither.
    Show(String, Option<Format>),
}

/// Which models are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// `--mlx`, `--gguf`; `None`: both.
    pub format: Option<Format>,
    /// Only what fits.
    pub fits: bool,
    /// Also what no engine of this version serves.
    pub all: bool,
}

impl ModelsVerb {
    pub(super) fn meant(self, cache: Option<PathBuf>) -> Result<Models, clap::Error> {
        let cache = folder(cache)?;
        Ok(match self {
            Self::List(ListArgs { form, fits, all, json }) => {
                Models { ask: ModelsAsk::List(Choice { format: form.format(), fits, all }), cache, json }
            }
            Self::Show(ShowArgs { name, form, json }) => {
                Models { ask: ModelsAsk::Show(name, form.format()), cache, json }
            }
        })
    }
}

/// The cache folder.
pub(super) fn folder(cache: Option<PathBuf>) -> Result<PathBuf, clap::Error> {
    cache.ok_or_else(|| {
        usage(ErrorKind::MissingRequiredArgument, "there is no home folder: set MESH_LLM_CACHE to a folder for files")
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Command, Config, Environment, Typed};

    fn models_in(line: &str, environment: Environment) -> Result<Models, String> {
        let words = std::iter::once("mesh-llm").chain(line.split_whitespace());
        let typed = Typed::try_parse_from(words).map_err(|e| e.to_string())?;
        match Config::from(typed, environment).map_err(|e| e.to_string())?.command {
            Command::Models(models) => Ok(models),
            _ => Err("something else".into()),
        }
    }

    fn models(line: &str) -> Result<Models, String> {
        models_in(line, Environment { cache: Some("/cache".into()), ..Environment::default() })
    }

    #[test]
    fn what_is_asked_arrives() {
        let list = |format, fits, all| ModelsAsk::List(Choice { format, fits, all });
        let show = |format| ModelsAsk::Show("m".into(), format);
        for (line, ask) in [
            ("list", list(None, false, false)),
            ("list --mlx", list(Some(Format::Mlx), false, false)),
            ("list --gguf --fits --all", list(Some(Format::Gguf), true, true)),
            ("show m", show(None)),
            ("show m --mlx", show(Some(Format::Mlx))),
            ("show --gguf m", show(Some(Format::Gguf))),
        ] {
            for (more, json) in [("", false), (" --json", true)] {
                let expected = Models { ask: ask.clone(), cache: "/cache".into(), json };
                assert_eq!(models(&format!("models {line}{more}")).unwrap(), expected, "{line}");
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (line, said) in [
            ("models", "list"),
            ("models list x", "x"),
            ("models list --mlx --gguf", "--gguf"),
            ("models show", "NAME"),
            ("models show a b", "b"),
            ("models show a --fits", "--fits"),
            ("models forget", "forget"),
        ] {
            let error = models(line).unwrap_err();
            assert!(error.contains(said), "{line}: {error}");
        }
        assert!(models_in("models list", Environment::default()).unwrap_err().contains("MESH_LLM_CACHE"));
    }
}

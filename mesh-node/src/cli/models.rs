//! The verbs about models that need no running node: as typed, then as meant; must not know how they are carried out.

use std::path::PathBuf;

use catalog::{Format, hub::HubConfig};
use clap::{Args, Subcommand, builder::NonEmptyStringValueParser, error::ErrorKind};

use super::{config::usage, hub::HubEnvironment};

#[derive(Subcommand)]
pub(super) enum ModelsVerb {
    /// List the models known by name: in this binary, and in its catalog
    List(ListArgs),
    /// Say what a model is and whether it fits this machine, term by term
    Show(ShowArgs),
    /// Search the hub
    Search(SearchArgs),
    /// Download a model, or the rest of it, to serve it later
    Download(DownloadArgs),
    /// Compare every file of a downloaded repository with its checksum
    Verify(RepoArgs),
    /// Take a downloaded repository off the disk; without --yes, only say what would go
    Delete(DeleteArgs),
    /// Take off the disk what no revision of a downloaded repository needs; without --yes, only say what would go
    Prune(PruneArgs),
}

#[derive(Args)]
pub(super) struct SearchArgs {
    /// What to look for
    #[arg(value_name = "WORDS", required = true, value_parser = NonEmptyStringValueParser::new())]
    words: Vec<String>,
    #[command(flatten)]
    form: FormArgs,
    /// Most repositories, those with the most downloads first
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Print JSON, for scripts
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct DownloadArgs {
    /// A name of `models list`, or ORG/NAME[@REVISION][:QUANT] of the hub
    #[arg(value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    name: String,
    #[command(flatten)]
    form: FormArgs,
    /// Print JSON, for scripts
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct RepoArgs {
    /// ORG/NAME, as `models list --installed` has it
    #[arg(value_name = "REPOSITORY", value_parser = NonEmptyStringValueParser::new())]
    repo: String,
    /// Print JSON, for scripts
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct DeleteArgs {
    #[command(flatten)]
    repo: RepoArgs,
    /// Only this revision, and what no other one needs
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// Do it
    #[arg(long)]
    yes: bool,
}

#[derive(Args)]
pub(super) struct PruneArgs {
    /// Do it
    #[arg(long)]
    yes: bool,
    /// Print JSON, for scripts
    #[arg(long)]
    json: bool,
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
    /// Instead, what was downloaded from the hub
    #[arg(long, conflicts_with_all = ["mlx", "gguf", "fits", "all"])]
    installed: bool,
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
#[derive(Clone, Debug)]
pub struct Models {
    /// What is asked.
    pub ask: ModelsAsk,
    /// Where files lie that can be made again: bundled models.
    pub cache: PathBuf,
    /// Where models are downloaded from, and to; `None`: there is no folder for them.
    pub hub: Option<HubConfig>,
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
    /// `models list --installed`.
    Installed,
    /// `models search WORDS`, and how many at most.
    Search(String, Option<Format>, usize),
    /// `models download NAME`.
    Download(String, Option<Format>),
    /// `models verify REPOSITORY`.
    Verify(String),
    /// `models delete REPOSITORY`.
    Delete {
        /// Which.
        repo: String,
        /// Only this revision.
        revision: Option<String>,
        /// Do it, rather than say what would go.
        yes: bool,
    },
    /// `models prune`.
    Prune {
        /// Do it, rather than say what would go.
        yes: bool,
    },
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
    pub(super) fn meant(self, cache: Option<PathBuf>, hub: &HubEnvironment) -> Result<Models, clap::Error> {
        let (cache, hub) = (folder(cache)?, hub.meant(false));
        let (ask, json) = match self {
            Self::List(ListArgs { installed: true, json, .. }) => (ModelsAsk::Installed, json),
            Self::List(ListArgs { form, fits, all, json, .. }) => {
                (ModelsAsk::List(Choice { format: form.format(), fits, all }), json)
            }
            Self::Show(ShowArgs { name, form, json }) => (ModelsAsk::Show(name, form.format()), json),
            Self::Search(SearchArgs { words, form, limit, json }) => {
                (ModelsAsk::Search(words.join(" "), form.format(), limit.into()), json)
            }
            Self::Download(DownloadArgs { name, form, json }) => (ModelsAsk::Download(name, form.format()), json),
            Self::Verify(RepoArgs { repo, json }) => (ModelsAsk::Verify(repo), json),
            Self::Delete(DeleteArgs { repo: RepoArgs { repo, json }, revision, yes }) => {
                (ModelsAsk::Delete { repo, revision, yes }, json)
            }
            Self::Prune(PruneArgs { yes, json }) => (ModelsAsk::Prune { yes }, json),
        };
        Ok(Models { ask, cache, hub, json })
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
            ("list --installed", ModelsAsk::Installed),
            ("search qwen coder --mlx", ModelsAsk::Search("qwen coder".into(), Some(Format::Mlx), 20)),
            ("download a/b:Q4 --gguf", ModelsAsk::Download("a/b:Q4".into(), Some(Format::Gguf))),
            ("verify a/b", ModelsAsk::Verify("a/b".into())),
            ("delete a/b", ModelsAsk::Delete { repo: "a/b".into(), revision: None, yes: false }),
            (
                "delete a/b --revision v1 --yes",
                ModelsAsk::Delete { repo: "a/b".into(), revision: Some("v1".into()), yes: true },
            ),
            ("prune", ModelsAsk::Prune { yes: false }),
        ] {
            for (more, json) in [("", false), (" --json", true)] {
                let found = models(&format!("models {line}{more}")).unwrap();
                assert_eq!((&found.ask, found.cache, found.json), (&ask, "/cache".into(), json), "{line}");
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
            ("models list --installed --fits", "--fits"),
            ("models search", "WORDS"),
            ("models search x --limit 0", "--limit"),
            ("models delete", "REPOSITORY"),
        ] {
            let error = models(line).unwrap_err();
            assert!(error.contains(said), "{line}: {error}");
        }
        assert!(models_in("models list", Environment::default()).unwrap_err().contains("MESH_LLM_CACHE"));
    }
}

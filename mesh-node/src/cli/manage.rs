//! The verbs that talk to a running node: as typed, then as meant; must not know how they are carried out.

use std::{path::PathBuf, time::Duration};

use catalog::Format;
use clap::{Args, Subcommand, ValueEnum, builder::NonEmptyStringValueParser, error::ErrorKind};
use jiff::{Span, SpanRelativeTo};
use mesh_proto::identity::{MAX_USES, MemberRole, NodeId};

use super::{config::usage, typed::StateArg};

/// Where the management API listens unless it is told otherwise.
pub const CONSOLE_PORT: u16 = 3131;

#[derive(Subcommand)]
pub(super) enum ManageVerb {
    /// Load a model into the running node: one of its own, mesh-tiny, a folder, or a .gguf file
    Load(LoadArgs),
    /// Take a model out of the running node's memory
    Unload(ModelArgs),
    /// Say what the running node does
    Status(TalkArgs),
    /// Let the running node finish its answers and end
    Stop(ReachArgs),
    /// Tickets: what lets other nodes into the mesh
    #[command(subcommand)]
    Ticket(TicketVerb),
    /// Expel a node from the mesh, for good (founder only)
    Expel(ExpelArgs),
}

#[derive(Subcommand)]
pub(super) enum TicketVerb {
    /// Make a ticket and print it
    New(NewArgs),
    /// List the tickets that still let somebody in, without their secrets
    Show(ShowArgs),
    /// Take a ticket back; nodes that came in with it stay
    Revoke(RevokeArgs),
}

/// How the running node is reached.
#[derive(Args)]
pub(super) struct ReachArgs {
    /// Port of the running node's management API
    #[arg(long, value_name = "PORT", default_value_t = CONSOLE_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    console: u16,
    #[command(flatten)]
    state: StateArg,
}

#[derive(Args)]
pub(super) struct TalkArgs {
    /// Print JSON, for scripts
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: ReachArgs,
}

#[derive(Args)]
pub(super) struct LoadArgs {
    /// By MLX, in the node's process
    #[arg(long, conflicts_with = "gguf")]
    mlx: bool,
    /// By llama-server
    #[arg(long)]
    gguf: bool,
    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Args)]
pub(super) struct ModelArgs {
    /// Its name, or its folder
    #[arg(value_name = "MODEL", value_parser = NonEmptyStringValueParser::new())]
    model: String,
    #[command(flatten)]
    talk: TalkArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Role {
    /// Serve models, and ask
    Serve,
    /// Ask
    Client,
}

#[derive(Args)]
pub(super) struct NewArgs {
    /// What who comes with it may do
    #[arg(long, value_enum, default_value_t = Role::Serve)]
    role: Role,
    /// For how many nodes [default: any number]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_USES)))]
    uses: Option<u32>,
    /// For how long, e.g. 30m, 24h, 7d
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = lifetime)]
    expires: Duration,
    /// Who comes with it may make tickets in turn (founder only)
    #[arg(long)]
    admits: bool,
    /// For this node only
    #[arg(long = "for", value_name = "NODE")]
    bound: Option<NodeId>,
    /// Write it to this file, for its owner's eyes only, instead of printing it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    talk: TalkArgs,
}

#[derive(Args)]
pub(super) struct ShowArgs {
    /// Print the ticket with this id itself
    #[arg(long, value_name = "ID")]
    secret: Option<String>,
    #[command(flatten)]
    talk: TalkArgs,
}

#[derive(Args)]
pub(super) struct RevokeArgs {
    /// Its id, as `ticket show` lists it
    id: String,
    #[command(flatten)]
    talk: TalkArgs,
}

#[derive(Args)]
pub(super) struct ExpelArgs {
    /// Its id, or the first digits as `status` shows them
    node: String,
    #[command(flatten)]
    reach: ReachArgs,
}

/// A time that a person writes. Days have 24 hours here: nobody's calendar is asked.
fn lifetime(text: &str) -> Result<Duration, String> {
    let span: Span = text.parse().map_err(|_| "not a time: write 30m, 24h or 7d".to_owned())?;
    let exact = span.to_duration(SpanRelativeTo::days_are_24_hours());
    let exact = exact.ok().and_then(|exact| Duration::try_from(exact).ok());
    match exact {
        Some(exact) if exact >= Duration::from_secs(1) => Ok(exact),
        Some(_) => Err("at least a second".to_owned()),
        None => Err("not a time from now in seconds, minutes, hours, days or weeks".to_owned()),
    }
}

/// A word with the running node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manage {
    /// What is asked of it.
    pub ask: Ask,
    /// The port of its management API.
    pub console: u16,
    /// Its state folder, where its token lies.
    pub state: PathBuf,
    /// Answer in JSON.
    pub json: bool,
}

/// What is asked of the running node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// `load MODEL`, with `--mlx`, `--gguf`, or neither.
    Load(String, Option<Format>),
    /// `unload MODEL`.
    Unload(String),
    /// `status`.
    Status,
    /// `stop`.
    Stop,
    /// `ticket new`.
    NewTicket(TicketTerms),
    /// `ticket show`.
    Tickets,
    /// `ticket show --secret ID`.
    ShowTicket(String),
    /// `ticket revoke ID`.
    RevokeTicket(String),
    /// `expel NODE`.
    Expel(String),
}

/// What a new ticket shall say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketTerms {
    /// What who comes with it may do.
    pub role: MemberRole,
    /// For how many nodes; `None`: any number.
    pub uses: Option<u32>,
    /// For how long.
    pub lifetime: Duration,
    /// Who comes may make tickets.
    pub admits: bool,
    /// For this node only.
    pub bound: Option<NodeId>,
    /// Where to write it; `None`: print it.
    pub out: Option<PathBuf>,
}

impl ManageVerb {
    pub(super) fn meant(self, default_state: Option<PathBuf>) -> Result<Manage, clap::Error> {
        let silent = |reach| TalkArgs { json: false, reach };
        let (ask, talk) = match self {
            Self::Load(LoadArgs { mlx, gguf, model }) => {
                let format = if mlx { Some(Format::Mlx) } else { gguf.then_some(Format::Gguf) };
                (Ask::Load(model.model, format), model.talk)
            }
            Self::Unload(args) => (Ask::Unload(args.model), args.talk),
            Self::Status(talk) => (Ask::Status, talk),
            Self::Stop(reach) => (Ask::Stop, silent(reach)),
            Self::Ticket(TicketVerb::New(args)) => {
                let role = match args.role {
                    Role::Serve => MemberRole::Serve,
                    Role::Client => MemberRole::Client,
                };
                let NewArgs { uses, expires: lifetime, admits, bound, out, talk, .. } = args;
                (Ask::NewTicket(TicketTerms { role, uses, lifetime, admits, bound, out }), talk)
            }
            Self::Ticket(TicketVerb::Show(args)) => (args.secret.map_or(Ask::Tickets, Ask::ShowTicket), args.talk),
            Self::Ticket(TicketVerb::Revoke(args)) => (Ask::RevokeTicket(args.id), args.talk),
            Self::Expel(args) => (Ask::Expel(args.node), silent(args.reach)),
        };
        let TalkArgs { json, reach } = talk;
        Ok(Manage { ask, console: reach.console, state: state(reach.state, default_state)?, json })
    }
}

/// The state folder: as typed, or the environment's.
pub(super) fn state(typed: StateArg, default: Option<PathBuf>) -> Result<PathBuf, clap::Error> {
    typed.dir.or(default).ok_or_else(|| {
        let message = "there is no home folder: set MESH_LLM_STATE or --state DIR to a folder for this node's key";
        usage(ErrorKind::MissingRequiredArgument, message)
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Command, Config, Environment, Typed};

    fn manage(line: &str) -> Result<Manage, String> {
        let words = std::iter::once("mesh-llm").chain(line.split_whitespace());
        let typed = Typed::try_parse_from(words).map_err(|e| e.to_string())?;
        let environment = Environment { state: Some("/state".into()), ..Environment::default() };
        match Config::from(typed, environment).map_err(|e| e.to_string())?.command {
            Command::Manage(manage) => Ok(manage),
            _ => Err("does not manage".into()),
        }
    }

    #[test]
    fn every_verb_arrives_with_its_port_and_folder() {
        for (line, ask) in [
            ("status", Ask::Status),
            ("stop", Ask::Stop),
            ("load m", Ask::Load("m".into(), None)),
            ("load m --mlx", Ask::Load("m".into(), Some(Format::Mlx))),
            ("load --gguf m", Ask::Load("m".into(), Some(Format::Gguf))),
            ("unload m", Ask::Unload("m".into())),
            ("ticket show", Ask::Tickets),
            ("ticket show --secret 7f", Ask::ShowTicket("7f".into())),
            ("ticket revoke 7f", Ask::RevokeTicket("7f".into())),
            ("expel 0123456789", Ask::Expel("0123456789".into())),
        ] {
            let found = manage(line).unwrap();
            assert_eq!(found, Manage { ask, console: CONSOLE_PORT, state: "/state".into(), json: false }, "{line}");
            let elsewhere = manage(&format!("{line} --console 99 --state /other")).unwrap();
            assert_eq!((elsewhere.console, elsewhere.state), (99, PathBuf::from("/other")), "{line}");
        }
        for line in ["status", "load m", "unload m", "ticket new", "ticket show", "ticket revoke 7f"] {
            assert!(manage(&format!("{line} --json")).unwrap().json, "{line}");
        }
    }

    #[test]
    fn a_tickets_terms_arrive_and_stand_for_a_day_unless_told() {
        let node = "ab".repeat(32);
        let Ask::NewTicket(plain) = manage("ticket new").unwrap().ask else { panic!() };
        let day = Duration::from_secs(24 * 3600);
        let open =
            TicketTerms { role: MemberRole::Serve, uses: None, lifetime: day, admits: false, bound: None, out: None };
        assert_eq!(plain, open);
        let line = format!("ticket new --role client --uses 3 --expires 7d --admits --for {node} --out t");
        let Ask::NewTicket(terms) = manage(&line).unwrap().ask else { panic!() };
        let bound = Some(NodeId([0xab; 32]));
        let (role, out) = (MemberRole::Client, Some("t".into()));
        assert_eq!(terms, TicketTerms { role, uses: Some(3), lifetime: 7 * day, admits: true, bound, out });
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("24h", 86_400), ("1h30m", 5400), ("2 days", 172_800)] {
            assert_eq!(lifetime(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "soon", "24", "-1h", "0s", "1 month"] {
            assert!(lifetime(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (line, said) in [
            ("load", "MODEL"),
            ("load a b", "b"),
            ("status --console 0", "--console"),
            ("stop --json", "--json"),
            ("ticket", "new"),
            ("ticket new --uses 0", "--uses"),
            ("ticket new --uses 10001", "--uses"),
            ("ticket new --expires never", "--expires"),
            ("ticket new --role founder", "--role"),
            ("ticket new --for somebody", "--for"),
            ("ticket revoke", "ID"),
            ("expel", "NODE"),
            ("status --model x", "--model"),
        ] {
            let error = manage(line).unwrap_err();
            assert!(error.contains(said), "{line}: {error}");
        }
    }

    #[test]
    fn without_a_home_the_state_folder_must_be_named() {
        let typed = Typed::try_parse_from(["mesh-llm", "status"]).unwrap();
        let error = Config::from(typed, Environment::default()).unwrap_err().to_string();
        assert!(error.contains("MESH_LLM_STATE"), "{error}");
    }
}

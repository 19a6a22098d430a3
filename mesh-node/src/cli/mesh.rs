//! What was said about the mesh, as meant; must not know how nodes meet.

use std::{ffi::OsString, fs, io::Read, net::SocketAddr, path::PathBuf};

use clap::error::ErrorKind;
use mesh_proto::identity::{MemberRole, Ticket};

use super::{
    config::{text, usage},
    typed::MeshArgs,
};

/// Bytes of a ticket's file; more is none. A ticket has some 500 characters, its format at most some 7000.
const MAX_TICKET_FILE: u64 = 64 << 10;
/// Bytes of a mesh's name. People read it; it travels with tickets.
const MAX_MESH_NAME: usize = 64;

/// How to be in a mesh.
#[derive(Clone, Debug)]
pub struct MeshOptions {
    /// How this node gets into it.
    pub way: Way,
    /// As what.
    pub role: MemberRole,
    /// Where a founder writes its first ticket.
    pub ticket_file: Option<PathBuf>,
    /// UDP addresses; none: every one, any free port.
    pub bind: Vec<SocketAddr>,
    /// What carries packets where nodes cannot reach each other.
    pub relay: Relay,
    /// Look for nodes on the local network.
    pub mdns: bool,
    /// Where keys and certificates lie.
    pub state: PathBuf,
    /// Which model files other nodes may have.
    pub share: Share,
}

/// Which model files other nodes may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Share {
    /// None.
    Nothing,
    /// Those of the hub's repositories that are open to everybody, and of these.
    Open {
        /// Repositories, `org/name`.
        also: Vec<String>,
    },
}

impl Default for Share {
    fn default() -> Self {
        Self::Open { also: Vec::new() }
    }
}

/// How a node gets into a mesh.
#[derive(Clone, Debug)]
pub enum Way {
    /// It is the first one.
    Found {
        /// What people call the mesh.
        name: String,
    },
    /// With any of these tickets, all of one mesh.
    Join(Vec<Ticket>),
}

/// What carries packets where nodes cannot reach each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Relay {
    /// Iroh's public ones.
    Public,
    /// This one; the URL was checked.
    Own(String),
    /// Nothing.
    None,
}

/// What was typed beside [`MeshArgs`].
pub(super) struct Beside {
    pub(super) role: MemberRole,
    pub(super) mesh_name: Option<String>,
    pub(super) ticket_file: Option<PathBuf>,
    pub(super) share: Share,
    /// `MESH_LLM_JOIN`.
    pub(super) environment: Option<OsString>,
    pub(super) state: PathBuf,
}

/// `None`: alone.
pub(super) fn meant(args: MeshArgs, beside: Beside) -> Result<Option<MeshOptions>, clap::Error> {
    let Beside { role, mesh_name, ticket_file, share, environment, state } = beside;
    let tickets = tickets(args.joins, args.join_file, environment)?;
    let way = match mesh_name {
        Some(_) if !tickets.is_empty() => {
            let message = "--mesh-name founds a mesh and MESH_LLM_JOIN joins one: leave one of them out";
            return Err(usage(ErrorKind::ArgumentConflict, message));
        }
        Some(name) => Way::Found { name: checked_name(name)? },
        None if !tickets.is_empty() => Way::Join(tickets),
        None => {
            let flags = [
                ("--bind", !args.binds.is_empty()),
                ("--relay", args.relay.is_some()),
                ("--no-relay", args.no_relay),
                ("--no-mdns", args.no_mdns),
                ("--timeout", !args.timeouts.is_empty()),
                ("--no-share", share == Share::Nothing),
                ("--share", share != Share::Nothing && share != Share::default()),
            ];
            return match flags.into_iter().find(|(_, typed)| *typed) {
                None => Ok(None),
                Some((flag, _)) => {
                    let message = format!("{flag} needs a mesh: --mesh-name NAME founds one, --join TICKET joins one");
                    Err(usage(ErrorKind::MissingRequiredArgument, message))
                }
            };
        }
    };
    let relay = match (args.relay, args.no_relay) {
        (Some(url), _) => Relay::Own(checked_url(url)?),
        (None, true) => Relay::None,
        (None, false) => Relay::Public,
    };
    let mdns = !args.no_mdns;
    Ok(Some(MeshOptions { way, role, ticket_file, bind: args.binds, relay, mdns, state, share }))
}

/// What `--no-share` and `--share` say.
pub(super) fn share(nothing: bool, also: Vec<String>) -> Result<Share, clap::Error> {
    if nothing {
        return Ok(Share::Nothing);
    }
    let is_repository = |name: &str| {
        name.split_once('/').is_some_and(|(org, name)| {
            let good =
                |half: &str| !half.is_empty() && half.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
            good(org) && good(name)
        })
    };
    match also.iter().find(|name| !is_repository(name)) {
        Some(wrong) => {
            let message = format!("--share {wrong}: not a repository of the hub, ORG/NAME");
            Err(usage(ErrorKind::ValueValidation, message))
        }
        None => Ok(Share::Open { also }),
    }
}

/// Typed ones and the file's; else the environment's. A message names where a bad one came from, and never the ticket.
fn tickets(
    typed: Vec<String>,
    file: Option<PathBuf>,
    environment: Option<OsString>,
) -> Result<Vec<Ticket>, clap::Error> {
    let mut found = Vec::new();
    for ticket in &typed {
        found.push(parse("--join", ticket)?);
    }
    if let Some(path) = file {
        let place = format!("--join-file {}", path.display());
        let failed = |error| usage(ErrorKind::Io, format!("{place}: {error}"));
        let mut text = String::new();
        fs::File::open(&path).and_then(|file| file.take(MAX_TICKET_FILE).read_to_string(&mut text)).map_err(failed)?;
        found.push(parse(&place, &text)?);
    }
    if let (true, Some(value)) = (found.is_empty(), environment) {
        found.push(parse("MESH_LLM_JOIN", &text("MESH_LLM_JOIN", value)?)?);
    }
    let mesh = |ticket: &Ticket| ticket.invitation.claim().map(|invitation| invitation.mesh);
    let meshes: Result<Vec<_>, _> = found.iter().map(mesh).collect();
    let meshes =
        meshes.map_err(|error| usage(ErrorKind::ValueValidation, format!("a ticket cannot be read: {error}")))?;
    if meshes.windows(2).any(|two| two[0] != two[1]) {
        return Err(usage(ErrorKind::ArgumentConflict, "these tickets are of different meshes: a node is in one"));
    }
    Ok(found)
}

fn parse(place: &str, text: &str) -> Result<Ticket, clap::Error> {
    text.parse().map_err(|error| usage(ErrorKind::ValueValidation, format!("{place}: {error}")))
}

fn checked_name(name: String) -> Result<String, clap::Error> {
    let trimmed = name.trim();
    if trimmed.is_empty() || trimmed.len() > MAX_MESH_NAME || trimmed.chars().any(char::is_control) {
        let message = format!("--mesh-name: a name has 1 to {MAX_MESH_NAME} bytes and no control characters");
        return Err(usage(ErrorKind::ValueValidation, message));
    }
    Ok(trimmed.to_owned())
}

fn checked_url(url: String) -> Result<String, clap::Error> {
    let web = |url: &iroh::RelayUrl| matches!(url.scheme(), "http" | "https") && url.host_str().is_some();
    match url.parse::<iroh::RelayUrl>() {
        Ok(parsed) if web(&parsed) => Ok(url),
        _ => Err(usage(ErrorKind::ValueValidation, format!("--relay {url}: not an https:// or http:// address"))),
    }
}

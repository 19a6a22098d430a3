//! Answers as tables for people; must not know how they were asked for.

use std::fmt::Write;

use bytesize::ByteSize;
use comfy_table::{Table, presets};
use jiff::{SignedDuration, Timestamp, Unit, fmt::friendly::SpanPrinter};

use super::{Joining, LocalModelStatus, MeshStatus, NodeStatus, Path, Role, TicketInfo};

/// Digits of an id that are enough to tell nodes apart.
const SHORT: usize = 10;

fn table<const N: usize>(names: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(names);
    table
}

/// As text, without the blanks that fill the last column.
fn text(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

fn short(id: &str) -> &str {
    id.get(..SHORT).unwrap_or(id)
}

fn word(role: Role) -> &'static str {
    match role {
        Role::Serve => "serve",
        Role::Client => "client",
    }
}

pub(super) fn status(node: &NodeStatus) -> String {
    let mut out = format!("mesh-llm {} at {}, up {}", node.version, node.api, span(node.uptime_s));
    if node.stopping {
        out.push_str(", stopping");
    }
    let _ = write!(out, "\nanswers running {}, waiting {}", node.running, node.waiting);
    out.push_str("\n\nmodels of this node\n");
    if node.models.is_empty() {
        out.push_str(" none; mesh-llm load MODEL brings one");
    } else {
        let mut rows = table(["name", "state", "running", "waiting", "context", "weights", "stored as", "for"]);
        for model in &node.models {
            rows.add_row([
                model.id.clone(),
                state(model),
                model.running.to_string(),
                model.waiting.to_string(),
                model.context_tokens.to_string(),
                ByteSize::b(model.weight_bytes).display().iec().to_string(),
                model.quantization.clone(),
                model.capabilities.join(" "),
            ]);
        }
        out.push_str(&text(&rows));
        for model in &node.models {
            if let Some(error) = &model.error {
                let _ = write!(out, "\n{}: {error}", model.id);
            }
        }
    }
    match &node.mesh {
        None => out.push_str("\n\nin no mesh"),
        Some(mesh) => describe(&mut out, mesh),
    }
    out
}

fn state(model: &LocalModelStatus) -> String {
    let pinned = if model.pinned { ", pinned" } else { "" };
    format!("{}{pinned}", model.state.replace('_', " "))
}

fn describe(out: &mut String, mesh: &MeshStatus) {
    let joining = match &mesh.joining {
        Joining::Founded => "founded here".to_owned(),
        Joining::Joined => "joined".to_owned(),
        Joining::Joining { last_error: None } => "joining".to_owned(),
        Joining::Joining { last_error: Some(error) } => format!("joining; last: {error}"),
    };
    let role = word(mesh.role);
    let _ = write!(out, "\n\nmesh {} ({}), {joining}", mesh.name, short(&mesh.id));
    let _ = write!(out, "\nthis node {}, role {role}", short(&mesh.node));
    if !mesh.models.is_empty() {
        let mut rows = table(["model", "answered by", "context"]);
        for model in &mesh.models {
            let owners: Vec<&str> = model.owners.iter().map(|owner| short(owner)).collect();
            rows.add_row([model.id.clone(), owners.join(" "), model.context_tokens.to_string()]);
        }
        let _ = write!(out, "\n\nmodels of the mesh\n{}", text(&rows));
    }
    if mesh.peers.is_empty() {
        out.push_str("\n\nno other node yet");
        return;
    }
    let mut rows = table(["node", "health", "role", "path", "round trip", "version", "models"]);
    for peer in &mesh.peers {
        let path = match peer.path {
            Some(Path::Direct) => "direct",
            Some(Path::Relay) => "relay",
            None => "-",
        };
        rows.add_row([
            short(&peer.id).to_owned(),
            peer.health.clone(),
            word(peer.role).to_owned(),
            path.to_owned(),
            peer.rtt_ms.map_or("-".to_owned(), |rtt| format!("{rtt:.1} ms")),
            peer.version.clone(),
            peer.models.join(" "),
        ]);
    }
    let _ = write!(out, "\n\nother nodes\n{}", text(&rows));
}

pub(super) fn tickets(tickets: &[TicketInfo]) -> String {
    if tickets.is_empty() {
        return "no ticket is open; mesh-llm ticket new makes one".to_owned();
    }
    let mut rows = table(["id", "role", "used", "expires", "for"]);
    for ticket in tickets {
        let admits = if ticket.admits { ", admits" } else { "" };
        rows.add_row([
            ticket.id.clone(),
            format!("{}{admits}", word(ticket.role)),
            ticket.uses.map_or(ticket.used.to_string(), |uses| format!("{} of {uses}", ticket.used)),
            moment(ticket.expires_at),
            ticket.node.as_deref().map_or("anybody", short).to_owned(),
        ]);
    }
    text(&rows)
}

/// Unix seconds as a date.
fn moment(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).map_or_else(|_| "never".to_owned(), |moment| moment.to_string())
}

fn span(seconds: u64) -> String {
    let span = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
    let span = span.round(Unit::Second).unwrap_or(span);
    SpanPrinter::new().duration_to_string(&span)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manage::{MeshModelStatus, PeerStatus};

    fn node() -> NodeStatus {
        let model = LocalModelStatus {
            id: "mesh-tiny".into(),
            state: "on_disk".into(),
            error: None,
            pinned: true,
            engine: "mlx".into(),
            family: "qwen3".into(),
            quantization: "4-bit affine, group 32".into(),
            context_tokens: 4096,
            weight_bytes: 3 << 20,
            running: 0,
            waiting: 0,
            capabilities: vec!["chat".into(), "embeddings".into()],
        };
        NodeStatus {
            version: "0.1.0".into(),
            api: "http://127.0.0.1:9337/v1".into(),
            uptime_s: 3723,
            stopping: false,
            running: 2,
            waiting: 1,
            models: vec![model],
            mesh: None,
        }
    }

    #[test]
    fn a_status_is_read_at_a_glance() {
        insta::assert_snapshot!(status(&node()), @r"
        mesh-llm 0.1.0 at http://127.0.0.1:9337/v1, up 1h 2m 3s
        answers running 2, waiting 1

        models of this node
         name       state            running  waiting  context  weights  stored as               for
         mesh-tiny  on disk, pinned  0        0        4096     3.0 MiB  4-bit affine, group 32  chat embeddings

        in no mesh
        ");
    }

    #[test]
    fn a_mesh_shows_its_models_and_nodes() {
        let peer = PeerStatus {
            id: "cd".repeat(32),
            health: "alive".into(),
            path: Some(Path::Direct),
            rtt_ms: Some(0.42),
            models: vec!["mesh-tiny".into()],
            version: "0.1.0".into(),
            role: Role::Serve,
        };
        let mesh = MeshStatus {
            name: "home".into(),
            id: "ab".repeat(32),
            node: "01".repeat(32),
            joining: Joining::Joining { last_error: Some("nobody answers".into()) },
            peers: vec![peer],
            models: vec![MeshModelStatus { id: "m".into(), owners: vec!["cd".repeat(32)], context_tokens: 9 }],
            ..MeshStatus::default()
        };
        insta::assert_snapshot!(status(&NodeStatus { models: Vec::new(), mesh: Some(mesh), ..node() }), @r"
        mesh-llm 0.1.0 at http://127.0.0.1:9337/v1, up 1h 2m 3s
        answers running 2, waiting 1

        models of this node
         none; mesh-llm load MODEL brings one

        mesh home (ababababab), joining; last: nobody answers
        this node 0101010101, role serve

        models of the mesh
         model  answered by  context
         m      cdcdcdcdcd   9

        other nodes
         node        health  role   path    round trip  version  models
         cdcdcdcdcd  alive   serve  direct  0.4 ms      0.1.0    mesh-tiny
        ");
    }

    #[test]
    fn tickets_show_what_they_are_worth_and_no_secret() {
        let ticket = TicketInfo {
            id: "7f3a".into(),
            role: Role::Client,
            admits: true,
            used: 1,
            uses: Some(3),
            made_at: 1_800_000_000,
            expires_at: 1_800_003_600,
            node: None,
        };
        insta::assert_snapshot!(tickets(&[ticket]), @r"
        id    role            used    expires               for
        7f3a  client, admits  1 of 3  2027-01-15T09:00:00Z  anybody
        ");
        assert!(tickets(&[]).contains("ticket new"));
    }
}

//! The verbs that talk to a running node, over its management API; must not know what the node does.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use mesh_proto::identity::NodeId;
use reqwest::{Client, Method, StatusCode};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use thiserror::Error;

use super::{
    IssuedTicket, LoadOrder, ModelOrder, NodeStatus, ShownTicket, TicketInfo, TicketOrder, Token, TokenError,
    dto::Problem, table,
};
use crate::cli::{Ask, Manage, TicketTerms, say};

/// Time to reach a port of this machine. Answers may take as long as a load does.
const CONNECT: Duration = Duration::from_secs(3);

/// Why the running node did not do it. One line.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody is there.
    #[error("no node answers on 127.0.0.1:{0}; is mesh-llm running? --console PORT names another port")]
    Nobody(u16),
    /// Somebody else is there.
    #[error("what answers on 127.0.0.1:{port} is no mesh-llm: {message}")]
    Stranger {
        /// Where.
        port: u16,
        /// How that shows.
        message: String,
    },
    /// The node went away.
    #[error("the node on 127.0.0.1:{port} did not answer to the end: {message}")]
    Lost {
        /// Where.
        port: u16,
        /// How that showed.
        message: String,
    },
    /// The token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Another node's token.
    #[error(
        "the node on 127.0.0.1:{port} does not know the token in {}: name that node's folder with --state DIR",
        state.display()
    )]
    OtherNode {
        /// Where.
        port: u16,
        /// The folder.
        state: PathBuf,
    },
    /// The node says why.
    #[error("{0}")]
    Refused(String),
    /// No node is called that.
    #[error("{0}")]
    Name(String),
    /// The ticket's file.
    #[error("cannot write {}: {cause}", path.display())]
    Out {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

/// Has a word with the running node, and prints what it says.
///
/// # Errors
/// Why it was not done.
pub async fn run(manage: Manage) -> Result<(), ClientError> {
    // No proxy: what goes to the loopback address is nobody else's.
    let client = Client::builder().no_proxy().connect_timeout(CONNECT).build();
    let client = client.map_err(|error| ClientError::Lost { port: manage.console, message: error.to_string() })?;
    let node = Node { client, port: manage.console, state: manage.state };
    let json = manage.json;
    match manage.ask {
        Ask::Status => {
            let found: Value = node.get("/api/status", false).await?;
            if json {
                print(&found);
            } else {
                say::result(table::status(&node.read::<NodeStatus>(found)?));
            }
        }
        Ask::Load(model, format) => {
            let order = LoadOrder { model: absolute(model), format: format.map(Into::into) };
            let loaded: Value = node.post("/api/load", &order).await?;
            if json {
                print(&loaded);
            } else {
                say::result(format!("{} answers", loaded["id"].as_str().unwrap_or("it")));
            }
        }
        Ask::Unload(model) => {
            let done: Value = node.post("/api/unload", &ModelOrder { model: model.clone() }).await?;
            if json { print(&done) } else { say::result(format!("{model} is unloaded")) }
        }
        Ask::Stop => {
            let _: Value = node.post("/api/stop", &serde_json::json!({})).await?;
            say::result("stopping: running answers may end first");
        }
        Ask::NewTicket(terms) => node.new_ticket(terms, json).await?,
        Ask::Tickets => {
            let found: Value = node.get("/api/tickets", true).await?;
            if json {
                print(&found);
            } else {
                say::result(table::tickets(&node.read::<Vec<TicketInfo>>(found)?));
            }
        }
        Ask::ShowTicket(id) => {
            let shown: ShownTicket = node.get(&format!("/api/tickets/{}", segment(&id)?), true).await?;
            if json { print(&shown) } else { say::result(shown.ticket) }
        }
        Ask::RevokeTicket(id) => {
            let done: Value = node.send(Method::DELETE, &format!("/api/tickets/{}", segment(&id)?), true, None).await?;
            if json { print(&done) } else { say::result(format!("{id} lets nobody in any more")) }
        }
        Ask::Expel(name) => {
            let id = node.resolve(&name).await?;
            let _: Value = node.post(&format!("/api/nodes/{id}/expel"), &serde_json::json!({})).await?;
            say::result(format!("{id} is expelled"));
        }
    }
    Ok(())
}

fn print(value: &impl Serialize) {
    say::result(serde_json::to_string_pretty(value).unwrap_or_default());
}

/// A path means what it means here, not in the folder where the node was started. A name stays one.
fn absolute(model: String) -> String {
    if !model.contains('/') && model != "." && model != ".." {
        return model;
    }
    match Path::new(&model).canonicalize() {
        Ok(full) => full.to_string_lossy().into_owned(),
        Err(_) => model,
    }
}

/// An id becomes a part of a path, so it must be one.
fn segment(id: &str) -> Result<&str, ClientError> {
    let plain = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    plain
        .then_some(id)
        .ok_or_else(|| ClientError::Name(format!("{id:?} is no ticket's id; mesh-llm ticket show lists them")))
}

struct Node {
    client: Client,
    port: u16,
    state: PathBuf,
}

impl Node {
    async fn get<T: DeserializeOwned>(&self, path: &str, token: bool) -> Result<T, ClientError> {
        self.send(Method::GET, path, token, None).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_value(body).unwrap_or_default();
        self.send(Method::POST, path, true, Some(body)).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        token: bool,
        body: Option<Value>,
    ) -> Result<T, ClientError> {
        let port = self.port;
        let lost = |error: reqwest::Error| ClientError::Lost { port, message: root(&error) };
        let mut request = self.client.request(method, format!("http://127.0.0.1:{port}{path}"));
        if token {
            request = request.bearer_auth(Token::read(&self.state)?);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.map_err(|error| match error.is_connect() {
            true => ClientError::Nobody(port),
            false => lost(error),
        })?;
        let status = response.status();
        let text = response.text().await.map_err(lost)?;
        let stranger = |message: String| ClientError::Stranger { port, message };
        if status.is_success() {
            return serde_json::from_str(&text).map_err(|error| stranger(error.to_string()));
        }
        match serde_json::from_str::<Problem>(&text) {
            Ok(_) if status == StatusCode::UNAUTHORIZED => {
                Err(ClientError::OtherNode { port, state: self.state.clone() })
            }
            Ok(problem) => Err(ClientError::Refused(problem.error.message)),
            Err(_) => Err(stranger(format!("it says {status}"))),
        }
    }

    fn read<T: DeserializeOwned>(&self, value: Value) -> Result<T, ClientError> {
        serde_json::from_value(value)
            .map_err(|error| ClientError::Stranger { port: self.port, message: error.to_string() })
    }

    async fn new_ticket(&self, terms: TicketTerms, json: bool) -> Result<(), ClientError> {
        let order = TicketOrder {
            role: terms.role.into(),
            uses: terms.uses,
            lifetime_s: terms.lifetime.as_secs(),
            admits: terms.admits,
            node: terms.bound,
        };
        let issued: IssuedTicket = self.post("/api/tickets", &order).await?;
        let Some(path) = terms.out else {
            if json {
                print(&issued)
            } else {
                say::result(&issued.ticket)
            }
            return Ok(());
        };
        write(&path, &issued.ticket).map_err(|cause| ClientError::Out { path: path.clone(), cause })?;
        if json {
            print(&serde_json::json!({ "id": issued.id, "expires_at": issued.expires_at }));
        } else {
            say::note(format!("ticket {} is in {}", issued.id, path.display()));
        }
        Ok(())
    }

    /// The node whose id begins like this.
    async fn resolve(&self, name: &str) -> Result<NodeId, ClientError> {
        if let Ok(id) = name.parse() {
            return Ok(id);
        }
        let status: NodeStatus = self.get("/api/status", false).await?;
        let peers = status.mesh.map(|mesh| mesh.peers).unwrap_or_default();
        let begins = |id: &&String| !name.is_empty() && id.starts_with(&name.to_ascii_lowercase());
        let found: Vec<&String> = peers.iter().map(|peer| &peer.id).filter(begins).collect();
        match found[..] {
            [one] => {
                one.parse().map_err(|error| ClientError::Stranger { port: self.port, message: format!("{error}") })
            }
            [] => {
                Err(ClientError::Name(format!("no other node's id begins with {name:?}; mesh-llm status lists them")))
            }
            _ => Err(ClientError::Name(format!("{} nodes' ids begin with {name:?}: type more of it", found.len()))),
        }
    }
}

/// A file that only its owner reads, whole or not at all.
fn write(path: &Path, ticket: &str) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    writeln!(file, "{ticket}")?;
    file.persist(path)?;
    Ok(())
}

/// The innermost cause: what is around it repeats the URL.
fn root(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_path_is_made_whole_and_a_name_stays_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let full = dir.path().canonicalize().unwrap();
        let typed = format!("{}/.", dir.path().display());
        assert_eq!(absolute(typed), full.display().to_string());
        for name in ["mesh-tiny", "org/no-such-repository"] {
            assert_eq!(absolute(name.to_owned()), name);
        }
    }

    #[test]
    fn a_ticket_is_written_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t");
        std::fs::write(&path, "old").unwrap();
        write(&path, "new").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn an_id_cannot_lead_elsewhere() {
        assert!(segment("7f-3a").is_ok());
        for id in ["", "..", "a/b", "a?b", "a b", "ä"] {
            assert!(segment(id).is_err(), "{id}");
        }
    }
}

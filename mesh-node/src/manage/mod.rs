//! The management API: this machine's operator and this node; must not know how the mesh or an engine does what is asked.
//!
//! HTTP on the loopback address alone, port 3131. Reading `/api/status` needs nothing; everything else needs the token
//! that lies in the state folder for its owner's eyes. `mesh-llm status`, `load` and the like are its client.

mod client;
mod dto;
mod guard;
mod routes;
mod table;
mod token;

use futures_util::future::BoxFuture;
use mesh_proto::identity::NodeId;
use thiserror::Error;

pub use client::{ClientError, run};
pub use dto::{
    IssuedTicket, Joining, LoadOrder, LocalModelStatus, MeshModelStatus, MeshStatus, ModelFormat, ModelOrder,
    NodeStatus, Path, PeerStatus, Role, ShownTicket, TicketInfo, TicketOrder,
};
pub use routes::{Desk, routes};
pub use token::{Token, TokenError};

/// What the mesh does for its operator.
pub trait MeshControl: Send + Sync + 'static {
    /// What it looks like from here.
    fn status(&self) -> MeshStatus;
    /// Makes a ticket.
    fn ticket(&self, order: TicketOrder) -> BoxFuture<'_, Result<IssuedTicket, ControlError>>;
    /// The tickets of this node that still let somebody in.
    fn tickets(&self) -> BoxFuture<'_, Result<Vec<TicketInfo>, ControlError>>;
    /// One of them itself.
    fn show(&self, id: &str) -> BoxFuture<'_, Result<String, ControlError>>;
    /// Takes one back.
    fn revoke(&self, id: String) -> BoxFuture<'_, Result<(), ControlError>>;
    /// Expels a node for good.
    fn expel(&self, node: NodeId) -> BoxFuture<'_, Result<(), ControlError>>;
}

/// Why the mesh does not do it. Each is one line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ControlError {
    /// There is no such ticket or node.
    #[error("{0}")]
    NotFound(String),
    /// This node may not do it, or not like this.
    #[error("{0}")]
    Refused(String),
    /// It was tried.
    #[error("{0}")]
    Failed(String),
}

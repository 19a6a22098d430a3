//! Why a node cannot be in a mesh; must not know what is done about it.

use std::{io, path::PathBuf};

use mesh_proto::identity::{AdmissionError, TicketError};
use thiserror::Error;

/// One line each, with what to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MeshError {
    /// The state folder, or a file in it.
    #[error("{}: {cause} (--state DIR or MESH_LLM_STATE names another folder)", path.display())]
    State {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Another node has it.
    #[error("another mesh-llm uses {}: give this one a folder of its own with --state DIR", path.display())]
    StateInUse {
        /// Which.
        path: PathBuf,
    },
    /// Others can read the key.
    #[error("{} can be read by others: chmod 600 it, or remove it for a new identity", path.display())]
    OpenKey {
        /// Which.
        path: PathBuf,
    },
    /// The key is none.
    #[error("{} holds no key: restore it, or remove it for a new identity", path.display())]
    BadKey {
        /// Which.
        path: PathBuf,
    },
    /// The UDP socket.
    #[error("cannot open the mesh's socket: {0}")]
    Bind(String),
    /// The relay's URL.
    #[error("--relay {url}: {message}")]
    Relay {
        /// As typed.
        url: String,
        /// What is wrong.
        message: String,
    },
    /// Tickets of different meshes.
    #[error("the tickets are for different meshes: a node is in one")]
    TwoMeshes,
    /// A ticket that is none.
    #[error(transparent)]
    Ticket(#[from] TicketError),
    /// Own membership.
    #[error(transparent)]
    Admission(#[from] AdmissionError),
    /// The ticket's file.
    #[error("cannot write the ticket to {}: {cause}", path.display())]
    TicketFile {
        /// Where.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

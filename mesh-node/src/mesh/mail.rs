//! What the mesh's one task is told; must not know what it makes of it.

use mesh_proto::{
    ModelId,
    identity::{AdmitReply, AdmitRequest, CertChain, Contact, NodeId, Session, Terms},
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::links::Kind;
use crate::manage::{ControlError, IssuedTicket, TicketInfo};

/// A message to the mesh's task.
pub(crate) enum Mail {
    /// A control frame, and its place in its sender's share of the mailbox.
    Frame { from: NodeId, kind: Kind, bytes: Vec<u8>, place: OwnedSemaphorePermit },
    /// A gossip message.
    Gossip { from: NodeId, bytes: Vec<u8> },
    /// Gossip has a new direct neighbour.
    Neighbour(NodeId),
    /// Somebody is linked.
    LinkUp(NodeId),
    /// Its last connection is gone.
    LinkDown(NodeId),
    /// It could not be reached.
    DialFailed(NodeId),
    /// It was reached, whether it is linked still or not.
    Dialled(NodeId),
    /// A stranger at the desk.
    Admit { request: Box<AdmitRequest>, session: Session, reply: oneshot::Sender<AdmitReply> },
    /// A client asked for this model.
    Asked(ModelId),
    /// This node can be reached elsewhere now.
    Moved(Contact),
    /// This node's own certificate was renewed.
    Renewed(Box<CertChain>),
    /// From the operator.
    Control(Control),
}

/// What the operator asks for.
pub(crate) enum Control {
    Ticket {
        terms: Terms,
        reply: oneshot::Sender<Result<IssuedTicket, ControlError>>,
    },
    Tickets {
        reply: oneshot::Sender<Result<Vec<TicketInfo>, ControlError>>,
    },
    Show {
        id: String,
        reply: oneshot::Sender<Result<String, ControlError>>,
    },
    Revoke {
        id: String,
        reply: oneshot::Sender<Result<(), ControlError>>,
    },
    Expel {
        node: NodeId,
        reply: oneshot::Sender<Result<(), ControlError>>,
    },
    /// Take nothing new; the record says so at once.
    Drain {
        reply: oneshot::Sender<()>,
    },
    /// Say goodbye to everybody.
    Leave {
        reply: oneshot::Sender<()>,
    },
}

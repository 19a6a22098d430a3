//! Admission on the wire, `mesh-llm/admit/1`: one request and one reply a connection; must not know who decides.

use std::{sync::Arc, time::Duration};

use iroh::{
    endpoint::{Connection, VarInt},
    protocol::{AcceptError, ProtocolHandler},
};
use mesh_proto::{
    codec::{self, Ext, Wire},
    identity::{
        AdmitRefusal, AdmitReply, AdmitRequest, CertChain, Contact, JoinError, MembershipCert, Revocations, Session,
        Ticket,
    },
};
use thiserror::Error;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};

use super::{
    alpn, clock,
    endpoint::{DialError, Net, node_id},
    mail::Mail,
};

/// Strangers at the desk at once; others are turned away. Unit: connections; default 32, a guess. Cost: some 100 KiB each.
pub(crate) const MAX_STRANGERS: usize = 32;
/// How long one may take. Unit: seconds; default 5, iroh.md 4.1.
const PATIENCE: Duration = Duration::from_secs(5);
/// Names the exported bytes.
const LABEL: &[u8] = b"mesh-llm admit v1";

/// The desk's side: takes the request, asks the mesh's one task, gives the reply.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    mail: mpsc::Sender<Mail>,
    places: Arc<Semaphore>,
}

impl Desk {
    pub(crate) fn new(mail: mpsc::Sender<Mail>, places: Arc<Semaphore>) -> Self {
        Self { mail, places }
    }

    async fn serve(&self, connection: &Connection) -> Option<()> {
        let session = session(connection, node_id(connection.remote_id()))?;
        let (mut send, mut recv) = connection.accept_bi().await.ok()?;
        let bytes = recv.read_to_end(AdmitRequest::LIMIT).await.ok()?;
        let reply = match codec::decode::<AdmitRequest>(&bytes) {
            Ok(request) => {
                let (reply, answer) = oneshot::channel();
                self.mail.send(Mail::Admit { request: Box::new(request), session, reply }).await.ok()?;
                answer.await.ok()?
            }
            Err(_) => AdmitReply::refused(AdmitRefusal::Malformed),
        };
        send.write_all(&codec::encode(&reply).ok()?).await.ok()?;
        send.finish().ok()?;
        // The reply is lost if the connection closes before it is acknowledged.
        connection.closed().await;
        Some(())
    }
}

impl ProtocolHandler for Desk {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        let Ok(_place) = self.places.try_acquire() else {
            connection.close(VarInt::from_u32(503), b"busy");
            return Ok(());
        };
        // Whatever a stranger does wrong ends here, without a word.
        let _ = timeout(PATIENCE, self.serve(&connection)).await;
        connection.close(VarInt::from_u32(0), b"done");
        Ok(())
    }
}

fn session(connection: &Connection, joiner: mesh_proto::identity::NodeId) -> Option<Session> {
    let mut exporter = [0; 32];
    connection.export_keying_material(&mut exporter, LABEL, b"").ok()?;
    Some(Session { joiner, exporter })
}

/// Why this node was not let in.
#[derive(Debug, Error)]
pub(crate) enum AskError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the connection broke: {0}")]
    Broken(String),
    #[error(transparent)]
    Join(#[from] JoinError),
}

/// Joins with a ticket, at one of its contacts.
pub(crate) async fn join(net: &Net, contact: &Contact, ticket: &Ticket) -> Result<CertChain, AskError> {
    let (reply, session) = ask(net, contact, |session| AdmitRequest::join(ticket, session)).await?;
    Ok(reply.accept(ticket, &session, clock::unix())?)
}

/// Tag of a greeting's addition: since when the node runs, Unix milliseconds as 8 bytes, little endian.
const LIFE_TAG: u16 = 1;

/// Which life of a node a greeting speaks of.
pub(crate) fn life_in(ext: &Ext) -> Option<u64> {
    Some(u64::from_le_bytes(ext.get(LIFE_TAG)?.try_into().ok()?))
}

/// Shows this node's certificate, and gets the other's.
pub(crate) async fn hello(
    net: &Net,
    contact: &Contact,
    chain: &CertChain,
    life: u64,
    revocations: &Revocations,
) -> Result<(MembershipCert, CertChain), AskError> {
    let ext = Ext::default().with(LIFE_TAG, life.to_le_bytes().to_vec());
    let request = AdmitRequest::Hello { chain: chain.clone(), ext };
    let (reply, _) = ask(net, contact, |_| request).await?;
    let cert = reply.welcomed(contact.node, revocations, clock::unix())?;
    match reply {
        AdmitReply::Welcome { chain, .. } => Ok((cert, chain)),
        _ => Err(JoinError::Refused(AdmitRefusal::Malformed).into()),
    }
}

/// A certificate that lasts longer, from whoever may give one.
pub(crate) async fn renew(net: &Net, contact: &Contact, chain: &CertChain) -> Result<CertChain, AskError> {
    let request = AdmitRequest::Renew { chain: chain.clone(), ext: Default::default() };
    let (reply, session) = ask(net, contact, |_| request).await?;
    let mesh = mesh_proto::identity::MeshId::of(&chain.root);
    Ok(reply.renewed(mesh, session.joiner, clock::unix())?)
}

async fn ask(
    net: &Net,
    contact: &Contact,
    request: impl FnOnce(&Session) -> AdmitRequest,
) -> Result<(AdmitReply, Session), AskError> {
    let connection = net.dial(contact, alpn::ADMIT).await?;
    let exchange = async {
        let session = session(&connection, net.id()).ok_or("TLS exports no keys")?;
        let bytes = codec::encode(&request(&session)).map_err(|e| e.to_string())?;
        let (mut send, mut recv) = connection.open_bi().await.map_err(|e| e.to_string())?;
        send.write_all(&bytes).await.map_err(|e| e.to_string())?;
        send.finish().map_err(|e| e.to_string())?;
        let bytes = recv.read_to_end(AdmitReply::LIMIT).await.map_err(|e| e.to_string())?;
        let reply = codec::decode::<AdmitReply>(&bytes).map_err(|e| e.to_string())?;
        Ok::<_, String>((reply, session))
    };
    let answered = timeout(PATIENCE, exchange).await;
    connection.close(VarInt::from_u32(0), b"done");
    answered.map_err(|_| AskError::Broken("no reply".into()))?.map_err(AskError::Broken)
}

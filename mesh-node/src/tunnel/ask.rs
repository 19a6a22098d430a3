//! The asking side: connections to hosts, and one try at one of them; must not know which host is the right one.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use engine::Engine;
use iroh::endpoint::{Connection, VarInt};
use mesh_proto::{
    GenerateError, GenerateRequest, PoolRequest, PoolTask,
    identity::{Contact, NodeId},
    infer::{Ask, Reply},
    routing::Failure,
};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{io, speak, speak_rows};
use crate::mesh::{INFER, Net};

/// Replies that wait for this node's own door; beyond them QUIC makes the host wait.
const ROOM: usize = 16;
/// The code with which a stream is reset when its client is gone.
const CANCELLED: u32 = 1;

/// Open connections to hosts, one each. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    net: Net,
    open: Arc<Mutex<BTreeMap<NodeId, Connection>>>,
}

impl Pool {
    pub(crate) fn new(net: Net) -> Self {
        Self { net, open: Arc::default() }
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<NodeId, Connection>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connection(&self, contact: &Contact) -> Option<Connection> {
        let kept = self.open().get(&contact.node).filter(|kept| kept.close_reason().is_none()).cloned();
        if kept.is_some() {
            return kept;
        }
        let fresh = self.net.dial(contact, INFER).await.ok()?;
        self.open().insert(contact.node, fresh.clone());
        Some(fresh)
    }
}

/// What a try says.
#[derive(Debug)]
pub(crate) enum Said {
    /// The request is at the node.
    Connected,
    /// A frame.
    Reply(Reply),
    /// Nothing more will come.
    Failed(Failure),
}

/// One try at one node. Dropping it cancels there.
#[derive(Debug)]
pub(crate) struct Asking {
    said: mpsc::Receiver<Said>,
    task: JoinHandle<()>,
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Asking {
    /// Asks an engine of this process.
    pub(crate) fn local(engine: Arc<dyn Engine>, request: GenerateRequest) -> Self {
        Self::heard(|| speak(engine, request))
    }

    /// Asks an engine of this process for vectors or scores.
    pub(crate) fn local_rows(engine: Arc<dyn Engine>, request: PoolRequest) -> Self {
        Self::heard(|| speak_rows(engine, request))
    }

    fn heard(speak: impl FnOnce() -> mpsc::Receiver<Reply>) -> Self {
        let (tell, said) = mpsc::channel(ROOM);
        let mut replies = speak();
        let task = tokio::spawn(async move {
            // Whoever stops listening drops this task.
            let mut open = tell.send(Said::Connected).await.is_ok();
            while open && let Some(reply) = replies.recv().await {
                open = tell.send(Said::Reply(reply)).await.is_ok();
            }
        });
        Self { said, task }
    }

    /// Asks another node.
    pub(crate) fn remote(pool: Pool, contact: Contact, ask: Ask) -> Self {
        Self::there(pool, contact, ask, None)
    }

    /// Asks another node for vectors or scores: [`Ask::pool`].
    pub(crate) fn remote_rows(pool: Pool, contact: Contact, ask: Ask, task: PoolTask) -> Self {
        Self::there(pool, contact, ask, Some(task))
    }

    fn there(pool: Pool, contact: Contact, ask: Ask, wanted: Option<PoolTask>) -> Self {
        let (tell, said) = mpsc::channel(ROOM);
        let task = tokio::spawn(async move {
            let failure = remote(&pool, &contact, (ask, wanted), &tell).await;
            // Whoever stops listening drops this task.
            let _ = tell.send(Said::Failed(failure)).await;
        });
        Self { said, task }
    }

    /// What it says next.
    pub(crate) async fn next(&mut self) -> Said {
        self.said.recv().await.unwrap_or(Said::Failed(Failure::Lost))
    }
}

async fn remote(
    pool: &Pool,
    contact: &Contact,
    (ask, wanted): (Ask, Option<PoolTask>),
    tell: &mpsc::Sender<Said>,
) -> Failure {
    let field = if wanted.is_some() { "input" } else { "messages" };
    let framed = io::framed(&ask).and_then(|mut frame| {
        frame.extend(wanted.as_ref().map(io::framed).transpose()?.into_iter().flatten());
        Ok(frame)
    });
    drop((ask, wanted));
    let frame = match framed {
        Ok(frame) => frame,
        Err(error) => {
            let refused = GenerateError::invalid(field, format!("the request is too long for a peer: {error}"));
            let _ = tell.send(Said::Reply(Reply::Failed(refused))).await;
            return Failure::Caller;
        }
    };
    let Some(connection) = pool.connection(contact).await else { return Failure::Connect };
    let Ok((mut send, mut recv)) = connection.open_bi().await else { return Failure::Connect };
    // The frame may be megabytes, and is acknowledged only when the host reads it. Who is too busy for it stops it, and
    // says so.
    let written = send.write_all(&frame).await.is_ok();
    drop(frame);
    let _ = send.finish();
    let broken = if written { Failure::Lost } else { Failure::Connect };
    // A dropped stream stops the host, at the latest when it writes next; this says so at once, and why.
    let mut stopping = Stopping { recv: Some(&mut recv) };
    if written && tell.send(Said::Connected).await.is_err() {
        return Failure::Lost;
    }
    loop {
        let Some(recv) = stopping.recv.as_deref_mut() else { return Failure::Lost };
        match io::read::<Reply>(recv).await {
            Ok(Some(reply)) => {
                let last = matches!(reply, Reply::Finished { .. } | Reply::Failed(_));
                if tell.send(Said::Reply(reply)).await.is_err() {
                    return Failure::Lost;
                }
                if last {
                    stopping.recv = None;
                    // What follows is told by the reply itself.
                    std::future::pending::<()>().await;
                }
            }
            Ok(None) => return broken,
            Err(io::FrameError::Codec(mesh_proto::codec::CodecError::UnknownVariant { .. })) => {}
            Err(error) => {
                tracing::debug!(node = %contact.node.short(), %error, "a try ended");
                return broken;
            }
        }
    }
}

struct Stopping<'a> {
    recv: Option<&'a mut iroh::endpoint::RecvStream>,
}

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        if let Some(recv) = self.recv.take() {
            // Fails where the stream has ended already.
            let _ = recv.stop(VarInt::from_u32(CANCELLED));
        }
    }
}

//! The serving side: a peer's requests to this node's own engines, within bounds; must not know other nodes' models.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use iroh::{
    endpoint::{Connection, RecvStream, SendStream, VarInt},
    protocol::{AcceptError, ProtocolHandler},
};
use mesh_proto::{
    GenerateError, PoolRequest, PoolTask,
    codec::{CodecError, Wire},
    identity::{MeshId, NodeId},
    infer::{Ask, Reply},
    placement::ModelKey,
    routing::PrefixChain,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::timeout,
};

use super::{io, speak, speak_rows};
use crate::{
    local::LocalEngines,
    mesh::{Sketches, node_id},
};

/// Requests of one peer at once; more are told that this node is busy. Unit: requests; default 512, a guess: a door with
/// that many clients is one process's. Cost: what the queue of each model lets in.
const MAX_REQUESTS: usize = 512;
/// Bytes of requests that one peer may have here at once. Unit: KiB; default 64 MiB: one of the largest, and small ones
/// beside it. Cost: memory, for each peer.
const MAX_KIB: usize = 64 << 10;
/// How long a request may take to come in. Unit: seconds; default 30, a guess: 32 MiB over a slow Wi-Fi.
const READ: Duration = Duration::from_secs(30);
/// The code with which a stream is stopped that brought what nobody can read.
const MALFORMED: u32 = 400;
/// The same where the peer asks too much at once.
const BUSY: u32 = 503;

/// Whether running generations are to be handed over now: those of models that others serve, too.
pub(crate) type Handover = watch::Receiver<Option<HandsOver>>;

/// Whether others serve this model, so that its generations can go on there.
pub(crate) type HandsOver = Arc<dyn Fn(ModelKey) -> bool + Send + Sync>;

#[derive(Debug)]
struct Quota {
    requests: Arc<Semaphore>,
    kib: Arc<Semaphore>,
}

/// Answers peers' requests.
#[derive(Clone)]
pub(crate) struct Serve {
    locals: LocalEngines,
    mesh: MeshId,
    sketches: Sketches,
    handover: Handover,
    quotas: Arc<Mutex<BTreeMap<NodeId, Weak<Quota>>>>,
    refused: Arc<AtomicU64>,
}

impl std::fmt::Debug for Serve {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Serve").field("refused", &self.refused).finish_non_exhaustive()
    }
}

impl Serve {
    pub(crate) fn new(locals: LocalEngines, mesh: MeshId, sketches: Sketches, handover: Handover) -> Self {
        Self { locals, mesh, sketches, handover, quotas: Arc::default(), refused: Arc::default() }
    }

    /// Requests that were turned away for their number, their size or their form.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// One quota a peer, however many connections it opens.
    fn quota(&self, peer: NodeId) -> Arc<Quota> {
        let mut quotas = self.quotas.lock().unwrap_or_else(PoisonError::into_inner);
        quotas.retain(|_, quota| quota.strong_count() > 0);
        if let Some(quota) = quotas.get(&peer).and_then(Weak::upgrade) {
            return quota;
        }
        let fresh = Arc::new(Quota {
            requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
            kib: Arc::new(Semaphore::new(MAX_KIB)),
        });
        quotas.insert(peer, Arc::downgrade(&fresh));
        fresh
    }

    async fn answer(self, mut send: SendStream, mut recv: RecvStream, quota: Arc<Quota>) {
        let Ok(_place) = quota.requests.clone().try_acquire_owned() else {
            return self.too_much(send, recv).await;
        };
        let (ask, _memory): (Ask, _) = match timeout(READ, read(&mut recv, &quota)).await {
            Ok(Ok(Some(asked))) => asked,
            Ok(Ok(None)) => return self.too_much(send, recv).await,
            Ok(Err(error)) => return self.malformed(send, recv, &error.to_string()),
            Err(_) => return self.malformed(send, recv, "it did not come in time"),
        };
        if let Some(tag) = ask.unknown_demand() {
            let message = format!("this node's release does not know what field {tag} of a newer one asks for");
            return end(send, Reply::Failed(GenerateError::invalid(format!("ext {tag}"), message))).await;
        }
        let (task, _more): (Option<PoolTask>, _) = match ask.pools() {
            false => (None, None),
            true => match timeout(READ, read(&mut recv, &quota)).await {
                Ok(Ok(Some((task, memory)))) => (Some(task), Some(memory)),
                Ok(Ok(None)) => return self.too_much(send, recv).await,
                Ok(Err(io::FrameError::Codec(CodecError::UnknownVariant { found, .. }))) => {
                    let message = format!("this node's release does not know task {found} of a newer one");
                    return end(send, Reply::Failed(GenerateError::invalid("task", message))).await;
                }
                Ok(Err(error)) => return self.malformed(send, recv, &error.to_string()),
                Err(_) => return self.malformed(send, recv, "it did not come in time"),
            },
        };
        let Some(served) = self.locals.find_key(ask.model) else {
            let model = ask.request.model.to_string();
            return end(send, Reply::Failed(GenerateError::NotServed { model })).await;
        };
        let (model, deadline) = (ask.model, ask.deadline);
        let replies = match task {
            Some(task) => {
                let request = ask.into_request();
                speak_rows(served.engine, PoolRequest { id: request.id, model: request.model, task })
            }
            None => {
                let prefix = PrefixChain::of(&ask.request.prompt, &self.mesh.0, model);
                self.sketches.cached(model, &prefix, None);
                speak(served.engine, ask.into_request())
            }
        };
        let relay = self.relay(&mut send, replies, model);
        let ended = match deadline {
            Some(deadline) => timeout(Duration::from_millis(deadline.0), relay).await.unwrap_or(Ended::Late),
            None => relay.await,
        };
        match ended {
            Ended::Whole | Ended::Gone => {}
            Ended::Late => drop(send.reset(VarInt::from_u32(0))),
            Ended::HandedOver => end(send, Reply::Failed(GenerateError::ShuttingDown)).await,
        }
    }

    /// What the peer sent is none of what a peer may send.
    fn malformed(&self, mut send: SendStream, mut recv: RecvStream, error: &str) {
        self.refused.fetch_add(1, Relaxed);
        tracing::debug!(error, "a peer's request cannot be read");
        // Both fail where the stream has ended already.
        let _ = recv.stop(VarInt::from_u32(MALFORMED));
        let _ = send.reset(VarInt::from_u32(MALFORMED));
    }

    /// The peer has as much here as it may. It is told so before all of its request has come.
    async fn too_much(&self, send: SendStream, mut recv: RecvStream) {
        self.refused.fetch_add(1, Relaxed);
        let _ = recv.stop(VarInt::from_u32(BUSY));
        let busy = GenerateError::Busy { waiting: MAX_REQUESTS as u32, retry_after_s: 1 };
        end(send, Reply::Failed(busy)).await;
    }

    /// Passes frames on until the last; cancels when the peer is gone; hands over when this node drains.
    async fn relay(&self, send: &mut SendStream, mut replies: mpsc::Receiver<Reply>, model: ModelKey) -> Ended {
        let mut handover = self.handover.clone();
        let stopped = send.stopped();
        tokio::pin!(stopped);
        loop {
            let reply = tokio::select! {
                reply = replies.recv() => reply,
                _ = &mut stopped => return Ended::Gone,
                () = handed_over(&mut handover, model) => return Ended::HandedOver,
            };
            let Some(reply) = reply else { return Ended::Gone };
            let last = matches!(reply, Reply::Finished { .. } | Reply::Failed(_));
            if io::write(send, &reply).await.is_err() {
                return Ended::Gone;
            }
            if last {
                let _ = send.finish();
                return Ended::Whole;
            }
        }
    }
}

async fn handed_over(handover: &mut Handover, model: ModelKey) {
    let wanted = handover.wait_for(|now| now.as_ref().is_some_and(|hand_over| hand_over(model))).await.is_ok();
    if !wanted {
        std::future::pending().await
    }
}

enum Ended {
    Whole,
    Gone,
    Late,
    HandedOver,
}

/// `None`: with this request, the peer would have more here than it may. It does not wait: unread streams would fill the
/// connection's window, and the asking side would take the silence for death.
async fn read<T: Wire>(
    recv: &mut RecvStream,
    quota: &Quota,
) -> Result<Option<(T, OwnedSemaphorePermit)>, io::FrameError> {
    let broken = || io::FrameError::Broken("it asked for nothing".into());
    let length = io::length::<T>(recv).await?.ok_or_else(broken)?;
    let kib = u32::try_from(length.div_ceil(1024)).unwrap_or(u32::MAX);
    let Ok(memory) = quota.kib.clone().try_acquire_many_owned(kib) else { return Ok(None) };
    Ok(Some((io::body(recv, length).await?, memory)))
}

async fn end(mut send: SendStream, reply: Reply) {
    if io::write(&mut send, &reply).await.is_ok() {
        let _ = send.finish();
        // Dropping it earlier would reset what is under way.
        let _ = timeout(Duration::from_secs(5), send.stopped()).await;
    }
}

impl ProtocolHandler for Serve {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        let quota = self.quota(node_id(connection.remote_id()));
        while let Ok((send, recv)) = connection.accept_bi().await {
            tokio::spawn(self.clone().answer(send, recv, quota.clone()));
        }
        Ok(())
    }
}

//! Connections to members for control frames, `mesh-llm/mesh/1`: who is linked, and how frames get there; must not know
//! what frames say.
//!
//! Each frame travels on a unidirectional stream of its own: its kind (one byte), then its bytes. Frames stand alone, so
//! a lost packet holds back one frame and not the ones behind it. A pair may have two connections when both dial at
//! once; it is linked while it has one.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use iroh::{
    endpoint::{Connection, VarInt},
    protocol::{AcceptError, ProtocolHandler},
};
use mesh_proto::{
    codec::Wire,
    directory::SyncFrame,
    identity::{Contact, NodeId},
    suspicion::ProbeFrame,
};
use tokio::sync::{Semaphore, mpsc};

use super::{
    alpn,
    endpoint::{Net, node_id},
    mail::Mail,
};

/// Frames that wait for one peer; more are dropped: anti-entropy and probes are repeated anyway. (guess)
const MAX_WAITING: usize = 64;

/// Connections that one peer may have; one more closes the oldest. Two are made when both dial at once. (guess)
const MAX_LINKS: usize = 4;
/// Frames of one peer that may lie in the mailbox, over all its connections: 2 MiB. Beyond them its streams wait, and
/// nobody else's. (guess)
const MAX_READ: usize = 8;

/// What a stream carries: its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sync = 0,
    Probe = 1,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Sync),
            1 => Some(Self::Probe),
            _ => None,
        }
    }

    fn limit(self) -> usize {
        match self {
            Self::Sync => SyncFrame::LIMIT,
            Self::Probe => ProbeFrame::LIMIT,
        }
    }
}

#[derive(Debug)]
struct Link {
    connection: Connection,
    frames: mpsc::Sender<(Kind, Vec<u8>)>,
}

/// All links of this node. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    net: Net,
    mail: mpsc::Sender<Mail>,
    open: Arc<Mutex<BTreeMap<NodeId, Vec<Link>>>>,
    unread: Arc<Mutex<BTreeMap<NodeId, Weak<Semaphore>>>>,
    skipped: Arc<Skipped>,
}

/// Frames that were not read to their end.
#[derive(Debug, Default)]
struct Skipped {
    unknown: AtomicU64,
    broken: AtomicU64,
}

impl Links {
    pub(crate) fn new(net: Net, mail: mpsc::Sender<Mail>) -> Self {
        Self { net, mail, open: Arc::default(), unread: Arc::default(), skipped: Arc::default() }
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<NodeId, Vec<Link>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is a connection.
    pub(crate) fn has(&self, node: &NodeId) -> bool {
        self.open().contains_key(node)
    }

    /// How many frames were of a kind that this release does not know, and how many too long or broken off.
    pub(crate) fn skipped(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let Skipped { unknown, broken } = &*self.skipped;
        [("frames_unknown", unknown.load(Relaxed)), ("frames_broken", broken.load(Relaxed))].into_iter()
    }

    /// Who is linked.
    pub(crate) fn all(&self) -> Vec<NodeId> {
        self.open().keys().copied().collect()
    }

    /// A connection, to look at its path.
    pub(crate) fn connection(&self, node: &NodeId) -> Option<Connection> {
        self.open().get(node)?.last().map(|link| link.connection.clone())
    }

    /// Sends a frame on the newest connection; `false` where there is none. Never waits.
    pub(crate) fn send(&self, node: &NodeId, kind: Kind, bytes: Vec<u8>) -> bool {
        let open = self.open();
        let Some(link) = open.get(node).and_then(|links| links.last()) else { return false };
        if link.frames.try_send((kind, bytes)).is_err() {
            tracing::debug!(node = %node.short(), "a peer takes no frames; one was dropped");
        }
        true
    }

    /// Closes all connections with a node.
    pub(crate) fn close(&self, node: &NodeId, code: u32, why: &'static str) {
        if let Some(links) = self.open().get(node) {
            links.iter().for_each(|link| link.connection.close(VarInt::from_u32(code), why.as_bytes()));
        }
    }

    /// Dials, and links on success.
    pub(crate) async fn dial(&self, contact: &Contact) -> Result<(), super::endpoint::DialError> {
        let connection = self.net.dial(contact, alpn::MESH).await?;
        self.adopt(connection).await;
        Ok(())
    }

    /// Takes a connection in, and reads it until it ends.
    async fn adopt(&self, connection: Connection) {
        let node = node_id(connection.remote_id());
        let (frames, waiting) = mpsc::channel(MAX_WAITING);
        let first = {
            let mut open = self.open();
            let links = open.entry(node).or_default();
            links.push(Link { connection: connection.clone(), frames });
            if links.len() > MAX_LINKS
                && let Some(oldest) = links.first()
            {
                oldest.connection.close(VarInt::from_u32(0), b"too many");
            }
            links.len() == 1
        };
        if first && self.mail.send(Mail::LinkUp(node)).await.is_err() {
            connection.close(VarInt::from_u32(0), b"leaving");
        }
        tokio::spawn(write(connection.clone(), waiting));
        let links = self.clone();
        tokio::spawn(async move {
            links.read(&connection, node).await;
            links.forget(&connection, node).await;
        });
    }

    /// One peer's share of the mailbox, however many connections it opens.
    fn share(&self, node: NodeId) -> Arc<Semaphore> {
        let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        unread.retain(|_, share| share.strong_count() > 0);
        if let Some(share) = unread.get(&node).and_then(Weak::upgrade) {
            return share;
        }
        let share = Arc::new(Semaphore::new(MAX_READ));
        unread.insert(node, Arc::downgrade(&share));
        share
    }

    async fn read(&self, connection: &Connection, node: NodeId) {
        let share = self.share(node);
        while let Ok(mut stream) = connection.accept_uni().await {
            let mut kind = [0; 1];
            if stream.read_exact(&mut kind).await.is_err() {
                continue;
            }
            // Another release's kinds are skipped; dropping the stream tells the peer to stop.
            let Some(kind) = Kind::of(kind[0]) else {
                self.skipped.unknown.fetch_add(1, Relaxed);
                continue;
            };
            let Ok(bytes) = stream.read_to_end(kind.limit()).await else {
                self.skipped.broken.fetch_add(1, Relaxed);
                tracing::debug!(node = %node.short(), "a frame was too long, or broke off");
                continue;
            };
            // One peer's frames wait for the mesh's task here; nobody else's do.
            let Ok(place) = share.clone().acquire_owned().await else { break };
            if self.mail.send(Mail::Frame { from: node, kind, bytes, place }).await.is_err() {
                break;
            }
        }
    }

    async fn forget(&self, connection: &Connection, node: NodeId) {
        let last = {
            let mut open = self.open();
            let Some(links) = open.get_mut(&node) else { return };
            links.retain(|link| link.connection.stable_id() != connection.stable_id());
            let last = links.is_empty();
            if last {
                open.remove(&node);
            }
            last
        };
        if last {
            // At the end of the process nobody listens any more.
            let _ = self.mail.send(Mail::LinkDown(node)).await;
        }
    }
}

impl ProtocolHandler for Links {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        self.adopt(connection.clone()).await;
        connection.closed().await;
        Ok(())
    }
}

async fn write(connection: Connection, mut frames: mpsc::Receiver<(Kind, Vec<u8>)>) {
    while let Some((kind, bytes)) = frames.recv().await {
        let sent = async {
            let mut stream = connection.open_uni().await.ok()?;
            stream.write_all(&[kind as u8]).await.ok()?;
            stream.write_all(&bytes).await.ok()?;
            stream.finish().ok()
        };
        if sent.await.is_none() {
            break;
        }
    }
}

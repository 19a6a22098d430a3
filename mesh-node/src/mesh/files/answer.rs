//! The answering side of `mesh-llm/files/1`: which files this node has, within bounds; must not know what it wants itself.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use iroh::{
    endpoint::{Connection, RecvStream, SendStream, VarInt},
    protocol::{AcceptError, ProtocolHandler},
};
use mesh_proto::{
    codec::Ext,
    files::{FileState, FilesAsk, FilesReply},
    identity::NodeId,
};
use tokio::{sync::Semaphore, time::timeout};

use super::{Files, file_name};
use crate::{mesh::node_id, tunnel::io};

/// Questions of one peer at once. Unit: questions; default 16: four files come at a time, and a question takes milliseconds.
const AT_ONCE: usize = 16;
/// Questions of one peer in a second, and how many it may save up. Guess: who waits asks each of its files twice a second at
/// most, four files at a time.
const RATE: (f64, f64) = (20.0, 400.0);
/// How long a question may take to come in. Unit: seconds; default 5, as at the admission desk.
const READ: Duration = Duration::from_secs(5);
/// The code with which a stream is stopped that brought what nobody can read.
const MALFORMED: u32 = 400;
/// The same where the peer asks too much.
const BUSY: u32 = 503;

/// Per peer, however many connections it opens: what it may still ask, and what it may be sent at once.
#[derive(Debug)]
pub(super) struct Quota {
    asks: Semaphore,
    saved: Mutex<(f64, Instant)>,
    pub(super) sends: Arc<Semaphore>,
}

impl Quota {
    fn new() -> Self {
        let saved = Mutex::new((RATE.1, Instant::now()));
        Self { asks: Semaphore::new(AT_ONCE), saved, sends: Arc::new(Semaphore::new(super::send::AT_ONCE)) }
    }

    /// Whether it may ask once more now.
    fn takes(&self) -> bool {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let grown = saved.0 + now.duration_since(saved.1).as_secs_f64() * RATE.0;
        *saved = (grown.min(RATE.1), now);
        let takes = saved.0 >= 1.0;
        if takes {
            saved.0 -= 1.0;
        }
        takes
    }
}

/// Quotas of peers.
#[derive(Debug, Default)]
pub(super) struct Quotas(Mutex<BTreeMap<NodeId, Arc<Quota>>>);

/// So many are kept, so that a peer that connects anew does not begin anew; then those go that nobody uses.
const KEPT: usize = 256;

impl Quotas {
    pub(super) fn of(&self, peer: NodeId) -> Arc<Quota> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() > KEPT {
            all.retain(|_, quota| Arc::strong_count(quota) > 1);
        }
        all.entry(peer).or_insert_with(|| Arc::new(Quota::new())).clone()
    }
}

impl Files {
    async fn answer(self, peer: NodeId, mut send: SendStream, mut recv: RecvStream, quota: Arc<Quota>) {
        let refuse = |mut send: SendStream, mut recv: RecvStream, code: u32| {
            self.0.counts.refused.fetch_add(1, Relaxed);
            // Either end may be gone.
            let _ = recv.stop(VarInt::from_u32(code));
            let _ = send.reset(VarInt::from_u32(code));
        };
        let Ok(_place) = quota.asks.try_acquire() else { return refuse(send, recv, BUSY) };
        if !quota.takes() {
            return refuse(send, recv, BUSY);
        }
        let ask = match timeout(READ, io::read::<FilesAsk>(&mut recv)).await {
            Ok(Ok(Some(ask))) => ask,
            _ => return refuse(send, recv, MALFORMED),
        };
        let files = self.clone();
        let looked = tokio::task::spawn_blocking(move || files.states(peer, &ask)).await;
        let Ok(files) = looked else { return refuse(send, recv, MALFORMED) };
        if io::write(&mut send, &FilesReply { files, ext: Ext::default() }).await.is_ok() {
            let _ = send.finish();
            // Dropping it earlier would reset what is under way.
            let _ = timeout(READ, send.stopped()).await;
        }
    }

    /// Blocks while small files are read.
    fn states(&self, peer: NodeId, ask: &FilesAsk) -> Vec<FileState> {
        if !self.0.shared.allows(&ask.repo) {
            return vec![FileState::Absent; ask.files.len()];
        }
        let state = |file: &mesh_proto::files::FileName| {
            if let Some(state) = self.0.wants.state(&(ask.repo.clone(), *file), peer, ask.wants) {
                return state;
            }
            match self.0.hub.blob(&ask.repo, &file_name(&file.sum), file.bytes) {
                Ok(Some(path)) => self.0.trees.state(&ask.repo, &path),
                _ => FileState::Absent,
            }
        };
        ask.files.iter().map(state).collect()
    }
}

impl ProtocolHandler for Files {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        let peer = node_id(connection.remote_id());
        let quota = self.0.quotas.of(peer);
        while let Ok((send, recv)) = connection.accept_bi().await {
            tokio::spawn(self.clone().answer(peer, send, recv, quota.clone()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_without_end_is_refused_and_served_again_later() {
        let quota = Quota::new();
        let taken = (0..1000).filter(|_| quota.takes()).count();
        assert!((400..500).contains(&taken), "{taken}");
        quota.saved.lock().unwrap().1 -= Duration::from_secs(1);
        let again = (0..1000).filter(|_| quota.takes()).count();
        assert!((20..120).contains(&again), "{again}");
    }
}

//! Files' bytes to peers over iroh-blobs' protocol, read where they lie; must not know who has which file.
//!
//! iroh-blobs' own provider serves a `Store`, of which there are three: two in memory, and one that keeps files in a folder
//! of its own beside a database. No other can be made outside of that crate (`Store::from_sender` is its own). Here the
//! request and the encoding are its and bao-tree's; the bytes come from the hub's cache, so nothing lies on disk twice.

use std::{
    io::{self, Write},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bao_tree::{ChunkRanges, io::sync::encode_ranges_validated};
use bytes::Bytes;
use iroh::{
    endpoint::{Connection, RecvStream, SendStream},
    protocol::{AcceptError, ProtocolHandler},
};
use iroh_blobs::protocol::{ERR_INTERNAL, ERR_PERMISSION, Request};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};

use super::{Files, trees::Tree};
use crate::mesh::node_id;

/// Streams on which one peer is sent files at once; more wait in QUIC. Default 8, a guess: as many as it asks for itself.
/// Cost: a thread and a quarter of a MiB each.
pub(super) const AT_ONCE: usize = 8;
/// The same for all peers together. Default 64: one line is full with far fewer.
const ALL_AT_ONCE: usize = 64;
/// Bytes of one piece, and pieces on their way to the network.
const PIECE: usize = 64 << 10;
const QUEUE: usize = 4;
/// How long a request may take to come in, and how long a peer may read nothing. Unit: seconds; defaults 5 and 30, guesses.
const READ: Duration = Duration::from_secs(5);
const STALL: Duration = Duration::from_secs(30);

/// Sends files.
#[derive(Clone, Debug)]
pub(crate) struct Sends {
    files: Files,
    places: Arc<Semaphore>,
}

impl Sends {
    pub(crate) fn new(files: &Files) -> Self {
        Self { files: files.clone(), places: Arc::new(Semaphore::new(ALL_AT_ONCE)) }
    }

    async fn answer(self, mut send: SendStream, mut recv: RecvStream, place: OwnedSemaphorePermit) {
        let _place = place;
        let request = timeout(READ, Request::read_async(&mut recv)).await;
        let wanted = match &request {
            Ok(Ok((Request::Get(get), _))) => {
                get.ranges.as_single().filter(|(child, _)| *child == 0).map(|(_, ranges)| {
                    let root: [u8; 32] = *get.hash.as_bytes();
                    (root, ranges.clone())
                })
            }
            _ => None,
        };
        let Some((root, ranges)) = wanted else { return self.refuse(&mut send) };
        let files = self.files.clone();
        let opened = tokio::task::spawn_blocking(move || {
            files.0.trees.open(root).filter(|tree| files.0.shared.allows(&tree.repo))
        });
        let Ok(Some(tree)) = opened.await else { return self.refuse(&mut send) };
        let (pieces, mut ready) = mpsc::channel(QUEUE);
        let (files, size) = (self.files.clone(), tree.bytes);
        let reading = tokio::task::spawn_blocking(move || read(&files, &tree, &ranges, pieces));
        let sending = async {
            timeout(STALL, send.write_all(&size.to_le_bytes())).await.ok()?.ok()?;
            while let Some(piece) = ready.recv().await {
                let bytes = piece.len() as u64;
                timeout(STALL, send.write_chunk(piece)).await.ok()?.ok()?;
                self.files.0.counts.sent.fetch_add(bytes, Relaxed);
            }
            Some(())
        };
        let sent = sending.await;
        // Whoever reads finds nobody to take the next piece, and stops.
        drop(ready);
        match (sent, reading.await) {
            (Some(()), Ok(true)) => {
                let _ = send.finish();
                // Dropping it earlier would reset what is under way.
                let _ = timeout(STALL, send.stopped()).await;
            }
            _ => drop(send.reset(ERR_INTERNAL)),
        }
    }

    fn refuse(&self, send: &mut SendStream) {
        self.files.0.counts.refused.fetch_add(1, Relaxed);
        // Either end may be gone.
        let _ = send.reset(ERR_PERMISSION);
    }
}

/// Encodes ranges of a file; whether all of it was right. Blocks.
fn read(files: &Files, tree: &Tree, ranges: &ChunkRanges, pieces: mpsc::Sender<Bytes>) -> bool {
    use bao_tree::io::EncodeError;
    let mut pipe = Pipe { pieces, piece: Vec::with_capacity(PIECE) };
    let encoded = encode_ranges_validated(&tree.file, &tree.outboard, ranges, &mut pipe);
    match encoded {
        Ok(()) => pipe.flush().is_ok(),
        Err(EncodeError::ParentHashMismatch(_) | EncodeError::LeafHashMismatch(_)) => {
            tracing::error!(path = %tree.path.display(), "a file is not what it was: `mesh-llm models verify` finds it");
            files.0.trees.spoilt(&tree.path);
            false
        }
        Err(error) => {
            tracing::debug!(%error, "a file was not sent to its end");
            false
        }
    }
}

/// From the thread that reads to the task that sends.
struct Pipe {
    pieces: mpsc::Sender<Bytes>,
    piece: Vec<u8>,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.pieces.blocking_send(piece.into()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl ProtocolHandler for Sends {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        let quota = self.files.0.quotas.of(node_id(connection.remote_id()));
        while let Ok((send, recv)) = connection.accept_bi().await {
            let Ok(place) = quota.sends.clone().acquire_owned().await else { break };
            let (sends, all) = (self.clone(), self.places.clone());
            tokio::spawn(async move {
                // Closed never.
                let Ok(_one_of_all) = all.acquire().await else { return };
                sends.answer(send, recv, place).await;
            });
        }
        Ok(())
    }
}

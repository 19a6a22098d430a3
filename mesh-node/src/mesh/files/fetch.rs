//! A file from several peers at once, piece by piece; must not know who has it, or what it is compared with in the end.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bao_tree::{ChunkRanges, io::BaoContentItem};
use futures_util::future::join_all;
use iroh::endpoint::Connection;
use iroh_blobs::{
    Hash,
    get::fsm::{self, BlobContentNext, ConnectedNext, DecodeError, EndBlobNext},
    protocol::GetRequest,
};
use mesh_proto::identity::{Contact, NodeId};
use tokio::{sync::mpsc, task::spawn_blocking, time::timeout};

use super::{arrival::Arrival, ask::Lines};
use crate::mesh::alpn;

/// Bytes of one request. Unit: bytes; default 4 MiB, a guess: a slow peer holds up no more than that in the end, and a fast
/// one has the next request under way on its other stream. Cost: 16 hash pairs a request.
const PIECE: u64 = 4 << 20;
/// Requests to one peer at once, and to all.
const A_PEER: usize = 2;
const ALL: usize = 8;
/// A peer that gives less than this in that time is given up: bytes, and seconds. Guess: a hub is quicker than that.
const LEAST: u64 = 256 << 10;
const WINDOW: Duration = Duration::from_secs(10);
/// Items on their way to the disk, 16 KiB each.
const QUEUE: usize = 64;

/// Why a peer is asked for nothing more of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It is gone, slow, or has it no more.
    Lost,
    /// What it sent is not what it said.
    Lied,
}

/// What came of a try.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Who failed, and how.
    pub(super) failed: Vec<(NodeId, Failure)>,
    /// The disk.
    pub(super) disk: Option<io::Error>,
}

struct Work<'a> {
    arrival: &'a Arc<Arrival>,
    pieces: Mutex<VecDeque<ChunkRanges>>,
    outcome: Mutex<Outcome>,
    received: &'a AtomicU64,
}

impl Work<'_> {
    fn pieces(&self) -> MutexGuard<'_, VecDeque<ChunkRanges>> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outcome(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fetches what is missing of a file from those who have it, until it is whole or all of them have failed.
pub(super) async fn fetch(lines: &Lines, arrival: &Arc<Arrival>, from: &[Contact], received: &AtomicU64) -> Outcome {
    let mut from: Vec<&Contact> = from.iter().collect();
    let pieces = Mutex::new(arrival.pieces(PIECE).into());
    let work = Work { arrival, pieces, outcome: Mutex::default(), received };
    while !work.pieces().is_empty() && !from.is_empty() && work.outcome().disk.is_none() {
        let each = (ALL / from.len()).clamp(1, A_PEER);
        let streams = from.iter().flat_map(|contact| std::iter::repeat_n(*contact, each)).take(ALL);
        join_all(streams.map(|contact| stream(lines, contact, &work))).await;
        let outcome = work.outcome();
        from.retain(|contact| outcome.failed.iter().all(|(node, _)| *node != contact.node));
    }
    work.outcome.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// One request after the other to one peer, while there are pieces and it gives them.
async fn stream(lines: &Lines, contact: &Contact, work: &Work<'_>) {
    let node = contact.node;
    loop {
        if work.outcome().failed.iter().any(|(failed, _)| *failed == node) {
            return;
        }
        let Some(piece) = work.pieces().pop_front() else { return };
        let got = match lines.connection(contact, alpn::BLOBS).await {
            Some(connection) => get(&connection, &piece, work).await,
            None => Err(Failure::Lost),
        };
        let rest = work.arrival.missing(&piece);
        let Err(failure) = got.and(if rest.is_empty() { Ok(()) } else { Err(Failure::Lost) }) else { continue };
        if !rest.is_empty() {
            work.pieces().push_front(rest);
        }
        tracing::debug!(node = %node.short(), ?failure, "a peer gives no more of a file");
        let mut outcome = work.outcome();
        if !outcome.failed.contains(&(node, failure)) {
            outcome.failed.push((node, failure));
        }
        return;
    }
}

/// One request. What came before it failed is kept.
async fn get(connection: &Connection, piece: &ChunkRanges, work: &Work<'_>) -> Result<(), Failure> {
    let arrival = work.arrival;
    let request = GetRequest::blob_ranges(Hash::from_bytes(arrival.root), piece.clone());
    let lost = |_| Failure::Lost;
    let start = async {
        let connected = fsm::start(connection.clone(), request, Default::default()).next().await.map_err(|_| ())?;
        let ConnectedNext::StartRoot(root) = connected.next().await.map_err(|_| ())? else { return Err(()) };
        root.next().next().await.map_err(|_| ())
    };
    let (mut content, size) = timeout(WINDOW, start).await.map_err(|_| Failure::Lost)?.map_err(lost)?;
    if size != arrival.bytes {
        return Err(Failure::Lied);
    }
    let (items, queue) = mpsc::channel(QUEUE);
    let writing = spawn_writer(arrival.clone(), queue);
    let mut window = (Instant::now(), 0);
    let result = loop {
        let Ok(next) = timeout(WINDOW, content.next()).await else { break Err(Failure::Lost) };
        match next {
            BlobContentNext::More((more, Ok(item))) => {
                content = more;
                if let BaoContentItem::Leaf(leaf) = &item {
                    let count = leaf.data.len() as u64;
                    window.1 += count;
                    work.received.fetch_add(count, Relaxed);
                }
                // A writer that is gone says why below.
                if items.send(item).await.is_err() {
                    break Err(Failure::Lost);
                }
                if window.0.elapsed() >= WINDOW {
                    if window.1 < LEAST {
                        break Err(Failure::Lost);
                    }
                    window = (Instant::now(), 0);
                }
            }
            BlobContentNext::More((_, Err(error))) => break Err(judged(&error)),
            BlobContentNext::Done(end) => {
                let EndBlobNext::Closing(_) = end.next() else { break Err(Failure::Lied) };
                break Ok(());
            }
        }
    };
    drop(items);
    match writing.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => work.outcome().disk = Some(error),
        Err(panic) => work.outcome().disk = Some(io::Error::other(panic)),
    }
    result
}

fn spawn_writer(
    arrival: Arc<Arrival>,
    mut queue: mpsc::Receiver<BaoContentItem>,
) -> tokio::task::JoinHandle<io::Result<()>> {
    spawn_blocking(move || {
        while let Some(item) = queue.blocking_recv() {
            arrival.put(item)?;
        }
        Ok(())
    })
}

/// Hashes that do not fit are nobody's accident; all else may be.
fn judged(error: &DecodeError) -> Failure {
    match error {
        DecodeError::ParentHashMismatch { .. } | DecodeError::LeafHashMismatch { .. } => Failure::Lied,
        _ => Failure::Lost,
    }
}

//! The mesh as a source of model files: what one node has, the others need not ask the hub for; must not know models.
//!
//! ```text
//! catalog's download ─→ Elsewhere::ask ─→ ask (who has it?) ─→ fetch (from all who do) ─→ arrival (beside the part)
//!                          └ wants: or who asks the hub, for all
//! mesh-llm/files/1 ───→ answer ─→ shared, wants, trees           iroh-blobs ───→ send ─→ trees, the hub's cache
//! ```
//! Files go by the hub's checksums, and are compared with them before they are used: a peer's word is a way to bytes, and
//! nothing more. Only members that may serve are let in (`mesh/gate`), and what only some may read on the hub goes to
//! nobody unless its owner names it.

mod answer;
mod arrival;
mod ask;
mod fetch;
mod send;
mod shared;
mod trees;
mod wants;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use catalog::hub::{Answer, Elsewhere, Hears, Hub, HubConfig, Stage, Turn, WantedFile};
use data_encoding::HEXLOWER;
use futures_util::future::{BoxFuture, FutureExt};
use mesh_proto::{
    files::{FileName, FileState, FileSum},
    identity::{Contact, NodeId},
};
use tokio::{sync::watch, task::spawn_blocking, time::sleep};

pub(crate) use send::Sends;

use self::{
    answer::Quotas,
    arrival::Arrival,
    ask::{Lines, Said},
    fetch::Failure,
    shared::Shared,
    trees::Trees,
    wants::{Key, Wants, Wish},
};
use super::{Joining, Net, View};
use crate::cli::Share;

/// How long a node that has just started waits for its mesh before it asks the hub. Unit: seconds; default 10, a guess: a
/// join over a relay takes one or two. Cost: added to a download where nobody is there.
const JOIN: Duration = Duration::from_secs(10);
/// From the first peer that is seen to the first question: by then the others' records are here, and this node's with them.
/// Unit: seconds; default 1.5, a guess.
const SETTLE: Duration = Duration::from_millis(1500);
/// Between two rounds of asking, at first and at most. Unit: seconds; defaults 0.25 and 2, guesses: a file that another node
/// has is had that much later.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));
/// Rounds in which a member that says nothing is asked again before it counts for nothing: it may know this one in a moment.
const ROUNDS: u32 = 3;
/// A node whose progress is waited for makes so much in that time, or is waited for no longer: bytes, and seconds. As much as
/// makes the hub's own failures forgotten.
const GROWS: u64 = 1 << 20;
const STUCK: Duration = Duration::from_secs(30);
/// A peer that failed so often is asked nothing more of that file.
const FAILURES: u32 = 3;
/// Liars remembered at most.
const LIARS: usize = 4096;
/// Between two looks at how far a file is.
const TELL: Duration = Duration::from_millis(100);

/// Where model files are, and who may have them.
#[derive(Clone, Debug)]
pub struct FilesOptions {
    /// The hub whose files they are, and the cache in which they lie.
    pub hub: HubConfig,
    /// Where files lie that can be made again.
    pub cache: PathBuf,
    /// Which of them others may have.
    pub share: Share,
}

/// This node's part in it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Files(Arc<Inner>);

struct Inner {
    hub: Hub,
    shared: Shared,
    trees: Trees,
    wants: Wants,
    lines: Lines,
    quotas: Quotas,
    counts: Counts,
    view: watch::Receiver<Arc<View>>,
    /// There should be others.
    expects: bool,
    settled: tokio::sync::OnceCell<()>,
    /// Who sent wrong bytes as which file.
    liars: Mutex<BTreeSet<(NodeId, FileName)>>,
}

/// What happened, for the operator.
#[derive(Debug, Default)]
struct Counts {
    /// Questions and requests that were turned away.
    refused: AtomicU64,
    /// Bytes to peers, and from them.
    sent: AtomicU64,
    received: AtomicU64,
    /// Files that peers gave, and that were not what the hub has.
    wrong: AtomicU64,
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").field("counts", &self.0.counts).finish_non_exhaustive()
    }
}

impl Files {
    /// `expects`: this node knows that there are others. `None` where the hub's configuration is no good; who downloads says
    /// what is wrong with it.
    pub(super) fn new(
        options: FilesOptions,
        state: &Path,
        net: Net,
        view: watch::Receiver<Arc<View>>,
        expects: bool,
    ) -> Option<Self> {
        let FilesOptions { hub, cache, share } = options;
        let hub = Hub::new(hub).inspect_err(|error| tracing::debug!(%error, "no files for the mesh")).ok()?;
        let files = Self(Arc::new(Inner {
            hub,
            shared: Shared::new(share, state.join("open-repositories.json")),
            trees: Trees::new(&cache),
            wants: Wants::default(),
            lines: Lines::new(net),
            quotas: Quotas::default(),
            counts: Counts::default(),
            view,
            expects,
            settled: tokio::sync::OnceCell::new(),
            liars: Mutex::default(),
        }));
        let trees = files.0.trees.clone();
        // Nobody waits for it.
        drop(spawn_blocking(move || trees.sweep()));
        Some(files)
    }

    /// Whether others get anything from here.
    pub(crate) fn shares(&self) -> bool {
        self.0.shared.any()
    }

    /// What happened so far, by label.
    pub(crate) fn counters(&self) -> impl Iterator<Item = (String, u64)> {
        let Counts { refused, sent, received, wrong } = &self.0.counts;
        [
            ("files_refused", refused),
            ("files_bytes_sent", sent),
            ("files_bytes_received", received),
            ("files_wrong", wrong),
        ]
        .into_iter()
        .map(|(label, count)| (label.to_owned(), count.load(Relaxed)))
    }

    /// Waits for the mesh, once after the start.
    async fn settle(&self) {
        let waited = async {
            if !self.0.expects {
                return;
            }
            let mut view = self.0.view.clone();
            let seen = view.wait_for(|view| !matches!(view.joining, Joining::Joining { .. }) && !view.peers.is_empty());
            let seen = tokio::time::timeout(JOIN, seen).await.is_ok_and(|seen| seen.is_ok());
            if seen {
                sleep(SETTLE).await;
            }
        };
        self.0.settled.get_or_init(|| waited).await;
    }

    fn lied(&self, node: NodeId, file: FileName) {
        tracing::warn!(node = %node.short(), "a peer sent a file that is not what the hub has");
        let mut liars = self.0.liars.lock().unwrap_or_else(PoisonError::into_inner);
        if liars.len() < LIARS {
            liars.insert((node, file));
        }
    }

    fn is_liar(&self, node: NodeId, file: FileName) -> bool {
        self.0.liars.lock().unwrap_or_else(PoisonError::into_inner).contains(&(node, file))
    }

    async fn bring(&self, wanted: &WantedFile, hear: Hears<'_>) -> Answer {
        let Some(sum) = file_sum(&wanted.name) else { return Answer { arrived: 0, turn: Box::new(Alone) } };
        let key: Key = (wanted.repo.clone(), FileName { sum, bytes: wanted.bytes });
        self.settle().await;
        let mut search = Search::new(self.clone(), key);
        let arrived = search.run(wanted, hear).await;
        if arrived < wanted.bytes {
            // The tree is of no use any more: what came becomes a part of the hub's download.
            let _ = fs::remove_file(arrival::tree_at(&wanted.beside));
        }
        Answer { arrived, turn: Box::new(search.turn(&wanted.beside)) }
    }
}

impl Elsewhere for Files {
    fn listed(&self, repo: &str, open: bool) {
        self.0.shared.listed(repo, open);
    }

    fn ask<'a>(&'a self, wanted: &'a WantedFile, hear: Hears<'a>) -> BoxFuture<'a, Answer> {
        self.bring(wanted, hear).boxed()
    }
}

/// One file being looked for.
struct Search {
    files: Files,
    key: Key,
    wish: Wish,
    /// How often each peer failed.
    failures: BTreeMap<NodeId, u32>,
    grew: BTreeMap<NodeId, Growth>,
    /// Whose word the bytes rest on that are here, and what it was.
    gave: BTreeSet<NodeId>,
    root: Option<[u8; 32]>,
}

/// How somebody who is waited for gets on.
struct Growth {
    /// What it said last that was news.
    last: Option<u64>,
    since: Instant,
    /// How often it began anew: with another try, or reading the file over. Who does so for ever is not waited for.
    anew: u32,
}

impl Growth {
    const MOST_ANEW: u32 = 4;

    fn new(progress: Option<u64>) -> Self {
        Self { last: progress, since: Instant::now(), anew: 0 }
    }

    /// Whether it is worth waiting for still.
    fn heard(&mut self, progress: Option<u64>, bytes: u64) -> bool {
        let step = GROWS.min(bytes / 4).max(1);
        let news = match (self.last, progress) {
            (Some(before), Some(now)) if now >= before => now - before >= step && now <= bytes,
            (before, now) if before != now => {
                self.anew += 1;
                true
            }
            _ => false,
        };
        if news && self.anew <= Self::MOST_ANEW {
            (self.last, self.since) = (progress, Instant::now());
        }
        self.since.elapsed() < STUCK
    }
}

/// What to do after a round of questions.
enum Next {
    Fetch([u8; 32], Vec<Contact>),
    Wait,
    Hub,
}

impl Search {
    fn new(files: Files, key: Key) -> Self {
        let wish = files.0.wants.begin(key.clone());
        let (failures, grew, gave) = Default::default();
        Self { files, key, wish, failures, grew, gave, root: None }
    }

    /// Bytes from the first on that others gave, in the end: all, or it is this node's turn to ask the hub.
    async fn run(&mut self, wanted: &WantedFile, hear: Hears<'_>) -> u64 {
        let (mut arrived, mut pause, mut round) = (0, PAUSE.0, 0);
        loop {
            self.wish.asks();
            let view = self.files.0.view.borrow().clone();
            let shares = self.files.0.shared.allows(&self.key.0);
            let said = self.files.0.lines.poll(&view, &self.key, shares).await;
            round += 1;
            match self.judge(view.me, &said, round) {
                Next::Fetch(root, from) => {
                    match self.fetch(wanted, root, &from, &mut *hear).await {
                        Ok(arrival) if arrival.here() == wanted.bytes => return wanted.bytes,
                        Ok(arrival) => arrived = arrival.prefix(),
                        // The hub's own download says what is wrong with the disk.
                        Err(error) => {
                            tracing::warn!(%error, "a file from the mesh cannot be written");
                            self.wish.at(0);
                            return 0;
                        }
                    }
                    pause = PAUSE.0;
                }
                Next::Wait => {
                    hear(arrived, Stage::OthersTurn);
                    sleep(pause).await;
                    pause = (pause * 3 / 2).min(PAUSE.1);
                }
                Next::Hub => return arrived,
            }
        }
    }

    fn judge(&mut self, me: NodeId, said: &[Said], round: u32) -> Next {
        let believed = |said: &&Said| {
            let failures = self.failures.get(&said.contact.node).copied().unwrap_or(0);
            failures < FAILURES && !self.files.is_liar(said.contact.node, self.key.1)
        };
        let mut here: BTreeMap<[u8; 32], Vec<Contact>> = BTreeMap::new();
        for said in said.iter().filter(believed) {
            if let Some(FileState::Here { root }) = said.state {
                here.entry(root).or_default().push(said.contact.clone());
            }
        }
        // Where they differ, the most have it right, or it turns out.
        if let Some((root, from)) = here.into_iter().max_by_key(|(root, from)| (from.len(), *root)) {
            return Next::Fetch(root, from);
        }
        let mut waits = false;
        for said in said {
            let (node, state) = (said.contact.node, said.state);
            let progress = match state {
                Some(FileState::Coming { progress }) => Some(progress),
                Some(FileState::Wanted) if node < me => None,
                _ => {
                    self.grew.remove(&node);
                    continue;
                }
            };
            let growth = self.grew.entry(node).or_insert_with(|| Growth::new(progress));
            waits |= growth.heard(progress, self.key.1.bytes);
        }
        let silent = said.iter().any(|said| said.state.is_none());
        if waits || (silent && round < ROUNDS) || !self.wish.decides(me) { Next::Wait } else { Next::Hub }
    }

    async fn fetch(
        &mut self,
        wanted: &WantedFile,
        root: [u8; 32],
        from: &[Contact],
        hear: Hears<'_>,
    ) -> Result<Arc<Arrival>, std::io::Error> {
        let (beside, bytes) = (wanted.beside.clone(), wanted.bytes);
        let opened = spawn_blocking(move || Arrival::open(&beside, bytes, root)).await;
        let arrival = Arc::new(opened.map_err(std::io::Error::other)??);
        if self.root != Some(root) {
            self.gave.clear();
            self.root = Some(root);
        }
        let (files, target) = (self.files.clone(), arrival.clone());
        let fetching = fetch::fetch(&files.0.lines, &target, from, &files.0.counts.received);
        tokio::pin!(fetching);
        let outcome = loop {
            self.wish.at(arrival.here());
            hear(arrival.here(), Stage::Elsewhere);
            tokio::select! {
                outcome = &mut fetching => break outcome,
                () = sleep(TELL) => {}
            }
        };
        self.gave.extend(from.iter().map(|contact| contact.node));
        for (node, failure) in outcome.failed {
            *self.failures.entry(node).or_default() += 1;
            if failure == Failure::Lied {
                self.files.0.counts.wrong.fetch_add(1, Relaxed);
                self.files.lied(node, self.key.1);
            }
        }
        match outcome.disk {
            Some(error) => Err(error),
            None => Ok(arrival),
        }
    }

    fn turn(self, beside: &Path) -> OurTurn {
        let Self { files, key, wish, gave, root, .. } = self;
        OurTurn { files, key, wish, gave, root, tree: arrival::tree_at(beside) }
    }
}

/// A file that this node is about to have.
struct OurTurn {
    files: Files,
    key: Key,
    wish: Wish,
    gave: BTreeSet<NodeId>,
    root: Option<[u8; 32]>,
    tree: PathBuf,
}

impl Turn for OurTurn {
    fn at(&mut self, arrived: u64) {
        self.wish.at(arrived);
    }

    fn judged(&mut self, right: Option<&Path>) {
        let tree = self.tree.clone();
        let (Some(path), Some(root)) = (right, self.root) else {
            self.files.0.counts.wrong.fetch_add(1, Relaxed);
            for node in &self.gave {
                self.files.lied(*node, self.key.1);
            }
            return drop(fs::remove_file(tree));
        };
        let (trees, repo, path) = (self.files.0.trees.clone(), self.key.0.clone(), path.to_owned());
        // Who asks before it is done waits for the tree to be made anew, which is right, too.
        drop(spawn_blocking(move || {
            trees.adopt(&repo, &path, root, &tree);
            let _ = fs::remove_file(&tree);
        }));
    }
}

impl Drop for OurTurn {
    fn drop(&mut self) {
        // An idle connection costs both ends memory and packets.
        if self.files.0.wants.count() <= 1 {
            self.files.0.lines.hang_up();
        }
    }
}

/// A file of which nobody else is told.
struct Alone;

impl Turn for Alone {
    fn at(&mut self, _arrived: u64) {}
    fn judged(&mut self, _right: Option<&Path>) {}
}

fn file_sum(name: &str) -> Option<FileSum> {
    let bytes = HEXLOWER.decode(name.as_bytes()).ok()?;
    let sha256 = <[u8; 32]>::try_from(bytes.as_slice()).ok().map(FileSum::Sha256);
    sha256.or_else(|| <[u8; 20]>::try_from(bytes.as_slice()).ok().map(FileSum::Git))
}

fn file_name(sum: &FileSum) -> String {
    match sum {
        FileSum::Sha256(bytes) => HEXLOWER.encode(bytes),
        FileSum::Git(bytes) => HEXLOWER.encode(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_get_on_is_not_waited_for() {
        let bytes = 100 << 20;
        let later = |growth: &mut Growth| growth.since -= STUCK;
        let mut growth = Growth::new(Some(0));
        assert!(growth.heard(Some(0), bytes));
        later(&mut growth);
        assert!(growth.heard(Some(GROWS), bytes), "it grew");
        later(&mut growth);
        assert!(!growth.heard(Some(GROWS + 1), bytes), "one byte is nothing");
        assert!(growth.heard(Some(3 * GROWS), bytes));
        // Once fetched it is read over, from the start.
        later(&mut growth);
        assert!(growth.heard(Some(0), bytes));
        later(&mut growth);
        assert!(!growth.heard(Some(bytes + GROWS), bytes), "more than the file has");
        // Who begins anew for ever, or wants it and does nothing, is left.
        let waited = (0..100).filter(|turn| {
            later(&mut growth);
            growth.heard((turn % 2 == 0).then_some(1), bytes)
        });
        assert!(waited.count() < 10);
    }

    #[test]
    fn the_hubs_names_are_read_and_written() {
        for name in ["0a".repeat(20), "ff".repeat(32)] {
            assert_eq!(file_name(&file_sum(&name).unwrap()), name);
        }
        for name in ["", "0A", &"0a".repeat(21), &"zz".repeat(20), &"AB".repeat(32)] {
            assert_eq!(file_sum(name), None, "{name}");
        }
    }
}

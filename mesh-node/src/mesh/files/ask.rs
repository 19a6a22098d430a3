//! The asking side of `mesh-llm/files/1`: connections to members, and what each of them says of a file; must not know what
//! is made of the answers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use iroh::endpoint::{Connection, VarInt};
use mesh_proto::{
    codec::Ext,
    files::{FileState, FilesAsk, FilesReply},
    identity::{Contact, MemberRole, NodeId},
};
use tokio::time::timeout;

use super::wants::Key;
use crate::{
    mesh::{Net, View, alpn},
    tunnel::io,
};

/// Members that are asked about a file, those with a connection first. Cost: a question of some 100 bytes each, once or twice
/// a second and file while one of them is waited for. In a larger mesh the hub may be asked more than once. (guess)
const MOST: usize = 64;
/// How long an answer may take, once connected. Unit: seconds; default 3, a guess: a few milliseconds of reading small files
/// on a busy machine.
const PATIENCE: Duration = Duration::from_secs(3);
/// Who did not answer so often in a row is left alone for a while.
const MUTE_AFTER: u32 = 3;
const MUTE_FOR: Duration = Duration::from_secs(60);

/// What a member says.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) contact: Contact,
    /// `None`: nothing.
    pub(super) state: Option<FileState>,
}

/// With whom, and by which protocol.
type Line = (NodeId, &'static [u8]);

/// Open connections to members, by protocol. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    net: Net,
    open: Arc<Mutex<BTreeMap<Line, Connection>>>,
    silent: Arc<Mutex<BTreeMap<NodeId, (u32, Instant)>>>,
}

impl Lines {
    pub(super) fn new(net: Net) -> Self {
        Self { net, open: Arc::default(), silent: Arc::default() }
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<Line, Connection>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn silent(&self) -> MutexGuard<'_, BTreeMap<NodeId, (u32, Instant)>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that is open, or a new one.
    pub(super) async fn connection(&self, contact: &Contact, alpn: &'static [u8]) -> Option<Connection> {
        let key = (contact.node, alpn);
        let kept = self.open().get(&key).filter(|kept| kept.close_reason().is_none()).cloned();
        if kept.is_some() {
            return kept;
        }
        let fresh = self.net.dial(contact, alpn).await.ok()?;
        let mut open = self.open();
        open.retain(|_, kept| kept.close_reason().is_none());
        open.insert(key, fresh.clone());
        Some(fresh)
    }

    /// Closes all connections. Who still uses one dials again.
    pub(super) fn hang_up(&self) {
        for (_, connection) in std::mem::take(&mut *self.open()) {
            connection.close(VarInt::from_u32(0), b"done");
        }
    }

    /// Asks all members that may have a file.
    pub(super) async fn poll(&self, view: &View, key: &Key, shares: bool) -> Vec<Said> {
        let (repo, file) = key;
        let ask = FilesAsk { repo: repo.clone(), files: vec![*file], wants: shares, ext: Ext::default() };
        let asked = self.members(view).into_iter().map(|contact| {
            let ask = &ask;
            async move {
                let reply = timeout(PATIENCE, self.ask(&contact, ask)).await.unwrap_or_default();
                self.heard(contact.node, reply.is_some());
                // Whoever answers another question has said nothing about this one.
                let state = reply.filter(|reply| reply.files.len() == 1).and_then(|reply| reply.files.first().copied());
                Said { contact, state }
            }
        });
        join_all(asked).await
    }

    async fn ask(&self, contact: &Contact, ask: &FilesAsk) -> Option<FilesReply> {
        let connection = self.connection(contact, alpn::FILES).await?;
        let (mut send, mut recv) = connection.open_bi().await.ok()?;
        io::write(&mut send, ask).await.ok()?;
        send.finish().ok()?;
        io::read::<FilesReply>(&mut recv).await.ok()?
    }

    fn heard(&self, node: NodeId, answered: bool) {
        let mut silent = self.silent();
        if answered {
            silent.remove(&node);
        } else {
            let (times, since) = silent.entry(node).or_insert((0, Instant::now()));
            *times = times.saturating_add(1);
            *since = Instant::now();
        }
    }

    fn members(&self, view: &View) -> Vec<Contact> {
        let mut silent = self.silent();
        silent.retain(|_, (_, since)| since.elapsed() < MUTE_FOR);
        let mute = |node: &NodeId| silent.get(node).is_some_and(|(times, _)| *times >= MUTE_AFTER);
        let speaks = |record: &mesh_proto::record::Record| {
            let files = record.build.protocols.iter().any(|name| name.as_bytes() == alpn::FILES);
            files && record.chain.member.claim().is_ok_and(|cert| cert.role == MemberRole::Serve)
        };
        let peers = view.peers.iter().filter(|(node, peer)| peer.may_be_asked() && speaks(&peer.record) && !mute(node));
        let mut found: Vec<(bool, Contact)> =
            peers.map(|(_, peer)| (!peer.linked, peer.record.contact.clone())).collect();
        found.sort_by_key(|(far, _)| *far);
        found.truncate(MOST);
        found.into_iter().map(|(_, contact)| contact).collect()
    }
}

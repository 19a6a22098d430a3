//! The fast path of records: iroh-gossip, with its four silent traps closed; must not know what it carries.
//!
//! Anti-entropy is the truth, so anything may be lost here; what must not happen is that it stays lost. Of iroh-gossip
//! 0.101 (measured; none of these raises an error):
//!
//! - **(a)** a message of its maximum size or more is taken and then mutes this node towards that neighbour for good: the
//!   one place that broadcasts checks ([`MARGIN`]);
//! - **(b)** a peer whose first dial failed is never dialled again, **(c)** halves of a partition never merge by
//!   themselves, and **(d)** a node restarted with its key within the idle time hears and is not heard: [`Fast::replug`]
//!   dials the peer here, hands gossip the connection, and joins anew. It is pulled from both sides whenever a link
//!   comes up or a node comes back in a later life, and now and then by whoever has no neighbour.
//!
//! `gossip_tests.rs` holds each trap open and closed, so that a release without it shows.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt;
use iroh::{EndpointId, endpoint::WeakConnectionHandle};
use iroh_gossip::{
    TopicId,
    api::{Event, GossipReceiver, GossipSender},
    net::Gossip,
};
use mesh_proto::{
    codec::Wire,
    directory::Announce,
    identity::{Contact, MeshId, NodeId},
};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use super::{
    alpn,
    endpoint::{Net, endpoint_id, node_id},
    mail::Mail,
};

/// Gossip's limit for a message with its header; the same on all nodes.
pub const MAX_MESSAGE: usize = 16 * 1024;
/// What a message must stay below the limit by: gossip's header takes some 39 bytes of it.
pub const MARGIN: usize = 64;
/// Announcements that wait to be sent; more are dropped, anti-entropy brings them. (guess)
const MAX_WAITING: usize = 32;
/// Dials of one [`Fast::replug`], and the time between them. With QUIC's idle time of 4 s, what is dead is forgotten before
/// the last.
const TRIES: u32 = 4;
const TRY_AGAIN: Duration = Duration::from_secs(2);
/// Until a connection that was closed here is closed there too, and gossip knows. Unit: time; 300 ms, a guess at twice a
/// long round trip. Less: the peer may see the new connection first, and forgets nothing.
const CLOSED: Duration = Duration::from_millis(300);

const _: () = assert!(Announce::LIMIT + MARGIN <= MAX_MESSAGE);

/// The gossip of one mesh. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Fast {
    net: Net,
    gossip: Gossip,
    neighbours: Arc<Mutex<BTreeSet<NodeId>>>,
    /// The connections that were handed to gossip here.
    plugged: Arc<Mutex<BTreeMap<NodeId, WeakConnectionHandle>>>,
    sender: watch::Receiver<Option<GossipSender>>,
    waiting: mpsc::Sender<Bytes>,
}

impl Fast {
    /// Makes gossip for an endpoint; [`Fast::gossip`] goes into the protocol router.
    pub(crate) fn spawn(net: Net, mesh: MeshId, mail: mpsc::Sender<Mail>) -> Self {
        let gossip = Gossip::builder().max_message_size(MAX_MESSAGE).spawn(net.endpoint.clone());
        let (told, sender) = watch::channel(None);
        let (waiting, queue) = mpsc::channel(MAX_WAITING);
        let fast = Self { net, gossip, neighbours: Arc::default(), plugged: Arc::default(), sender, waiting };
        tokio::spawn(fast.clone().listen(TopicId::from_bytes(mesh.0), told, mail));
        tokio::spawn(send(fast.sender.clone(), queue));
        fast
    }

    pub(crate) fn gossip(&self) -> Gossip {
        self.gossip.clone()
    }

    /// Direct neighbours in the overlay.
    pub(crate) fn neighbours(&self) -> BTreeSet<NodeId> {
        self.neighbours.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends to all, as far as it goes. Never waits.
    pub(crate) fn broadcast(&self, bytes: Vec<u8>) {
        if bytes.len() + MARGIN > MAX_MESSAGE {
            // Trap (a).
            tracing::error!(bytes = bytes.len(), "too long for gossip; anti-entropy will bring it");
            return;
        }
        // A full queue means that gossip stands still; anti-entropy goes round it.
        let _ = self.waiting.try_send(bytes.into());
    }

    /// Makes sure that gossip and this peer hear each other: traps (b), (c) and (d). Tries a few times: who is back in a
    /// later life may be out of reach until its former connections are forgotten.
    pub(crate) async fn replug(&self, contact: &Contact) {
        let Some(id) = endpoint_id(&contact.node) else { return };
        for _ in 0..TRIES {
            match self.net.dial(contact, alpn::GOSSIP).await {
                Ok(connection) => {
                    self.plugged().insert(contact.node, connection.weak_handle());
                    match self.gossip.handle_connection(connection).await {
                        Ok(()) => self.join(vec![id]).await,
                        Err(error) => tracing::debug!(%error, "gossip is closed"),
                    }
                    return;
                }
                Err(error) => {
                    tracing::debug!(node = %contact.node.short(), %error, "gossip's neighbour was not reached");
                    sleep(TRY_AGAIN).await;
                }
            }
        }
    }

    /// The same, for who has no neighbour at all: the peer may take this node for its neighbour since a former life, and
    /// answers no greeting then. It forgets that with the connection.
    pub(crate) async fn replug_afresh(&self, contact: &Contact) {
        let before = self.plugged().remove(&contact.node).and_then(|before| before.upgrade());
        if let Some(before) = before {
            before.close(0u32.into(), b"again");
            sleep(CLOSED).await;
        }
        self.replug(contact).await;
    }

    fn plugged(&self) -> MutexGuard<'_, BTreeMap<NodeId, WeakConnectionHandle>> {
        self.plugged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn join(&self, peers: Vec<EndpointId>) {
        let sender = self.sender.borrow().clone();
        if let Some(sender) = sender
            && let Err(error) = sender.join_peers(peers).await
        {
            tracing::debug!(%error, "gossip does not join");
        }
    }

    /// Subscribes for as long as the process lives, anew whenever gossip drops the subscription.
    async fn listen(self, topic: TopicId, told: watch::Sender<Option<GossipSender>>, mail: mpsc::Sender<Mail>) {
        while !mail.is_closed() {
            let known = self.neighbours().iter().filter_map(endpoint_id).collect();
            let subscribed = match self.gossip.subscribe(topic, known).await {
                Ok(subscribed) => subscribed,
                Err(error) => {
                    tracing::debug!(%error, "gossip is closed");
                    return;
                }
            };
            let (sender, receiver) = subscribed.split();
            told.send_replace(Some(sender));
            if self.receive(receiver, &mail).await.is_none() {
                return;
            }
        }
    }

    /// `None`: nobody is there to be told.
    async fn receive(&self, mut receiver: GossipReceiver, mail: &mpsc::Sender<Mail>) -> Option<()> {
        while let Some(Ok(event)) = receiver.next().await {
            match event {
                Event::Received(message) => {
                    let from = node_id(message.delivered_from);
                    mail.send(Mail::Gossip { from, bytes: message.content.to_vec() }).await.ok()?;
                }
                Event::NeighborUp(id) => {
                    let node = node_id(id);
                    self.neighbours.lock().unwrap_or_else(PoisonError::into_inner).insert(node);
                    mail.send(Mail::Neighbour(node)).await.ok()?;
                }
                Event::NeighborDown(id) => {
                    self.neighbours.lock().unwrap_or_else(PoisonError::into_inner).remove(&node_id(id));
                }
                // What was missed comes by anti-entropy; the subscription itself must be renewed.
                Event::Lagged => break,
            }
        }
        Some(())
    }
}

async fn send(sender: watch::Receiver<Option<GossipSender>>, mut waiting: mpsc::Receiver<Bytes>) {
    while let Some(bytes) = waiting.recv().await {
        let Some(sender) = sender.borrow().clone() else { continue };
        if let Err(error) = sender.broadcast(bytes).await {
            tracing::debug!(%error, "gossip does not send");
        }
    }
}

#[cfg(test)]
#[path = "gossip_tests.rs"]
mod tests;

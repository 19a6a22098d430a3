//! The four silent traps of iroh-gossip 0.101: each open where gossip is used as it comes, and closed by [`Fast`]. A test
//! whose first half fails after an upgrade says that the trap is gone, and that its lever can go too.

use std::{
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    time::Duration,
};

use iroh::{
    Endpoint, EndpointAddr, RelayMode, SecretKey, TransportAddr,
    address_lookup::memory::MemoryLookup,
    endpoint::{AfterHandshakeOutcome, Connection, EndpointHooks, PortmapperConfig, WeakConnectionHandle, presets},
    protocol::Router,
};
use mesh_proto::{
    codec::Ext,
    identity::{Admission, MemberRole, MembershipCert, NodeKey},
    time::{Millis, UnixMillis},
};
use tempfile::TempDir;
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

use super::*;
use crate::{
    cli::{MeshOptions, Relay, Share, Way},
    mesh::gate::{Gate, Members},
};

/// What is to happen happens within milliseconds; a busy machine gets so long.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a trap is watched to stay shut. The same steps take milliseconds where there is no trap.
const LOOK: Duration = Duration::from_secs(3);
const ANY: &str = "127.0.0.1:0";
const MESH: MeshId = MeshId([3; 32]);

async fn soon(what: &str, so: impl Fn() -> bool) {
    let waited = timeout(PATIENCE, async {
        while !so() {
            sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "never: {what}");
}

fn key(seed: u8) -> NodeKey {
    NodeKey::from_seed([seed; 32])
}

/// What a node heard, and who its neighbours are.
#[derive(Clone, Debug, Default)]
struct Ears {
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
    neighbours: Arc<Mutex<BTreeSet<NodeId>>>,
}

impl Ears {
    fn heard(&self, words: &str) -> bool {
        self.heard.lock().unwrap().iter().any(|heard| heard.starts_with(words.as_bytes()))
    }

    fn has(&self, node: &NodeId) -> bool {
        self.neighbours.lock().unwrap().contains(node)
    }
}

/// Closes a bare node's connections and lets none in, while it is shut.
#[derive(Clone, Debug, Default)]
struct Wall {
    shut: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<WeakConnectionHandle>>>,
}

impl EndpointHooks for Wall {
    async fn after_handshake<'a>(&'a self, connection: &'a Connection) -> AfterHandshakeOutcome {
        if self.shut.load(SeqCst) {
            return AfterHandshakeOutcome::Reject { error_code: 1u32.into(), reason: b"cut".to_vec() };
        }
        self.open.lock().unwrap().push(connection.weak_handle());
        AfterHandshakeOutcome::Accept
    }
}

impl Wall {
    fn shut(&self) {
        self.shut.store(true, SeqCst);
        for connection in self.open.lock().unwrap().drain(..).filter_map(|weak| weak.upgrade()) {
            connection.close(1u32.into(), b"cut");
        }
    }

    fn open(&self) {
        self.shut.store(false, SeqCst);
    }
}

/// Gossip as it comes.
struct Bare {
    endpoint: Endpoint,
    lookup: MemoryLookup,
    sender: GossipSender,
    ears: Ears,
    wall: Wall,
    _gossip: Gossip,
    _protocols: Router,
}

impl Bare {
    /// A node that knows some others by address, and joins some by id.
    async fn new(seed: u8, known: Vec<EndpointAddr>, join: Vec<EndpointId>) -> Self {
        let (lookup, wall, ears) = (MemoryLookup::new(), Wall::default(), Ears::default());
        known.into_iter().for_each(|addr| lookup.add_endpoint_info(addr));
        let endpoint = Endpoint::builder(presets::Minimal)
            .secret_key(SecretKey::from_bytes(&key(seed).seed()))
            .address_lookup(lookup.clone())
            .relay_mode(RelayMode::Disabled)
            .portmapper_config(PortmapperConfig::Disabled)
            .hooks(wall.clone())
            .clear_ip_transports()
            .bind_addr(ANY)
            .unwrap()
            .bind()
            .await
            .unwrap();
        let gossip = Gossip::builder().max_message_size(MAX_MESSAGE).spawn(endpoint.clone());
        let protocols = Router::builder(endpoint.clone()).accept(alpn::GOSSIP, gossip.clone()).spawn();
        let (sender, mut receiver) = gossip.subscribe(TopicId::from_bytes(MESH.0), join).await.unwrap().split();
        let told = ears.clone();
        tokio::spawn(async move {
            while let Some(Ok(event)) = receiver.next().await {
                match event {
                    Event::Received(message) => told.heard.lock().unwrap().push(message.content.to_vec()),
                    Event::NeighborUp(id) => drop(told.neighbours.lock().unwrap().insert(node_id(id))),
                    Event::NeighborDown(id) => drop(told.neighbours.lock().unwrap().remove(&node_id(id))),
                    Event::Lagged => {}
                }
            }
        });
        Self { endpoint, lookup, sender, ears, wall, _gossip: gossip, _protocols: protocols }
    }

    /// Two of them that hear each other.
    async fn pair() -> (Self, Self) {
        let one = Self::new(1, vec![], vec![]).await;
        let two = Self::new(2, vec![one.addr()], vec![one.endpoint.id()]).await;
        soon("they hear each other", || one.ears.has(&two.id()) && two.ears.has(&one.id())).await;
        (one, two)
    }

    fn id(&self) -> NodeId {
        node_id(self.endpoint.id())
    }

    fn addr(&self) -> EndpointAddr {
        let at = self.endpoint.bound_sockets().into_iter().map(TransportAddr::Ip);
        EndpointAddr::from_parts(self.endpoint.id(), at)
    }

    async fn say(&self, words: &str) {
        self.sender.broadcast(Bytes::copy_from_slice(words.as_bytes())).await.unwrap();
    }
}

/// Gossip as this node uses it.
struct Quick {
    fast: Fast,
    members: Members,
    ears: Ears,
    _state: TempDir,
    _protocols: Router,
}

impl Quick {
    async fn new(seed: u8) -> Self {
        let state = tempfile::tempdir().unwrap();
        let options = MeshOptions {
            way: Way::Found { name: String::new() },
            role: MemberRole::Serve,
            ticket_file: None,
            bind: vec![ANY.parse().unwrap()],
            relay: Relay::None,
            mdns: false,
            state: state.path().to_owned(),
            share: Share::default(),
        };
        let members = Members::default();
        for other in 1..=2 {
            admit(&members, other);
        }
        let net = Net::bind(&key(seed), &options, (0, 0), Gate::new(members.clone())).await.unwrap();
        let (mail, mut letters) = mpsc::channel(64);
        let fast = Fast::spawn(net.clone(), MESH, mail);
        let ears = Ears { neighbours: fast.neighbours.clone(), ..Ears::default() };
        let protocols = Router::builder(net.endpoint.clone()).accept(alpn::GOSSIP, fast.gossip()).spawn();
        let told = ears.clone();
        tokio::spawn(async move {
            while let Some(letter) = letters.recv().await {
                if let Mail::Gossip { bytes, .. } = letter {
                    told.heard.lock().unwrap().push(bytes);
                }
            }
        });
        let quick = Self { fast, members, ears, _state: state, _protocols: protocols };
        soon("it has subscribed", || quick.fast.sender.borrow().is_some()).await;
        quick
    }

    async fn pair() -> (Self, Self) {
        let (one, two) = (Self::new(1).await, Self::new(2).await);
        one.fast.replug(&two.contact()).await;
        one.hears(&two).await;
        two.hears(&one).await;
        (one, two)
    }

    fn contact(&self) -> Contact {
        Contact { node: self.fast.net.id(), direct: self.fast.net.endpoint.bound_sockets(), relay: None }
    }

    /// Another's words come through, said again until they do.
    async fn hears(&self, other: &Self) {
        let words = format!("from {} at {:?}", other.fast.net.id(), std::time::Instant::now());
        let heard = async {
            for number in 0.. {
                other.fast.broadcast(format!("{words} {number}").into_bytes());
                sleep(Duration::from_millis(50)).await;
                if self.ears.heard(&words) {
                    return;
                }
            }
        };
        assert!(timeout(PATIENCE, heard).await.is_ok(), "nothing is heard");
    }
}

/// Lets the node of this seed through the gate. Its certificate was checked, as far as the gate knows.
fn admit(members: &Members, seed: u8) {
    let desk = Admission::found(key(9), UnixMillis(1)).unwrap();
    let cert = MembershipCert {
        mesh: MESH,
        node: key(seed).id(),
        role: MemberRole::Serve,
        admits: false,
        serial: [0; 16],
        not_before: UnixMillis(0),
        not_after: UnixMillis(u64::MAX).before(Millis::secs(3600)),
        issuer: key(9).id(),
        ext: Ext::default(),
    };
    members.admit(&cert, desk.chain());
}

/// A node on a thread of its own, until it is told to end: then nothing of it runs any more and nothing of it is dropped, so
/// that others hear as little as from a process that was killed.
async fn apart<T: Send + Sync + 'static>(
    node: impl Future<Output = T> + Send + 'static,
) -> (Arc<T>, oneshot::Sender<()>) {
    let (tell, told) = oneshot::channel();
    let (kill, killed) = oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let node = runtime.block_on(async {
            let node = Arc::new(node.await);
            assert!(tell.send(node.clone()).is_ok());
            let _ = killed.await;
            node
        });
        std::mem::forget((runtime, node));
    });
    (told.await.unwrap(), kill)
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_a_one_message_too_long_mutes_a_node_and_here_it_is_not_sent() {
    let (one, two) = Bare::pair().await;
    one.say("before").await;
    soon("a word", || two.ears.heard("before")).await;
    one.sender.broadcast(vec![7; MAX_MESSAGE].into()).await.expect("iroh-gossip takes it without a word");
    for number in 0..10 {
        one.say(&format!("after {number}")).await;
        sleep(LOOK / 10).await;
    }
    assert!(!two.ears.heard("after"), "iroh-gossip survives messages that are too long: the guard can go");

    let (one, two) = Quick::pair().await;
    for bytes in [MAX_MESSAGE - MARGIN + 1, MAX_MESSAGE, 10 * MAX_MESSAGE] {
        one.fast.broadcast(vec![7; bytes]);
    }
    two.hears(&one).await;
    let longest = [&b"longest"[..], &[7; MAX_MESSAGE - MARGIN - 7]].concat();
    one.fast.broadcast(longest.clone());
    soon("the longest that is sent", || two.ears.heard("longest")).await;
    two.hears(&one).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_b_a_peer_whose_first_dial_failed_is_never_dialled_again_and_here_it_is() {
    let two = Bare::new(2, vec![], vec![]).await;
    // Nobody has told the first where the second is.
    let one = Bare::new(1, vec![], vec![two.endpoint.id()]).await;
    sleep(Duration::from_millis(500)).await;
    one.lookup.add_endpoint_info(two.addr());
    for _ in 0..10 {
        one.sender.join_peers(vec![two.endpoint.id()]).await.unwrap();
        sleep(LOOK / 10).await;
    }
    assert!(!one.ears.has(&two.id()), "iroh-gossip dials again: `replug` can be `join_peers`");
    // It is not the network's fault.
    let dialled = timeout(PATIENCE, one.endpoint.connect(two.endpoint.id(), alpn::GOSSIP)).await.unwrap();
    assert!(dialled.is_ok());

    let (one, two) = (Quick::new(1).await, Quick::new(2).await);
    let id = endpoint_id(&key(2).id()).unwrap();
    one.fast.join(vec![id]).await;
    sleep(Duration::from_millis(500)).await;
    assert!(!one.ears.has(&key(2).id()));
    one.fast.replug(&two.contact()).await;
    two.hears(&one).await;
    one.hears(&two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_c_halves_of_a_partition_do_not_merge_and_here_they_do() {
    let (one, two) = Bare::pair().await;
    [&one, &two].iter().for_each(|node| node.wall.shut());
    soon("they are apart", || !one.ears.has(&two.id()) && !two.ears.has(&one.id())).await;
    [&one, &two].iter().for_each(|node| node.wall.open());
    for number in 0..10 {
        one.say(&format!("after {number}")).await;
        sleep(LOOK / 10).await;
    }
    let merged = two.ears.heard("after") || one.ears.has(&two.id());
    assert!(!merged, "iroh-gossip merges by itself: nobody need `replug` when a link comes up");

    let (one, two) = Quick::pair().await;
    for (node, other) in [(&one, 2), (&two, 1)] {
        node.members.forget(&key(other).id());
        node.members.hang_up(&key(other).id(), 1, "cut");
    }
    soon("they are apart", || !one.ears.has(&key(2).id()) && !two.ears.has(&key(1).id())).await;
    // What is tried meanwhile fails.
    assert!(timeout(LOOK / 10, one.fast.replug(&two.contact())).await.is_err(), "it is tried again");
    assert!(timeout(LOOK / 10, two.fast.replug(&one.contact())).await.is_err(), "it is tried again");
    admit(&one.members, 2);
    admit(&two.members, 1);
    one.fast.replug(&two.contact()).await;
    two.hears(&one).await;
    one.hears(&two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_d_a_node_restarted_with_its_key_is_not_heard_and_here_the_survivor_sees_to_it() {
    // The survivor is the one that had joined: it waits for an answer to its own greeting for ever, and so gives none.
    let (two, kill) = apart(Bare::new(2, vec![], vec![])).await;
    let one = Bare::new(1, vec![two.addr()], vec![two.endpoint.id()]).await;
    soon("they hear each other", || one.ears.has(&two.id()) && two.ears.has(&one.id())).await;
    kill.send(()).unwrap();
    // On its old port it would answer for its former connection, with a reset that tells the survivor.
    let again = Bare::new(2, vec![one.addr()], vec![one.endpoint.id()]).await;
    for number in 0..10 {
        again.say(&format!("again {number}")).await;
        sleep(LOOK / 10).await;
    }
    assert!(!one.ears.heard("again"), "iroh-gossip hears who is back: nobody need `replug` on a later life");

    let one = Quick::new(1).await;
    let (two, kill) = apart(Quick::new(2)).await;
    one.fast.replug(&two.contact()).await;
    one.hears(&two).await;
    kill.send(()).unwrap();
    let again = Quick::new(2).await;
    again.fast.replug(&one.contact()).await;
    // What the mesh does when it is greeted by a later life, and when that life's record comes.
    one.members.hang_up(&key(2).id(), 0, "restarted");
    one.fast.replug(&again.contact()).await;
    // And with its chores: either lever may have come to nothing.
    let chores = async {
        loop {
            sleep(LOOK).await;
            for (node, other) in [(&one, &again), (&again, &one)] {
                if node.fast.neighbours().is_empty() {
                    node.fast.replug_afresh(&other.contact()).await;
                }
            }
        }
    };
    let heard = async {
        one.hears(&again).await;
        again.hears(&one).await;
    };
    tokio::select! {
        () = heard => {}
        () = chores => {}
    }
}

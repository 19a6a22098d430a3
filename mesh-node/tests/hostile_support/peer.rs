//! A peer that speaks the wire by hand: as a stranger, as a newer release, or as a member that lies.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use iroh::{
    Endpoint, EndpointAddr, EndpointId, RelayMode, SecretKey, TransportAddr,
    endpoint::{Connection, ConnectionError, PortmapperConfig, RecvStream, SendStream, presets},
};
use mesh_proto::{
    codec::{self, Ext, Wire},
    directory::{Aged, Range, RangeDigest, SyncFrame},
    identity::{
        AdmitRefusal, AdmitReply, AdmitRequest, CertChain, Contact, MeshId, NodeId, NodeKey, Session, Signed, Ticket,
    },
    infer::{Ask, Reply},
    record::{Build, Memory, Record, ServedModel, Version},
    suspicion::ProbeFrame,
    time::{Millis, UnixMillis},
};
use tokio::time::{sleep, timeout};

use super::PATIENCE;

pub const ADMIT: &[u8] = b"mesh-llm/admit/1";
pub const MESH: &[u8] = b"mesh-llm/mesh/1";
pub const INFER: &[u8] = mesh_proto::infer::ALPN;
pub const GOSSIP: &[u8] = iroh_gossip::ALPN;
pub const FILES: &[u8] = mesh_proto::files::ALPN;
pub const BLOBS: &[u8] = iroh_blobs::ALPN;

/// Kinds of frames between members.
pub const SYNC: u8 = 0;
pub const PROBE: u8 = 1;

pub fn unix() -> UnixMillis {
    UnixMillis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64)
}

/// An endpoint with a key, and nothing behind it.
#[derive(Clone)]
pub struct Peer {
    pub key: NodeKey,
    pub endpoint: Endpoint,
}

/// The code that the other end closed a connection with.
pub fn code(error: &ConnectionError) -> Option<u64> {
    match error {
        ConnectionError::ApplicationClosed(close) => Some(close.error_code.into_inner()),
        _ => None,
    }
}

/// Waits for the other end to close with this code.
pub async fn closed(connection: &Connection, with: u64) {
    match timeout(PATIENCE, connection.closed()).await.expect("it is closed in time") {
        // The packet that says so can be lost. What is sent then is answered with a reset: nobody knows the connection.
        ConnectionError::Reset => {}
        error => assert_eq!(code(&error), Some(with), "{error:?}"),
    }
}

impl Peer {
    pub async fn new() -> Self {
        let key = NodeKey::from_seed(rand::random());
        let endpoint = Endpoint::builder(presets::Minimal)
            .secret_key(SecretKey::from_bytes(&key.seed()))
            .relay_mode(RelayMode::Disabled)
            .portmapper_config(PortmapperConfig::Disabled)
            .alpns([ADMIT, MESH, INFER, GOSSIP, FILES, BLOBS].map(<[u8]>::to_vec).to_vec())
            .clear_ip_transports()
            .bind_addr("127.0.0.1:0")
            .unwrap()
            .bind()
            .await
            .unwrap();
        Self { key, endpoint }
    }

    pub fn id(&self) -> NodeId {
        self.key.id()
    }

    pub fn contact(&self) -> Contact {
        let direct = self.endpoint.bound_sockets();
        Contact { node: self.id(), direct, relay: None }
    }

    pub async fn dial(&self, to: &Contact, alpn: &[u8]) -> Result<Connection, String> {
        let addresses = to.direct.iter().copied().map(TransportAddr::Ip);
        let to = EndpointAddr::from_parts(EndpointId::from_bytes(&to.node.0).unwrap(), addresses);
        let dialled = timeout(PATIENCE, self.endpoint.connect(to, alpn)).await.expect("a handshake in time");
        dialled.map_err(|error| format!("{error:?}"))
    }

    /// One visit at the admission desk: what is sent, and the reply, if there was one before it was closed.
    pub async fn visit(&self, to: &Contact, make: impl FnOnce(&Session) -> Vec<u8>) -> Option<AdmitReply> {
        let connection = self.dial(to, ADMIT).await.expect("the desk is open to strangers");
        let mut exporter = [0; 32];
        connection.export_keying_material(&mut exporter, b"mesh-llm admit v1", b"").unwrap();
        let request = make(&Session { joiner: self.id(), exporter });
        let exchange = async {
            let (mut send, mut recv) = connection.open_bi().await.ok()?;
            // Who is refused for its length does not get to its end.
            let _ = send.write_all(&request).await;
            let _ = send.finish();
            recv.read_to_end(AdmitReply::LIMIT).await.ok()
        };
        let bytes = timeout(PATIENCE, exchange).await.expect("a reply in time");
        let reply = match bytes.filter(|bytes| !bytes.is_empty()) {
            Some(bytes) => Some(codec::decode(&bytes).unwrap()),
            None => {
                closed(&connection, 0).await;
                None
            }
        };
        connection.close(0u32.into(), b"done");
        reply
    }

    /// Why the desk refuses such a request.
    pub async fn refused(&self, to: &Contact, make: impl FnOnce(&Session) -> Vec<u8>) -> AdmitRefusal {
        match self.visit(to, make).await {
            Some(AdmitReply::Refused { reason, .. }) => reason,
            other => panic!("not refused: {other:?}"),
        }
    }

    pub async fn join(&self, ticket: &Ticket) -> AdmitReply {
        self.visit(&ticket.contacts[0], |session| joining(ticket, session)).await.expect("a reply")
    }
}

/// The honest request with a ticket.
pub fn joining(ticket: &Ticket, session: &Session) -> Vec<u8> {
    codec::encode(&AdmitRequest::join(ticket, session)).unwrap()
}

/// What a lying host does with a request, in this order; then it ends the stream.
#[derive(Clone)]
pub enum Act {
    Say(Reply),
    /// These bytes as a frame.
    Frame(Vec<u8>),
    /// These bytes, without a length before them.
    Raw(Vec<u8>),
    Wait(Duration),
    /// Nothing more, ever.
    Hang,
    /// Breaks the stream off.
    Reset,
}

pub type Answer = Arc<dyn Fn(&Ask) -> Vec<Act> + Send + Sync>;

/// What a member does with a connection about files.
pub type Gives = Arc<dyn Fn(Connection) + Send + Sync>;

/// An admitted member, linked with the ticket's node, whose every word is the test's.
pub struct Member {
    pub peer: Peer,
    pub chain: CertChain,
    pub at: Contact,
    pub heard: Arc<Heard>,
    /// What it says that it speaks.
    pub protocols: Vec<String>,
    incarnation: u64,
    sequence: AtomicU64,
    /// Dropped connections close.
    kept: Mutex<Vec<Connection>>,
}

/// What came to a member.
#[derive(Default)]
pub struct Heard {
    /// Requests.
    pub asks: AtomicU32,
    /// Bytes of anti-entropy.
    pub bytes: AtomicU64,
    /// The last frames of it.
    frames: Mutex<VecDeque<SyncFrame>>,
}

impl Heard {
    pub fn frames(&self) -> Vec<SyncFrame> {
        self.frames.lock().unwrap().iter().cloned().collect()
    }
}

impl Member {
    /// Lets itself in with a ticket, and answers nobody.
    pub async fn new(ticket: &Ticket) -> Self {
        Self::answering(ticket, Arc::new(|_: &Ask| vec![Act::Hang])).await
    }

    pub async fn answering(ticket: &Ticket, answer: Answer) -> Self {
        Self::with(ticket, answer, None).await
    }

    /// Lets itself in, and gives files, as far as the mesh knows.
    pub async fn giving(ticket: &Ticket, gives: Gives) -> Self {
        Self::with(ticket, Arc::new(|_: &Ask| vec![Act::Hang]), Some(gives)).await
    }

    async fn with(ticket: &Ticket, answer: Answer, gives: Option<Gives>) -> Self {
        let peer = Peer::new().await;
        let AdmitReply::Admitted { chain, .. } = peer.join(ticket).await else { panic!("not admitted") };
        let at = ticket.contacts[0].clone();
        let heard = Arc::<Heard>::default();
        let spoken: &[&[u8]] = if gives.is_some() { &[FILES, BLOBS] } else { &[] };
        let protocols = spoken.iter().map(|name| String::from_utf8(name.to_vec()).unwrap()).collect();
        tokio::spawn(accept(peer.endpoint.clone(), chain.clone(), answer, gives, heard.clone()));
        let (incarnation, sequence, kept) = (unix().0, AtomicU64::new(0), Mutex::default());
        Self { peer, chain, at, heard, protocols, incarnation, sequence, kept }
    }

    pub fn id(&self) -> NodeId {
        self.peer.id()
    }

    pub async fn hello(&self, to: &Contact) -> AdmitReply {
        let hello = AdmitRequest::Hello { chain: self.chain.clone(), ext: Ext::default().with(60_001, vec![1]) };
        self.peer.visit(to, |_| codec::encode(&hello).unwrap()).await.expect("a reply")
    }

    /// Connects for control frames, and answers pings there.
    pub async fn link(&self) -> Connection {
        self.link_to(&self.at).await
    }

    /// The same with a node that knows this member already, or was told hello.
    pub async fn link_to(&self, to: &Contact) -> Connection {
        let connection = self.peer.dial(to, MESH).await.expect("a link");
        tokio::spawn(read(connection.clone(), self.heard.clone()));
        self.kept.lock().unwrap().push(connection.clone());
        connection
    }

    /// Connects for requests.
    pub async fn asking(&self) -> Connection {
        let connection = self.peer.dial(&self.at, INFER).await.expect("a connection");
        self.kept.lock().unwrap().push(connection.clone());
        connection
    }

    /// The next record, with these models.
    pub fn record(&self, models: Vec<ServedModel>) -> Record {
        let now = unix();
        Record {
            mesh: MeshId::of(&self.chain.root),
            node: self.id(),
            version: Version { incarnation: self.incarnation, sequence: self.sequence.fetch_add(1, SeqCst) },
            issued_at: now,
            lifetime: Record::MAX_LIFETIME,
            chain: self.chain.clone(),
            build: Build { release: "9.9.9".into(), protocols: self.protocols.clone() },
            contact: self.peer.contact(),
            draining: false,
            memory: Memory::default(),
            models,
            demand: vec![],
            claims: vec![],
            prefixes: vec![],
            ext: Ext::default(),
        }
    }

    /// Signed by this member's own key, whoever it is about.
    pub fn sign(&self, record: &Record) -> Signed<Record> {
        Signed::sign(record, &self.peer.key).unwrap()
    }

    /// Tells a record.
    pub async fn tell(&self, connection: &Connection, record: &Record) {
        send(connection, SYNC, &records(vec![self.sign(record)])).await;
    }

    /// Somebody's record, as the mesh hands it to who asks.
    pub async fn overhear(&self, connection: &Connection, node: &NodeId) -> Signed<Record> {
        let overheard = async {
            loop {
                for frame in self.heard.frames() {
                    let SyncFrame::Records { records, .. } = frame else { continue };
                    if let Some(aged) = records.into_iter().find(|aged| aged.record.claim().unwrap().node == *node) {
                        return aged.record;
                    }
                }
                send(connection, SYNC, &lacking_all()).await;
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, overheard).await.expect("the record in time")
    }

    /// Serves these models, as far as the mesh knows.
    pub async fn publish(&self, models: Vec<ServedModel>) -> Connection {
        let connection = self.link().await;
        self.tell(&connection, &self.record(models)).await;
        connection
    }
}

/// Records on their way.
pub fn records(signed: Vec<Signed<Record>>) -> Vec<u8> {
    let records = signed.into_iter().map(|record| Aged { age: Millis(0), record }).collect();
    codec::encode(&SyncFrame::Records { records, more: false, ext: Ext::default() }).unwrap()
}

/// "I have nothing": whoever hears it sends all it has.
pub fn lacking_all() -> Vec<u8> {
    let ranges = vec![RangeDigest { range: Range::ALL, count: 0, sum: [0; 16] }];
    codec::encode(&SyncFrame::Digest { ranges, revocations: 0, more: false, ext: Ext::default() }).unwrap()
}

/// A control frame on a stream of its own. Says whether it went out.
pub async fn send(connection: &Connection, kind: u8, bytes: &[u8]) -> bool {
    let sent = async {
        let mut stream = connection.open_uni().await.ok()?;
        stream.write_all(&[kind]).await.ok()?;
        stream.write_all(bytes).await.ok()?;
        stream.finish().ok()
    };
    timeout(PATIENCE, sent).await.expect("a frame is taken in time").is_some()
}

/// Bytes behind their length.
pub fn framed(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_le_bytes()[..], bytes].concat()
}

/// Sends bytes as a request; the stream to read from.
pub async fn ask_raw(connection: &Connection, bytes: &[u8]) -> (SendStream, RecvStream) {
    let (mut send, recv) = timeout(PATIENCE, connection.open_bi()).await.expect("a stream in time").unwrap();
    // Who is refused early stops it.
    let _ = timeout(PATIENCE, send.write_all(bytes)).await.expect("it is taken in time");
    (send, recv)
}

pub async fn ask(connection: &Connection, ask: &Ask) -> RecvStream {
    let (mut send, recv) = ask_raw(connection, &framed(&codec::encode(ask).unwrap())).await;
    send.finish().unwrap();
    recv
}

/// The next reply; `Err`: how the stream ended.
pub async fn reply(stream: &mut RecvStream) -> Result<Reply, String> {
    let bytes = timeout(PATIENCE, frame(stream)).await.expect("a reply in time")?;
    codec::decode(&bytes).map_err(|error| error.to_string())
}

/// The reply that is no heartbeat.
pub async fn word(stream: &mut RecvStream) -> Result<Reply, String> {
    loop {
        match reply(stream).await {
            Ok(Reply::Beat { .. }) => {}
            other => return other,
        }
    }
}

/// The next frame's bytes.
pub async fn frame(stream: &mut RecvStream) -> Result<Vec<u8>, String> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await.map_err(|error| format!("{error:?}"))?;
    let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut bytes).await.map_err(|error| format!("{error:?}"))?;
    Ok(bytes)
}

async fn read(connection: Connection, heard: Arc<Heard>) {
    while let Ok(mut stream) = connection.accept_uni().await {
        let Ok(bytes) = stream.read_to_end(1 << 20).await else { continue };
        let Some((kind, bytes)) = bytes.split_first() else { continue };
        if *kind == SYNC {
            heard.bytes.fetch_add(bytes.len() as u64, SeqCst);
            let mut frames = heard.frames.lock().unwrap();
            frames.extend(codec::decode(bytes).ok());
            while frames.len() > 64 {
                frames.pop_front();
            }
        } else if let Ok(ProbeFrame::Ping(number)) = codec::decode(bytes) {
            send(&connection, PROBE, &codec::encode(&ProbeFrame::Pong(number)).unwrap()).await;
        }
    }
}

async fn accept(endpoint: Endpoint, chain: CertChain, answer: Answer, gives: Option<Gives>, heard: Arc<Heard>) {
    while let Some(incoming) = endpoint.accept().await {
        let Ok(accepting) = incoming.accept() else { continue };
        let (chain, answer, gives, heard) = (chain.clone(), answer.clone(), gives.clone(), heard.clone());
        tokio::spawn(async move {
            let Ok(connection) = accepting.await else { return };
            match connection.alpn() {
                ADMIT => welcome(&connection, chain).await,
                MESH => read(connection, heard).await,
                INFER => {
                    while let Ok((send, recv)) = connection.accept_bi().await {
                        heard.asks.fetch_add(1, SeqCst);
                        tokio::spawn(perform(send, recv, answer.clone()));
                    }
                }
                FILES | BLOBS => {
                    if let Some(gives) = gives {
                        gives(connection);
                    }
                }
                // Gossip's: it is not spoken here.
                _ => connection.close(0u32.into(), b"no gossip"),
            }
        });
    }
}

async fn welcome(connection: &Connection, chain: CertChain) {
    let Ok((mut send, mut recv)) = connection.accept_bi().await else { return };
    let _ = recv.read_to_end(AdmitRequest::LIMIT).await;
    let reply = AdmitReply::Welcome { chain, ext: Ext::default().with(60_001, vec![1]) };
    let _ = send.write_all(&codec::encode(&reply).unwrap()).await;
    let _ = send.finish();
    connection.closed().await;
}

/// Takes a request, and does what the test says.
async fn perform(mut send: SendStream, mut recv: RecvStream, answer: Answer) {
    let Ok(bytes) = frame(&mut recv).await else { return };
    let Ok(ask) = codec::decode::<Ask>(&bytes) else { return };
    for act in answer(&ask) {
        let bytes = match act {
            Act::Say(reply) => framed(&codec::encode(&reply).unwrap()),
            Act::Frame(bytes) => framed(&bytes),
            Act::Raw(bytes) => bytes,
            Act::Wait(time) => {
                sleep(time).await;
                continue;
            }
            Act::Hang => std::future::pending().await,
            Act::Reset => {
                let _ = send.reset(7u32.into());
                return;
            }
        };
        if send.write_all(&bytes).await.is_err() {
            return;
        }
    }
    let _ = send.finish();
    let _ = send.stopped().await;
}

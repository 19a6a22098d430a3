//! A mesh of real nodes in this process, and peers made of a bare endpoint that say what no honest node would.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

mod peer;

use std::{sync::Arc, time::Duration};

use catalog::hub::HubConfig;
use mesh_node::{
    cli::{MeshOptions, Relay, Share, Way},
    local::LocalEngines,
    manage::{MeshControl, TicketOrder},
    mesh::{FilesOptions, Joining, Mesh},
    router::Router,
    shelf::{ServingOptions, Shelf},
};
use mesh_proto::{
    Event, FinishReason, GenerateError, GenerateRequest, ModelId, Prompt, TokenId,
    identity::{Contact, MemberRole, NodeId, Ticket},
    record::ServedModel,
    routing::AttemptConfig,
    time::Millis,
};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

pub use peer::*;

use crate::common::{ScriptEngine, served};

/// How long anything may take before a test gives up on it: debug builds on a busy machine are slow.
pub const PATIENCE: Duration = Duration::from_secs(45);
/// The honest host's model, and what it says to words that mean nothing to it.
pub const MODEL: &str = "org/script";
pub const FOX: &str = "The quick brown fox jumps over the lazy dog.";

/// A node of this process.
pub struct Node {
    pub mesh: Arc<Mesh>,
    pub router: Router,
    pub locals: LocalEngines,
    pub engine: Option<Arc<ScriptEngine>>,
    pub files: Option<FilesOptions>,
    options: MeshOptions,
    dir: TempDir,
}

/// How an answer came out.
#[derive(Debug, Default)]
pub struct Said {
    pub text: String,
    pub tokens: Vec<TokenId>,
    pub finish: Option<FinishReason>,
    pub error: Option<GenerateError>,
}

impl Node {
    pub async fn found(model: Option<&str>) -> Self {
        Self::begin(Way::Found { name: "test".into() }, MemberRole::Serve, model, None).await
    }

    pub async fn join(ticket: &Ticket, role: MemberRole, model: Option<&str>) -> Self {
        Self::begin(Way::Join(vec![ticket.clone()]), role, model, None).await
    }

    /// A server without a model, whose cache is `cache`, of the hub at `hub`.
    pub async fn with_files(way: Way, hub: &str, share: Share) -> Self {
        Self::begin(way, MemberRole::Serve, None, Some((hub.to_owned(), share))).await
    }

    async fn begin(way: Way, role: MemberRole, model: Option<&str>, files: Option<(String, Share)>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = MeshOptions {
            way,
            role,
            ticket_file: None,
            bind: vec!["127.0.0.1:0".parse().unwrap()],
            relay: Relay::None,
            mdns: false,
            state: dir.path().join("state"),
            share: Share::default(),
        };
        let engine = model.map(|id| Arc::new(ScriptEngine::new(id)));
        let files = files.map(|(hub, share)| {
            let hub = HubConfig { endpoint: hub, ..HubConfig::new(dir.path().join("hub")) };
            FilesOptions { hub, cache: dir.path().join("cache"), share }
        });
        Self::start(options, engine, files, dir).await
    }

    async fn start(
        options: MeshOptions,
        engine: Option<Arc<ScriptEngine>>,
        files: Option<FilesOptions>,
        dir: TempDir,
    ) -> Self {
        let locals = LocalEngines::default();
        if let Some(engine) = &engine {
            assert!(locals.add_served(served(engine.clone())));
        }
        let serving = ServingOptions {
            cache: dir.path().join("cache"),
            context_tokens: None,
            parallel: 1,
            max_memory: None,
            gguf: mesh_node::cli::GgufServing::default(),
            named: 0,
            identify: false,
        };
        let shelf = Shelf::new(locals.clone(), serving);
        let mesh = mesh_node::mesh::start(options.clone(), locals.clone(), shelf, None, files.clone()).await.unwrap();
        // A host that says nothing is given up sooner than in life.
        let config = AttemptConfig { first_event: Millis(1000), ..AttemptConfig::default() };
        let router = Router::new(locals.clone(), config);
        router.join(mesh.clone());
        let node = Self { mesh, router, locals, engine, files, options, dir };
        node.until("it is in the mesh", |node| !matches!(node.mesh.view().joining, Joining::Joining { .. })).await;
        node
    }

    /// Leaves, and returns what [`Node::again`] starts anew.
    pub async fn stop(self) -> Stopped {
        self.mesh.leave().await;
        Stopped { options: self.options, engine: self.engine, dir: self.dir }
    }

    pub fn id(&self) -> NodeId {
        self.mesh.view().me
    }

    pub async fn ticket(&self, order: TicketOrder) -> Ticket {
        self.mesh.ticket(order).await.unwrap().ticket.parse().unwrap()
    }

    pub fn counter(&self, label: &str) -> u64 {
        self.mesh.status().counters.get(label).copied().unwrap_or(0)
    }

    /// Waits until a counter stands at least so high.
    pub async fn counts(&self, label: &str, least: u64) {
        self.until(&format!("{label} is {least}"), |node| node.counter(label) >= least).await;
    }

    pub async fn until(&self, what: &str, so: impl Fn(&Self) -> bool) {
        let waited = timeout(PATIENCE, async {
            while !so(self) {
                sleep(Duration::from_millis(10)).await;
            }
        });
        if waited.await.is_err() {
            panic!("never: {what}; it counts {:?} and sees {:?}", self.mesh.status().counters, self.mesh.view().peers);
        }
    }

    /// Waits until exactly these answer for a model at this node's door.
    pub async fn owners(&self, model: &str, owners: &[NodeId]) {
        let mut wanted = owners.to_vec();
        wanted.sort_unstable();
        self.until(&format!("{model} is served by {wanted:?}"), |node| {
            let view = node.mesh.view();
            let serves = view.candidates.iter().filter(|candidate| candidate.name.as_str() == model);
            let mut serving: Vec<NodeId> = serves.map(|candidate| candidate.node).collect();
            serving.sort_unstable();
            serving == wanted
        })
        .await;
    }

    /// What a node says of its model, as this one knows it.
    pub fn word_of(&self, node: &NodeId) -> ServedModel {
        self.mesh.view().peers[node].record.models[0].clone()
    }

    pub async fn ask(&self, words: &str) -> Said {
        self.ask_for(request(words)).await
    }

    pub async fn ask_for(&self, request: GenerateRequest) -> Said {
        timeout(PATIENCE, self.asked(request)).await.expect("an answer in time")
    }

    async fn asked(&self, request: GenerateRequest) -> Said {
        let mut said = Said::default();
        let target = match self.router.find(&request.model).await {
            Ok(target) => target,
            Err(error) => panic!("{error}"),
        };
        let mut generation = match self.router.begin(&target, request, None).await {
            Ok(begun) => begun.generation,
            Err(error) => return Said { error: Some(error), ..said },
        };
        while let Some(event) = generation.next().await {
            match event {
                Event::Text { text, tokens, .. } => {
                    said.text.push_str(&text);
                    said.tokens.extend(tokens);
                }
                Event::Finished { reason, .. } => said.finish = Some(reason),
                Event::Failed(error) => said.error = Some(error),
                Event::Started { .. } | Event::ToolCall { .. } => {}
            }
        }
        said
    }

    /// The fox, whole and once.
    pub async fn works(&self) {
        let said = self.ask("and now?").await;
        assert_eq!((said.text.as_str(), said.finish, said.error), (FOX, Some(FinishReason::Stop), None));
        assert_eq!(said.tokens, (0..10).map(TokenId).collect::<Vec<_>>());
    }
}

/// A node that is not running, and keeps its key.
pub struct Stopped {
    options: MeshOptions,
    engine: Option<Arc<ScriptEngine>>,
    dir: TempDir,
}

impl Stopped {
    pub async fn again(self) -> Node {
        Node::start(self.options, self.engine, None, self.dir).await
    }
}

/// One founder that serves, and one member that only asks; both honest.
pub struct Honest {
    pub host: Node,
    pub door: Node,
    /// Lets anybody in as a server.
    pub ticket: Ticket,
}

impl Honest {
    pub async fn new() -> Self {
        let host = Node::found(Some(MODEL)).await;
        let ticket = host.ticket(order()).await;
        let door = Node::join(&ticket, MemberRole::Client, None).await;
        door.owners(MODEL, &[host.id()]).await;
        host.until("the door is here", |host| host.mesh.view().peers.contains_key(&door.id())).await;
        Self { host, door, ticket }
    }

    /// Where the host is.
    pub fn at(&self) -> Contact {
        self.ticket.contacts[0].clone()
    }

    /// Where the door is.
    pub fn door_at(&self) -> Contact {
        self.host.mesh.view().contact(&self.door.id()).unwrap().clone()
    }

    /// Both see each other as before, nobody else serves, and the door is answered.
    pub async fn are_well(&self) {
        self.door.owners(MODEL, &[self.host.id()]).await;
        self.host.until("the door is well", |host| is_well(host, &self.door)).await;
        self.door.until("the host is well", |door| is_well(door, &self.host)).await;
        self.door.works().await;
    }
}

fn is_well(node: &Node, other: &Node) -> bool {
    node.mesh.view().peers.get(&other.id()).is_some_and(|peer| {
        let suspect = matches!(peer.health, Some(mesh_proto::suspicion::Health::Suspect { .. }));
        peer.may_be_asked() && !suspect && !peer.record.draining
    })
}

/// A ticket for anybody, for a day.
pub fn order() -> TicketOrder {
    TicketOrder { role: Default::default(), uses: None, lifetime_s: 3600, admits: false, node: None }
}

pub fn request(words: &str) -> GenerateRequest {
    GenerateRequest::new(ModelId::new(MODEL), Prompt::Text(words.into()))
}

/// Bytes of memory that a process has, in KiB.
pub fn memory_kib(process: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

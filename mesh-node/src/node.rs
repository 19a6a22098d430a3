//! A node's life: take the ports, answer, join, load, serve, drain, end; must not know flags or routes.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use catalog::{CatalogError, Format};
use mesh_proto::{ModelId, identity::MemberRole};
use thiserror::Error;
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    api,
    arrivals::{self, Named},
    cli::{Console, ModelSource, Serving, say},
    local::LocalEngines,
    manage::{self, Desk, MeshControl, Token, TokenError},
    mesh::{self, FilesOptions, Mesh, MeshError},
    router::Router,
    server::{self, Bound},
    shelf::{ServingOptions, Shelf, ShelfError},
};

/// How long running answers may take to end. Service managers kill after 90 s or so. (guess)
const DRAIN: Duration = Duration::from_secs(30);
/// How long the goodbye may take, to the mesh and to who asked over the management API.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why a node ends that should not. Each is one line.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The port.
    #[error("cannot listen on {address}: {}", listen_hint(cause))]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        cause: io::Error,
    },
    /// The management API's port.
    #[error(
        "cannot listen on {address} for the console: {} (--console PORT names another, --no-console goes without)",
        console_hint(cause)
    )]
    Console {
        /// Where.
        address: SocketAddr,
        /// Why.
        cause: io::Error,
    },
    /// The management API's token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The name of a model.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A model's files.
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    /// The model itself.
    #[error("{model}: {message}")]
    Load {
        /// Which.
        model: ModelId,
        /// Why.
        message: String,
    },
    /// A model did not come; says itself which.
    #[error("{0}")]
    Fetch(String),
    /// The mesh.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// The system.
    #[error(transparent)]
    System(#[from] io::Error),
    /// The drain took too long.
    #[error("some answers had not ended after {} s and were cut off", DRAIN.as_secs())]
    CutOff,
    /// The second Ctrl-C.
    #[error("stopped at once, as asked twice; running answers were cut off")]
    Forced,
}

fn listen_hint(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "address in use (another mesh-llm? try --port 0 or another number)".into(),
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address".into(),
        io::ErrorKind::PermissionDenied => "not permitted (ports below 1024 need privileges)".into(),
        _ => error.to_string(),
    }
}

fn console_hint(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "address in use; another mesh-llm?".into(),
        _ => error.to_string(),
    }
}

/// What runs, and has to end.
struct Node {
    locals: LocalEngines,
    mesh: Option<Arc<Mesh>>,
    api: Server,
    console: Option<Server>,
    /// Turned on by the management API.
    stopping: watch::Sender<bool>,
}

/// Serves until a signal, or the operator, ends it.
///
/// # Errors
/// When it cannot start, or could not end as it should.
pub async fn serve(serving: Serving) -> Result<(), NodeError> {
    let mut signals = Signals::new()?;
    let wanted = serving.listen.address();
    let listen_error = |cause| NodeError::Listen { address: wanted, cause };
    // First what is quick to fail: nobody wants to read 20 GiB to learn that a port is taken or a name misspelt.
    let bound = server::bind(wanted).map_err(listen_error)?;
    let console = console(&serving)?;
    let found = arrivals::find(&serving)?;
    let locals = LocalEngines::default();
    let shelf = Shelf::new(locals.clone(), ServingOptions::from(&serving));
    let mut names: Vec<ModelId> = found.iter().map(Named::id).collect();
    let mut coming = Vec::new();
    for (at, named) in found.into_iter().enumerate() {
        let placeholder = named.placeholder();
        match named {
            Named::Here(files) => shelf.name(files).await?,
            Named::Coming { .. } if !locals.add(placeholder) => {
                return Err(ShelfError::SameName(named.id()).into());
            }
            Named::Coming { name, model } => coming.push((at, name, model)),
        }
    }
    // Clients get in now, and are told what is on its way.
    let listener = bound.listen().map_err(listen_error)?;
    let address = listener.local_addr()?;
    let url = format!("http://{}/v1", reachable(address));
    let router = Router::new(locals.clone(), serving.timeouts);
    let door = api::Door { keys: serving.keys.clone(), address: Some(address) };
    let api = Server::start(listener, api::routes(router.clone(), door));
    let mesh = join(&serving, &router, &shelf).await?;
    let stopping = watch::Sender::new(false);
    let desk = Desk {
        shelf: shelf.clone(),
        mesh: mesh.clone().map(|mesh| mesh as Arc<dyn MeshControl>),
        api: url.clone(),
        started: Instant::now(),
        stopping: stopping.clone(),
    };
    let console = console.map(|(listener, token)| open_console(listener, token, desk)).transpose()?;
    let node = Node { locals, mesh, api, console, stopping };
    announce(&serving, address, &url, &names);
    let mut asked = node.stopping.subscribe();
    let loads = async {
        // What is here first: it need not wait for the network.
        let here = |at: &usize| coming.iter().all(|(later, ..)| later != at);
        for at in (0..names.len()).filter(here) {
            let failed = |message| NodeError::Load { model: names[at].clone(), message };
            shelf.load(&names[at]).await.map_err(failed)?;
        }
        for (at, name, model) in coming {
            let elsewhere = node.mesh.as_ref().and_then(|mesh| mesh.elsewhere());
            let fetched = arrivals::fetch(&name, &model, serving.hub.as_ref(), elsewhere).await;
            let files = fetched.map_err(NodeError::Fetch)?;
            shelf.locals().remove(&names[at]);
            names[at] = files.id.clone();
            shelf.name(files).await?;
            let failed = |message| NodeError::Load { model: names[at].clone(), message };
            shelf.load(&names[at]).await.map_err(failed)?;
        }
        welcome(&serving, &url, &names);
        std::future::pending::<Result<(), NodeError>>().await
    };
    tokio::select! {
        failed = loads => return failed,
        () = signals.next() => {}
        // Its sender is the node's own.
        _ = asked.wait_for(|asked| *asked) => {}
    }
    node.stopping.send_replace(true);
    stop(node, &mut signals).await
}

/// Starts the mesh and tells the router of it. Returns at once, whatever the network does.
async fn join(serving: &Serving, router: &Router, shelf: &Shelf) -> Result<Option<Arc<Mesh>>, NodeError> {
    let Some(options) = serving.mesh.clone() else { return Ok(None) };
    let serves = options.role == MemberRole::Serve;
    let (cache, share) = (serving.cache.clone(), options.share.clone());
    let files = serving.hub.clone().map(|hub| FilesOptions { hub, cache, share });
    let mesh = mesh::start(options, router.locals().clone(), shelf.clone(), serving.max_memory, files).await?;
    router.join(mesh.clone());
    if serves {
        // What every node has, any node can take over.
        tokio::spawn(offer_bundled(shelf.clone(), serving.cache.clone()));
    }
    Ok(Some(mesh))
}

async fn offer_bundled(shelf: Shelf, cache: std::path::PathBuf) {
    for name in catalog::bundled() {
        if shelf.locals().all().contains_key(&ModelId::new(name)) {
            continue;
        }
        let cache = cache.clone();
        let files = tokio::task::spawn_blocking(move || catalog::resolve(name, &cache, Some(Format::Mlx), None)).await;
        let offered = match files {
            Ok(Ok(files)) => shelf.offer(files, false).await,
            Ok(Err(error)) => Err(error.into()),
            Err(panic) => Err(ShelfError::Panicked(panic.to_string())),
        };
        if let Err(error) = offered {
            tracing::warn!(%error, name, "the bundled model cannot be taken over from others");
        }
    }
}

/// The management API's listener and token. Without them a node goes on, unless they were asked for.
fn console(serving: &Serving) -> Result<Option<(TcpListener, Token)>, NodeError> {
    let Some(port) = serving.console.port() else { return Ok(None) };
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    let listener = server::bind(address).and_then(Bound::listen);
    let opened = listener.map_err(|cause| NodeError::Console { address, cause });
    let opened = opened.and_then(|listener| Ok((listener, Token::keep(&serving.state)?)));
    match (opened, serving.console) {
        (Ok(opened), _) => Ok(Some(opened)),
        (Err(error), Console::Usual) => {
            say::note(format!("mesh-llm: going on without the console: {error}"));
            Ok(None)
        }
        (Err(error), _) => Err(error),
    }
}

fn open_console(listener: TcpListener, token: Token, desk: Desk) -> Result<Server, NodeError> {
    let address = listener.local_addr()?;
    say::note(format!("mesh-llm: console at http://{address}"));
    Ok(Server::start(listener, manage::routes(desk, token, address)))
}

fn list(names: &[ModelId]) -> String {
    names.iter().map(ModelId::as_str).collect::<Vec<_>>().join(", ")
}

fn announce(serving: &Serving, address: SocketAddr, url: &str, names: &[ModelId]) {
    if names.is_empty() {
        say::note(format!("mesh-llm: API at {url}"));
    } else {
        if serving.models.iter().any(ModelSource::is_mlx) {
            say::note("MLX is the younger of mesh-llm's two engines; please report what looks wrong.");
        }
        say::note(format!("mesh-llm: API at {url}, loading {}", list(names)));
    }
    if !address.ip().is_loopback() && serving.keys.is_open() {
        say::note(format!("warning: everybody who reaches {address} can use this node; --api-key KEY closes it."));
    }
}

fn welcome(serving: &Serving, url: &str, names: &[ModelId]) {
    let key = if serving.keys.is_open() { "" } else { " -H \"Authorization: Bearer $MESH_LLM_API_KEY\"" };
    let Some(first) = names.first() else {
        say::result(format!("mesh-llm ready: {url}  (models: none yet)"));
        return say::result(format!("try: curl {url}/models{key}"));
    };
    say::result(format!("mesh-llm ready: {url}  (models: {})", list(names)));
    let ask = serde_json::json!({
        "model": first.as_str(),
        "messages": [{ "role": "user", "content": "What is the capital of France?" }],
    });
    say::result(format!("try: curl {url}/chat/completions{key} -H 'Content-Type: application/json' -d '{ask}'"));
}

/// An address that can be typed into a client: "every address" is none.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Ends a node: nothing new, what runs may end or is handed over to other nodes, then goodbye.
async fn stop(node: Node, signals: &mut Signals) -> Result<(), NodeError> {
    let Node { locals, mesh, api, console, .. } = node;
    let running = locals.busy();
    if running > 0 {
        let seconds = DRAIN.as_secs();
        say::note(format!("stopping: {running} answers may take {seconds} s to end; Ctrl-C again stops at once."));
    }
    let ending = async {
        let api = api.stop();
        if let Some(mesh) = &mesh {
            mesh.drain().await;
        }
        locals.drain().await;
        api.await;
    };
    let ended = tokio::select! {
        ended = timeout(DRAIN, ending) => ended.map_err(|_| NodeError::CutOff),
        () = signals.next() => return Err(NodeError::Forced),
    };
    let farewell = async {
        if let Some(mesh) = &mesh {
            mesh.leave().await;
        }
        if let Some(console) = console {
            console.stop().await;
        }
    };
    tokio::select! {
        // Who does not hear it notices by itself.
        _ = timeout(FAREWELL, farewell) => ended,
        () = signals.next() => Err(NodeError::Forced),
    }
}

/// A listener's task.
struct Server {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    fn start(listener: TcpListener, routes: axum::Router) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(server::serve(listener, routes, async {
            // An error says that the sender is gone, which is as good a reason to stop.
            let _ = stopped.await;
        }));
        Self { stop, task }
    }

    /// Takes no more connections from now on; the future ends when all answers have ended.
    fn stop(self) -> impl Future<Output = ()> {
        // If the server is gone already, its own end tells.
        let _ = self.stop.send(());
        async {
            // A panic of the accept loop was reported by the runtime; the process ends either way.
            let _ = self.task.await;
        }
    }
}

/// Ctrl-C and what service managers send.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The next one.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

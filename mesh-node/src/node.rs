//! A node's life: take the port, load, serve, drain, end; must not know flags or routes.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use catalog::{CatalogError, ModelFiles};
use thiserror::Error;
use tokio::time::timeout;

use crate::{
    api,
    cli::{ModelSource, Serving, say},
    load,
    router::{Router, Served},
    server,
};

/// How long running answers may take to end. Service managers kill after 90 s or so. (guess)
const DRAIN: Duration = Duration::from_secs(30);

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
    /// The name of a model.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// Two models of one name.
    #[error("two models would be called {0}: rename a folder, or leave one out")]
    SameName(String),
    /// The model itself.
    #[error("{model}: {message}")]
    Load {
        /// Which.
        model: String,
        /// Why.
        message: String,
    },
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

/// Serves until a signal ends it.
///
/// # Errors
/// When it cannot start, or could not end as it should.
pub async fn serve(serving: Serving) -> Result<(), NodeError> {
    let wanted = serving.listen.address();
    let listen_error = |cause| NodeError::Listen { address: wanted, cause };
    // First, since it is quick to fail: nobody wants to read 20 GiB to learn that the port is taken.
    let bound = server::bind(wanted).map_err(listen_error)?;
    let found = find(&serving)?;
    say::note("MLX is the younger of mesh-llm's two engines; please report what looks wrong.");
    let mut models = Vec::new();
    for files in found {
        models.push(load_one(files, &serving).await?);
    }
    let router = Router::new(models);
    // Until here a signal ends the process, as it does by default: there is nothing to finish.
    let mut signals = Signals::new()?;
    let listener = bound.listen().map_err(listen_error)?;
    welcome(listener.local_addr()?, &serving, &router);
    let routes = api::routes(router.clone(), serving.keys.clone());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let mut server = tokio::spawn(server::serve(listener, routes, async {
        // An error says that the sender is gone, which is as good a reason to stop.
        let _ = stopped.await;
    }));
    signals.next().await;
    // If the server is gone already, its own end tells.
    let _ = stop.send(());
    drain(&router, &mut server, &mut signals).await
}

/// The models' files, each under a name of its own.
fn find(serving: &Serving) -> Result<Vec<ModelFiles>, NodeError> {
    let mut names = BTreeSet::new();
    let mut found = Vec::new();
    for source in &serving.models {
        let files = match source {
            ModelSource::Named(name) => catalog::resolve(name, &serving.cache)?,
            ModelSource::MlxFile(path) => catalog::open(path)?,
        };
        if !names.insert(files.id.clone()) {
            return Err(NodeError::SameName(files.id.to_string()));
        }
        found.push(files);
    }
    Ok(found)
}

async fn load_one(files: ModelFiles, serving: &Serving) -> Result<Served, NodeError> {
    let model = files.id.to_string();
    let (name, serving) = (model.clone(), serving.clone());
    let work = move || load::load(files, &serving, &mut |stage| say::note(format!("{name}: {stage}")));
    let error = |message| NodeError::Load { model: model.clone(), message };
    match tokio::task::spawn_blocking(work).await {
        Ok(loaded) => loaded.map_err(|e| error(e.to_string())),
        Err(panic) => Err(error(format!("loading it failed: {panic}"))),
    }
}

fn welcome(address: SocketAddr, serving: &Serving, router: &Router) {
    let names: Vec<&str> = router.models().iter().map(|served| served.descriptor().id.as_str()).collect();
    let url = format!("http://{}/v1", reachable(address));
    say::result(format!("mesh-llm ready: {url}  (models: {})", names.join(", ")));
    let key = if serving.keys.is_open() { "" } else { " -H \"Authorization: Bearer $MESH_LLM_API_KEY\"" };
    let ask = serde_json::json!({
        "model": names.first().copied().unwrap_or_default(),
        "messages": [{ "role": "user", "content": "What is the capital of France?" }],
    });
    say::result(format!("try: curl {url}/chat/completions{key} -H 'Content-Type: application/json' -d '{ask}'"));
    if !address.ip().is_loopback() && serving.keys.is_open() {
        say::note(format!("warning: everybody who reaches {address} can use this node; --api-key KEY closes it."));
    }
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

async fn drain(
    router: &Router,
    server: &mut tokio::task::JoinHandle<()>,
    signals: &mut Signals,
) -> Result<(), NodeError> {
    let running: u32 = router
        .models()
        .iter()
        .map(|served| {
            let l = served.engine.load();
            l.running + l.waiting
        })
        .sum();
    if running > 0 {
        let seconds = DRAIN.as_secs();
        say::note(format!("stopping: {running} answers may take {seconds} s to end; Ctrl-C again stops at once."));
    }
    let both = async {
        router.drain().await;
        // A panic of the accept loop was reported by the runtime; the process ends either way.
        let _ = server.await;
    };
    tokio::select! {
        ended = timeout(DRAIN, both) => ended.map_err(|_| NodeError::CutOff),
        () = signals.next() => Err(NodeError::Forced),
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

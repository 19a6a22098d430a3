//! Connections: the listener, limits per connection, and an end that lets answers finish; must not know any route.

use std::{future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
    time::sleep,
};
use tracing::{debug, warn};

/// What one connection may cost, and all together.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; more wait in the kernel. Each costs a task, some 10 KiB, and a descriptor. Default 4096. (guess)
    pub connections: usize,
    /// Bytes of a request's head; more is a 431. Browsers and SDKs send 1 to 8 KiB. Default 64 KiB. (guess)
    pub head_bytes: usize,
    /// Time for a request's head, and for the pause before the next one on a connection. Default 30 s: hyper's.
    pub head_patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 4096, head_bytes: 64 << 10, head_patience: Duration::from_secs(30) }
    }
}

/// Descriptors that a node wants beside its connections: models, the mesh, llama-server. (guess)
const OTHER_DESCRIPTORS: u64 = 1024;
/// Connections that the kernel holds while we look elsewhere.
const BACKLOG: u32 = 1024;

/// A port that is ours, but on which nobody listens yet: clients are refused until there is somebody to answer them,
/// instead of hanging.
#[derive(Debug)]
pub struct Bound(TcpSocket);

/// Takes the port.
///
/// # Errors
/// When it is taken, or the address is not this machine's.
pub fn bind(address: SocketAddr) -> io::Result<Bound> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Else a restart would have to wait for the last connections' TIME_WAIT.
    socket.set_reuseaddr(true)?;
    // Inherited by its connections: a client whose machine vanished is noticed at last, though it never said so.
    socket.set_keepalive(true)?;
    socket.bind(address)?;
    Ok(Bound(socket))
}

impl Bound {
    /// From now on clients get in.
    ///
    /// # Errors
    /// When somebody else began to listen on the same port meanwhile.
    pub fn listen(self) -> io::Result<TcpListener> {
        self.0.listen(BACKLOG)
    }
}

/// Serves until `stop` ends; then takes no more connections, and ends when all running answers have ended.
pub async fn serve(listener: TcpListener, routes: axum::Router, stop: impl Future<Output = ()>) {
    serve_within(Limits::default(), listener, routes, stop).await;
}

/// [`serve`] with other limits.
pub async fn serve_within(limits: Limits, listener: TcpListener, routes: axum::Router, stop: impl Future<Output = ()>) {
    raise_descriptors(limits.connections as u64 + OTHER_DESCRIPTORS);
    let open = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut stop = pin!(stop);
    loop {
        let stream = tokio::select! {
            () = &mut stop => break,
            stream = accept(&listener) => stream,
        };
        let place = tokio::select! {
            () = &mut stop => break,
            place = places.clone().acquire_owned() => place,
        };
        let connection = open.watch(connection(limits, stream, routes.clone()));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "a connection broke");
            }
            drop(place);
        });
    }
    drop(listener);
    open.shutdown().await;
}

/// Lets this process have as many descriptors, as far as the system lets it: shells hand down 256 to 1024.
fn raise_descriptors(wanted: u64) {
    let now = getrlimit(Resource::Nofile);
    let target = now.maximum.map_or(wanted, |most| most.min(wanted));
    if now.current.is_some_and(|current| current < target) {
        let raised = Rlimit { current: Some(target), ..now };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            warn!(%error, target, "cannot have more file descriptors");
        }
    }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Tokens are small writes; Nagle's algorithm would hold each back for the last one's ACK.
                let _ = stream.set_nodelay(true);
                return stream;
            }
            Err(error) => {
                // Most often: out of descriptors. Trying at once again would burn a core.
                warn!(%error, "cannot accept a connection");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

type Connection = http1::Connection<TokioIo<TcpStream>, TowerToHyperService<axum::Router>>;

fn connection(limits: Limits, stream: TcpStream, routes: axum::Router) -> Connection {
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_patience)
        .max_header_size(limits.head_bytes)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes))
}

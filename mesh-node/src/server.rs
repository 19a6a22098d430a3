//! Connections: the listener, limits per connection, and an end that lets answers finish; must not know any route.

use std::{future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
    time::sleep,
};
use tracing::{debug, warn};

/// Connections at once; more wait in the kernel. Each costs a task and some 20 KiB, and a descriptor. (guess)
const MAX_CONNECTIONS: usize = 4096;
/// Bytes of a request's head; more is a 431. Browsers and SDKs send 1 to 8 KiB. (guess)
const MAX_HEAD: usize = 64 << 10;
/// Time for a request's head, and for the pause before the next one on a connection. (hyper's default)
const HEAD_PATIENCE: Duration = Duration::from_secs(30);
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
    let open = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
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
        let connection = open.watch(connection(stream, routes.clone()));
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

fn connection(stream: TcpStream, routes: axum::Router) -> Connection {
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_header_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes))
}

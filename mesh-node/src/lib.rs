//! The node: HTTP APIs, router, mesh and command line of the binary `mesh-llm`; it must not hold protocol decisions or
//! tensor code.
//!
//! A request comes in over [`api`], is lowered to a [`mesh_proto::GenerateRequest`], and the [`router`] says which
//! engine answers: one of [`local`]'s, or another node's of the [`mesh`]. [`node`] starts all that from a
//! [`cli::Config`] and ends it.

pub mod api;
mod arrivals;
pub mod cli;
mod hosts;
mod load;
pub mod local;
pub mod manage;
pub mod mesh;
mod metrics;
pub mod models;
pub mod node;
pub mod router;
pub mod server;
pub mod shelf;
mod tunnel;

pub use load::GUARD;

/// Chooses the process's TLS library, once. Nothing here speaks HTTPS by itself, but iroh's build switches TLS on in the
/// HTTP client, which then wants to know.
pub fn choose_tls() {
    // The first choice stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

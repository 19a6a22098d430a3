//! The node: HTTP APIs, router and command line of the binary `mesh-llm`; it must not hold protocol decisions or
//! tensor code.
//!
//! A request comes in over [`api`], is lowered to a [`mesh_proto::GenerateRequest`], and the [`router`] says which
//! engine answers. [`node`] starts all that from a [`cli::Config`] and ends it.

pub mod api;
pub mod cli;
mod load;
pub mod node;
pub mod router;
pub mod server;

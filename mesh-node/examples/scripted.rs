//! `cargo run --example scripted -- PORT`: the API in front of a scripted engine, for black-box checks of the HTTP
//! surface alone (`scripts/conformance`); must not know any model.

use std::sync::Arc;

use mesh_node::{
    api,
    local::{LocalEngines, Served},
    router, server,
};
use mesh_proto::{Sampling, record::Capabilities, routing::AttemptConfig};

#[path = "../tests/common/script.rs"]
#[allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "the tests' own engine")]
mod script;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let mut words = std::env::args().skip(1);
    let port: u16 = words.next().and_then(|port| port.parse().ok()).unwrap_or(9337);
    let engine = Arc::new(script::ScriptEngine::new("script"));
    let locals = LocalEngines::default();
    let capabilities = Capabilities::default();
    locals.add_served(Served { engine, defaults: Sampling::default(), max_concurrency: 64, capabilities });
    let router = router::Router::new(locals, AttemptConfig::default());
    let keys: Vec<String> = words.collect();
    let listener = server::bind(([127, 0, 0, 1], port).into())?.listen()?;
    let keys = api::Keys::new(keys.iter().map(String::as_str));
    let routes = api::routes(router, api::Door { keys, address: Some(listener.local_addr()?) });
    server::serve(listener, routes, std::future::pending()).await;
    Ok(())
}

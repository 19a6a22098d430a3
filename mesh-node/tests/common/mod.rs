//! A node without a model: the scripted engine behind the real routes and the real listener.

#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test file uses its part")]

mod script;

use std::sync::Arc;

use engine::Engine;
use mesh_node::{
    api,
    local::{LocalEngines, Served},
    router, server,
};
use mesh_proto::{Sampling, record::Capabilities, routing::AttemptConfig};
use serde_json::{Value, json};

pub use script::{ScriptEngine, script_pool};

/// An engine as a node holds it.
pub fn served(engine: Arc<dyn Engine>) -> Served {
    let can = [Capabilities::CHAT, Capabilities::RESUME, Capabilities::EMBEDDINGS, Capabilities::RERANK];
    let capabilities = can.into_iter().fold(Capabilities::default(), Capabilities::and);
    Served { engine, defaults: Sampling::default(), max_concurrency: 64, capabilities }
}

/// A running node; gone when dropped, with its runtime.
pub struct Node {
    pub engine: Arc<ScriptEngine>,
    pub url: String,
    pub client: reqwest::Client,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    server: tokio::task::JoinHandle<()>,
}

impl Node {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub async fn start_with(keys: &[&str]) -> Self {
        Self::start_within(keys, server::Limits::default()).await
    }

    pub async fn start_within(keys: &[&str], limits: server::Limits) -> Self {
        let engine = Arc::new(ScriptEngine::new("org/script"));
        let other = Arc::new(ScriptEngine::new("other"));
        let locals = LocalEngines::default();
        for engine in [engine.clone(), other] {
            assert!(locals.add_served(served(engine)));
        }
        Self::open(engine, locals, keys, limits)
    }

    /// Its engine is none of its own.
    pub async fn without_models() -> Self {
        Self::open(Arc::new(ScriptEngine::new("none")), LocalEngines::default(), &[], server::Limits::default())
    }

    fn open(engine: Arc<ScriptEngine>, locals: LocalEngines, keys: &[&str], limits: server::Limits) -> Self {
        mesh_node::choose_tls();
        let router = router::Router::new(locals, AttemptConfig::default());
        let bound = server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = bound.listen().unwrap();
        let address = listener.local_addr().unwrap();
        let routes =
            api::routes(router, api::Door { keys: api::Keys::new(keys.iter().copied()), address: Some(address) });
        let url = format!("http://{address}");
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let server = tokio::spawn(server::serve_within(limits, listener, routes, async {
            let _ = stopped.await;
        }));
        Self { engine, url, client: reqwest::Client::new(), stop: Some(stop), server }
    }

    pub async fn chat(&self, words: &str, fields: Value) -> reqwest::Response {
        let mut body =
            json!({ "model": "org/script", "messages": [{ "role": "user", "content": words }], "temperature": 0 });
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.post("/v1/chat/completions", body.to_string()).await
    }

    pub async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> reqwest::Response {
        self.client.post(format!("{}{path}", self.url)).body(body).send().await.unwrap()
    }

    pub async fn get(&self, path: &str) -> reqwest::Response {
        self.client.get(format!("{}{path}", self.url)).send().await.unwrap()
    }

    /// Begins to stop.
    pub fn stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    /// Ends when all answers have ended.
    pub async fn ended(self) {
        self.server.await.unwrap();
    }
}

/// Waits for something to become so.
pub async fn until(what: &str, so: impl Fn() -> bool) {
    for _ in 0..500 {
        if so() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("not within 5 s: {what}");
}

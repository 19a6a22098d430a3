//! What this node counts, and how a scraper reads it; must not know HTTP or any endpoint.
//!
//! Two sources: counters that grow as requests are answered, and gauges that are read off engines and mesh when asked.

use std::{fmt, sync::atomic::AtomicU64, time::Duration};

use engine::EngineLoad;
use mesh_proto::{FinishReason, GenerateError, Pooled, Usage};
use prometheus_client::{
    encoding::text::{encode_eof, encode_registry},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::{local::LocalEngines, manage::MeshStatus};

/// What all names begin with.
const PREFIX: &str = "mesh_llm";
/// Bounds of the time to the first token. Unit: seconds; a guess: from a warm small model to a long prompt on a laptop.
const FIRST_TOKEN_S: [f64; 14] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0];
/// Bounds of the time from token to token. Unit: seconds; a guess: from 1,000 tokens a second to one every 2 s.
const NEXT_TOKEN_S: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0];

type ByModel = [(&'static str, String); 1];
/// What a gauge shows of an engine.
type Reading = fn(&EngineLoad) -> u64;
type Times = Family<ByModel, Histogram, fn() -> Histogram>;

/// Counts what this node answers.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<[(&'static str, String); 4], Counter>,
    in_flight: Gauge,
    generations: Family<[(&'static str, String); 2], Counter>,
    prompt_tokens: Family<ByModel, Counter>,
    cached_tokens: Family<ByModel, Counter>,
    completion_tokens: Family<ByModel, Counter>,
    first_token: Times,
    next_token: Times,
    poolings: Family<[(&'static str, String); 3], Counter>,
    pooled_inputs: Family<ByModel, Counter>,
    pooled_tokens: Family<ByModel, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix(PREFIX),
            requests: Family::default(),
            in_flight: Gauge::default(),
            generations: Family::default(),
            prompt_tokens: Family::default(),
            cached_tokens: Family::default(),
            completion_tokens: Family::default(),
            first_token: Family::new_with_constructor(|| Histogram::new(FIRST_TOKEN_S)),
            next_token: Family::new_with_constructor(|| Histogram::new(NEXT_TOKEN_S)),
            poolings: Family::default(),
            pooled_inputs: Family::default(),
            pooled_tokens: Family::default(),
        };
        let all = &mut metrics.registry;
        all.register(
            "http_requests",
            "Answered requests, by route, method, status and model",
            metrics.requests.clone(),
        );
        all.register(
            "generations_in_flight",
            "Generations that a client of this node waits for",
            metrics.in_flight.clone(),
        );
        all.register("generations", "Generations that ended, by model and how", metrics.generations.clone());
        all.register("prompt_tokens", "Tokens of the prompts of finished generations", metrics.prompt_tokens.clone());
        let help = "Of these, tokens that were not computed again";
        all.register("cached_prompt_tokens", help, metrics.cached_tokens.clone());
        all.register("completion_tokens", "Tokens of finished generations", metrics.completion_tokens.clone());
        let help = "From the request to the first token";
        all.register_with_unit("time_to_first_token", help, Unit::Seconds, metrics.first_token.clone());
        let help = "From token to token, as they reach the client's connection";
        all.register_with_unit("inter_token", help, Unit::Seconds, metrics.next_token.clone());
        let help = "Requests for embeddings and rerankings that ended, by model, task and how";
        all.register("poolings", help, metrics.poolings.clone());
        all.register(
            "pooled_inputs",
            "Their inputs and documents, where they were answered",
            metrics.pooled_inputs.clone(),
        );
        all.register("pooled_tokens", "The tokens of these", metrics.pooled_tokens.clone());
        metrics
    }
}

/// How something ended, by what went wrong.
fn label(error: &GenerateError) -> &'static str {
    match error {
        GenerateError::Invalid { .. } | GenerateError::ContextOverflow { .. } => "invalid",
        GenerateError::Busy { .. } => "busy",
        GenerateError::ShuttingDown => "shutting_down",
        GenerateError::NotServed { .. } | GenerateError::Unavailable(_) => "unavailable",
        GenerateError::Engine(_) => "engine_failed",
    }
}

fn by(model: &str) -> ByModel {
    [("model", model.to_owned())]
}

impl Metrics {
    /// A request was answered. `model`: the one that it asked for, where there is such a model.
    pub(crate) fn answered(&self, route: &str, method: &str, status: u16, model: &str) {
        let labels = [("route", route), ("method", method), ("status", &status.to_string()), ("model", model)];
        self.requests.get_or_create(&labels.map(|(name, value)| (name, value.to_owned()))).inc();
    }

    /// A generation began.
    pub(crate) fn began(&self) {
        self.in_flight.inc();
    }

    /// Its first token came.
    pub(crate) fn first_token(&self, model: &str, after: Duration) {
        self.first_token.get_or_create(&by(model)).observe(after.as_secs_f64());
    }

    /// Another came, so long after the last one.
    pub(crate) fn next_token(&self, model: &str, after: Duration) {
        self.next_token.get_or_create(&by(model)).observe(after.as_secs_f64());
    }

    /// It ended as it should.
    pub(crate) fn finished(&self, model: &str, reason: FinishReason, usage: Usage) {
        self.prompt_tokens.get_or_create(&by(model)).inc_by(usage.prompt_tokens.into());
        self.cached_tokens.get_or_create(&by(model)).inc_by(usage.cached_tokens.into());
        self.completion_tokens.get_or_create(&by(model)).inc_by(usage.completion_tokens.into());
        let end = match reason {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::ToolCalls => "tool_calls",
        };
        self.ended(model, end);
    }

    /// It ended as it should not.
    pub(crate) fn failed(&self, model: &str, error: &GenerateError) {
        self.ended(model, label(error));
    }

    /// Texts were made into vectors or scores, or not. `task`: `embeddings` or `rerank`.
    pub(crate) fn pooled(&self, model: &str, task: &str, ended: Result<&Pooled, &GenerateError>) {
        let end = ended.err().map_or("done", label);
        let labels = [("model", model), ("task", task), ("end", end)];
        self.poolings.get_or_create(&labels.map(|(name, value)| (name, value.to_owned()))).inc();
        if let Ok(pooled) = ended {
            self.pooled_inputs.get_or_create(&by(model)).inc_by(pooled.rows.len() as u64);
            self.pooled_tokens.get_or_create(&by(model)).inc_by(pooled.prompt_tokens.into());
        }
    }

    /// Its client went away.
    pub(crate) fn cancelled(&self, model: &str) {
        self.ended(model, "cancelled");
    }

    fn ended(&self, model: &str, end: &str) {
        self.in_flight.dec();
        self.generations.get_or_create(&[("model", model.to_owned()), ("end", end.to_owned())]).inc();
    }

    /// All of it in OpenMetrics' text format, with what engines and mesh say now.
    ///
    /// # Errors
    /// Never, as long as a string can grow.
    pub(crate) fn text(&self, locals: &LocalEngines, mesh: Option<MeshStatus>) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode_registry(&mut text, &self.registry)?;
        encode_registry(&mut text, &now(locals, mesh))?;
        encode_eof(&mut text)?;
        Ok(text)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("in_flight", &self.in_flight.get()).finish_non_exhaustive()
    }
}

/// What is so at this moment.
fn now(locals: &LocalEngines, mesh: Option<MeshStatus>) -> Registry {
    let mut all = Registry::with_prefix(PREFIX);
    let build = Family::<[(&'static str, String); 1], Gauge>::default();
    build.get_or_create(&[("version", env!("CARGO_PKG_VERSION").to_owned())]).set(1);
    all.register("build", "The release, as a label", build);
    let loads: Vec<(String, EngineLoad)> =
        locals.all().iter().filter_map(|(id, model)| Some((id.to_string(), model.served()?.engine.load()))).collect();
    let gauges: [(&str, &str, Reading); 5] = [
        ("engine_running", "Sequences being computed here, peers' among them", |load| load.running.into()),
        ("engine_waiting", "Requests that wait for a place here", |load| load.waiting.into()),
        ("engine_kv_bytes", "Bytes of KV cache of running sequences", |load| load.kv_bytes),
        ("engine_prefix_bytes", "Bytes of KV cache kept for later prompts", |load| load.prefix_bytes),
        ("engine_kv_budget_bytes", "Bytes of KV cache that there may be; 0: not known", |load| load.kv_budget_bytes),
    ];
    for (name, help, value) in gauges {
        let family = Family::<ByModel, Gauge<u64, AtomicU64>>::default();
        for (model, load) in &loads {
            family.get_or_create(&by(model)).set(value(load));
        }
        all.register(name, help, family);
    }
    let counters: [(&str, &str, Reading); 2] = [
        ("engine_steps", "Steps computed here", |load| load.steps),
        ("engine_tokens", "Tokens generated here, for peers too", |load| load.tokens),
    ];
    for (name, help, value) in counters {
        let family = Family::<ByModel, Counter>::default();
        for (model, load) in &loads {
            family.get_or_create(&by(model)).inc_by(value(load));
        }
        all.register(name, help, family);
    }
    if let Some(mesh) = mesh {
        register_mesh(&mut all, mesh);
    }
    all
}

fn register_mesh(all: &mut Registry, mesh: MeshStatus) {
    let members = Family::<[(&'static str, String); 1], Gauge>::default();
    // This node is one.
    members.get_or_create(&[("health", "alive".to_owned())]).inc();
    for peer in mesh.peers {
        members.get_or_create(&[("health", peer.health)]).inc();
    }
    all.register("mesh_members", "Members of the mesh that this node knows of, itself among them", members);
    let models = Family::<ByModel, Gauge>::default();
    for model in mesh.models {
        models.get_or_create(&by(&model.id)).set(i64::try_from(model.owners.len()).unwrap_or(i64::MAX));
    }
    all.register("mesh_model_owners", "Nodes that answer for a model", models);
    let refused = Family::<[(&'static str, String); 1], Counter>::default();
    for (reason, count) in mesh.counters {
        refused.get_or_create(&[("reason", reason)]).inc_by(count);
    }
    all.register(
        "mesh_refusals",
        "What was turned away or skipped in the mesh, by reason, as `status` shows it",
        refused,
    );
}

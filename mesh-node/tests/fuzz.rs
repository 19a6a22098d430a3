//! Mutated requests to every route, for as long as one likes: no panic, no status of 500 or more, no memory beyond what a body
//! is worth, no case that hangs; and what is let through is what an engine, or a peer, takes.
//!
//! Some seconds of it run with the other tests.
//! `MESH_FUZZ_SECONDS=600 MESH_FUZZ_SEED=1 cargo test --release -p mesh-node --test fuzz -- --ignored --nocapture`
#![allow(clippy::unwrap_used, clippy::print_stdout, unreachable_pub, reason = "a test says what it expects and saw")]

mod fuzz_support;

use std::{
    collections::BTreeMap,
    env,
    time::{Duration, Instant},
};

use axum::{Router, body::Body};
use bytes::Bytes;
use fuzz_support::{
    Dice,
    engine::prompter,
    mutate::{self, Words, mutate},
    seeds,
};
use http_body_util::BodyExt;
use hyper::{Method, Request, Uri, service::Service};
use hyper_util::service::TowerToHyperService;
use mesh_node::{
    api,
    local::{LocalEngines, Served},
    router,
};
use mesh_proto::{Sampling, record::Capabilities, routing::AttemptConfig};
use peak_alloc::PeakAlloc;
use serde_json::Value;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What a case may take beside what its body is worth: an answer's channel and text, n times, and the routes' own.
const MEMORY_BYTES: usize = 4 << 20;
/// What each byte of a body may take: read, parsed, lowered, told to a peer and back, n times.
const MEMORY_A_BYTE: usize = 1000;
/// What may be left when all is over: kept responses, which have a budget of their own, and counters of each route.
const LEFT_BYTES: usize = 128 << 20;
/// A case that takes longer hangs: the longest of millions take milliseconds.
const HANGS: Duration = Duration::from_secs(20);
/// Most mutants kept of one route. Guess: enough to get deeper, few enough to come back to each.
const MOST_KEPT: usize = 256;

/// The real routes over an engine that answers at once.
fn routes() -> TowerToHyperService<Router> {
    mesh_node::choose_tls();
    let locals = LocalEngines::default();
    let capabilities = Capabilities::CHAT.and(Capabilities::RESUME);
    let served = Served { engine: prompter(), defaults: Sampling::default(), max_concurrency: 64, capabilities };
    assert!(locals.add_served(served));
    let router = router::Router::new(locals, AttemptConfig::default());
    TowerToHyperService::new(api::routes(router, api::Keys::new([])))
}

struct Answer {
    status: u16,
    is_stream: bool,
    body: Bytes,
}

async fn ask(routes: &TowerToHyperService<Router>, method: Method, uri: Uri, dialect: &str, body: &[u8]) -> Answer {
    let request = Request::builder().method(method).uri(uri).header("host", "localhost").header(dialect, "2023-06-01");
    let request = request.body(Body::from(body.to_vec())).unwrap();
    let response = tokio::time::timeout(HANGS, routes.call(request)).await.unwrap().unwrap();
    let status = response.status().as_u16();
    let kind = response.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
    let body = tokio::time::timeout(HANGS, response.into_body().collect()).await.unwrap().unwrap().to_bytes();
    Answer { status, is_stream: kind.is_some_and(|kind| kind.starts_with("text/event-stream")), body }
}

impl Answer {
    /// What it says, or what is wrong with it.
    fn check(&self) -> Result<Vec<Value>, String> {
        let text = std::str::from_utf8(&self.body).map_err(|_| "no text".to_owned())?;
        let said: Vec<Value> = match self.is_stream {
            true => {
                let lines =
                    text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|line| *line != "[DONE]");
                lines.map(serde_json::from_str).collect::<Result<_, _>>()
            }
            false => serde_json::from_str(text).map(|value| vec![value]),
        }
        .map_err(|error| format!("no JSON: {error}: {text}"))?;
        if self.status >= 500 {
            return Err(format!("{}: {text}", self.status));
        }
        let error = said.iter().find_map(|value| value.get("error").filter(|error| !error.is_null()));
        match (self.status, error) {
            (200, None) => Ok(said),
            (400..500, Some(error)) if error["message"].as_str().is_some_and(|said| !said.is_empty()) => Ok(said),
            (status, _) => Err(format!("{status} with {text}")),
        }
    }
}

/// A route, and bodies that it takes.
struct Target {
    path: &'static str,
    pool: Vec<Vec<u8>>,
    valid: usize,
    run: u64,
    accepted: u64,
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

/// Panics where something is wrong with an answer; says whether the request was taken.
struct Fuzz {
    routes: TowerToHyperService<Router>,
    seed: u64,
    case: u64,
    longest: Duration,
    most: usize,
    statuses: BTreeMap<u16, u64>,
}

impl Fuzz {
    async fn run(&mut self, method: Method, uri: Uri, body: &[u8]) -> Option<Vec<Value>> {
        self.case += 1;
        let told = format!("case {} of seed {}, {method} {uri}: {}", self.case, self.seed, body.escape_ascii());
        let (begun, before) = (Instant::now(), MEMORY.current_usage());
        MEMORY.reset_peak_usage();
        let dialect = if self.case.is_multiple_of(4) { "anthropic-version" } else { "openai-version" };
        let answer = ask(&self.routes, method, uri, dialect, body).await;
        let (took, taken) = (begun.elapsed(), MEMORY.peak_usage().saturating_sub(before));
        assert!(took < HANGS, "{took:?}: {told}");
        assert!(taken < MEMORY_BYTES + MEMORY_A_BYTE * body.len(), "{taken} bytes: {told}");
        (self.longest, self.most) = (self.longest.max(took), self.most.max(taken));
        *self.statuses.entry(answer.status).or_default() += 1;
        let said = answer.check().unwrap_or_else(|wrong| panic!("{wrong}\n{told}"));
        (answer.status == 200).then_some(said)
    }
}

async fn fuzz(seconds: u64) {
    let seed = number("MESH_FUZZ_SEED", 1);
    let mut fuzz =
        Fuzz { routes: routes(), seed, case: 0, longest: Duration::ZERO, most: 0, statuses: BTreeMap::new() };
    let document = fuzz.run(Method::GET, Uri::from_static("/openapi.json"), b"").await.unwrap().remove(0);
    let mut words = Words::of(&document);
    let mut targets = Vec::new();
    for (path, bodies) in seeds::bodies() {
        let pool: Vec<Vec<u8>> = bodies.iter().map(|body| body.to_string().into_bytes()).collect();
        for body in &pool {
            let said = fuzz.run(Method::POST, Uri::from_static(path), body).await;
            assert!(said.is_some(), "{path}: a seed is no good: {}", body.escape_ascii());
        }
        targets.push(Target { path, valid: pool.len(), pool, run: 0, accepted: 0 });
    }
    let at_first = MEMORY.current_usage();
    let mut dice = Dice(seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        for _ in 0..16 {
            let (which, lender) = (dice.roll(targets.len()), dice.roll(targets.len()));
            let other = dice.pick(&targets[lender].pool).clone();
            let base = dice.pick(&targets[which].pool).clone();
            let body = mutate(&mut dice, &words, &base, &other);
            let path = targets[which].path;
            let said = fuzz.run(Method::POST, Uri::from_static(path), &body).await;
            let target = &mut targets[which];
            target.run += 1;
            let Some(said) = said else { continue };
            target.accepted += 1;
            if target.pool.len() < MOST_KEPT {
                target.pool.push(body);
            } else {
                // The first ones are the valid ones.
                let at = target.valid + dice.roll(MOST_KEPT - target.valid);
                target.pool[at] = body;
            }
            if path == "/v1/responses" {
                let id =
                    said.iter().find_map(|said| said.get("id").or_else(|| said.get("response")?.get("id"))?.as_str());
                words.ids.push(id.unwrap().to_owned());
                words.ids.drain(..words.ids.len().saturating_sub(16));
            }
        }
        paths(&mut fuzz, &mut dice, &words).await;
    }
    for Target { path, run, accepted, .. } in &targets {
        println!("{run:>10} run {accepted:>10} accepted  POST {path}");
        assert!(*accepted > 0, "{path}: no mutant was ever taken");
    }
    let left = MEMORY.current_usage().saturating_sub(at_first);
    println!(
        "{} cases of seed {seed} in {seconds} s; {:?} and {} bytes at most of one, {left} bytes left; {:?}",
        fuzz.case, fuzz.longest, fuzz.most, fuzz.statuses
    );
    assert!(left < LEFT_BYTES, "{left} bytes are left");
}

/// What the routes without a body make of odd paths.
async fn paths(fuzz: &mut Fuzz, dice: &mut Dice, words: &Words) {
    let id = words.ids[dice.roll(words.ids.len())].clone();
    let known = [
        "/v1/models/m".to_owned(),
        "/v1/models?limit=2&after_id=m".into(),
        format!("/v1/responses/{id}"),
        format!("/v1/responses/{id}/input_items?limit=2&order=asc&after=msg_1"),
        format!("/v1/responses/{id}/cancel"),
    ];
    let (path, other) = (dice.pick(&known).clone(), dice.pick(&known).clone());
    let path = match dice.roll(3) {
        0 => path,
        _ => String::from_utf8_lossy(&mutate::bytes(dice, path.as_bytes(), other.as_bytes())).replace('#', "%23"),
    };
    let method = dice.pick(&[Method::GET, Method::GET, Method::POST, Method::DELETE, Method::PUT]).clone();
    // Pages of text: they stand in no bound's way.
    if let Ok(uri) = path.parse::<Uri>()
        && uri.path().starts_with("/v1/")
    {
        fuzz.run(method, uri, b"").await;
    }
}

#[tokio::test]
async fn seconds_of_mutated_requests() {
    fuzz(3).await;
}

#[tokio::test]
#[ignore = "runs for MESH_FUZZ_SECONDS, 60 by default"]
async fn requests_long() {
    fuzz(number("MESH_FUZZ_SECONDS", 60)).await;
}

//! A node under load, over real connections: crowds of streams, thousands of short requests, clients that leave; every answer
//! is what it is alone, none is refused, and nothing is held afterwards.
//!
//! A small crowd runs with the other tests. As large as one likes:
//! `MESH_LOAD_STREAMS=200 MESH_LOAD_REQUESTS=2000 cargo test -p mesh-node --test load -- --nocapture`
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it expects and saw")]

#[path = "common/binary.rs"]
mod binary;

use std::{
    collections::BTreeMap,
    env,
    sync::Arc,
    time::{Duration, Instant},
};

use binary::{Home, Node};
use futures_util::{
    StreamExt,
    stream::{self, FuturesUnordered},
};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::time::timeout;

/// A wait for what must happen: a whole crowd's answers, on a slow and busy machine.
const SURELY: Duration = Duration::from_secs(110);
/// Prompts of the crowd; each answer is known from asking alone.
const PROMPTS: [&str; 4] = ["Tell me a long story.", "Count to twenty.", "What is the capital of France?", "Hello!"];
/// Tokens of a stream's answer.
const STREAMED: u32 = 32;
/// Requests at once among the short ones.
const AT_ONCE: usize = 50;

fn number(name: &str, default: usize) -> usize {
    env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

struct Crowd {
    client: Client,
    url: String,
}

impl Crowd {
    async fn post(&self, path: &str, body: &Value) -> reqwest::Response {
        let post = self.client.post(format!("{}{path}", self.url)).body(body.to_string());
        let answer = timeout(SURELY, post.send()).await.unwrap().unwrap();
        let status = answer.status();
        assert_eq!(status, 200, "{path}: {}", answer.text().await.unwrap());
        answer
    }

    fn chat(words: &str, max_tokens: u32) -> Value {
        json!({ "model": "mesh-tiny", "messages": [{ "role": "user", "content": words }], "temperature": 0, "max_tokens": max_tokens })
    }

    /// The whole answer, and why it ended.
    async fn whole(&self, words: &str, max_tokens: u32) -> (String, String) {
        let answer: Value =
            self.post("/v1/chat/completions", &Self::chat(words, max_tokens)).await.json().await.unwrap();
        let choice = &answer["choices"][0];
        let text = choice["message"]["content"].as_str().unwrap();
        (text.to_owned(), choice["finish_reason"].as_str().unwrap().to_owned())
    }

    /// The same, streamed.
    async fn streamed(&self, words: &str) -> (String, String) {
        let mut body = Self::chat(words, STREAMED);
        body["stream"] = true.into();
        let answer = self.post("/v1/chat/completions", &body).await;
        let said = timeout(SURELY, answer.text()).await.unwrap().unwrap();
        let lines: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        let (last, chunks) = lines.split_last().unwrap();
        assert_eq!(*last, "[DONE]", "{said}");
        let (mut text, mut ends) = (String::new(), Vec::new());
        for chunk in chunks {
            let chunk: Value = serde_json::from_str(chunk).unwrap();
            assert!(chunk.get("error").is_none(), "{chunk}");
            let choice = &chunk["choices"][0];
            text += choice["delta"]["content"].as_str().unwrap_or_default();
            ends.extend(choice["finish_reason"].as_str().map(str::to_owned));
        }
        assert_eq!(ends.len(), 1, "{said}");
        (text, ends.remove(0))
    }

    /// A client that leaves in the middle of its stream.
    async fn left(&self) {
        let mut body = Self::chat(PROMPTS[0], 2000);
        body["stream"] = true.into();
        body["ignore_eos"] = true.into();
        let mut bytes = self.post("/v1/chat/completions", &body).await.bytes_stream();
        for _ in 0..3 {
            timeout(SURELY, bytes.next()).await.unwrap().unwrap().unwrap();
        }
    }

    /// A short request of one of the dialects.
    async fn short(&self, number: usize) {
        let words = PROMPTS[number % PROMPTS.len()];
        let chat = [json!({ "role": "user", "content": words })];
        let (path, body, said) = match number % 4 {
            0 => ("/v1/chat/completions", Self::chat(words, 2), "/choices/0/finish_reason"),
            1 => (
                "/v1/completions",
                json!({ "model": "mesh-tiny", "prompt": words, "max_tokens": 2 }),
                "/choices/0/finish_reason",
            ),
            2 => ("/v1/messages", json!({ "model": "mesh-tiny", "messages": chat, "max_tokens": 2 }), "/stop_reason"),
            _ => (
                "/v1/responses",
                json!({ "model": "mesh-tiny", "input": words, "max_output_tokens": 2, "store": number % 8 == 3 }),
                "/status",
            ),
        };
        let answer: Value = timeout(SURELY, self.post(path, &body).await.json()).await.unwrap().unwrap();
        assert!(answer.pointer(said).is_some_and(Value::is_string), "{path}: {answer}");
    }

    /// The sum of each family of the node's metrics that is asked for.
    async fn sums<const N: usize>(&self, families: [&str; N]) -> [f64; N] {
        let text = self.client.get(format!("{}/metrics", self.url)).send().await.unwrap().text().await.unwrap();
        families.map(|family| {
            let of = |line: &&str| {
                line.strip_prefix("mesh_llm_")
                    .and_then(|rest| rest.strip_prefix(family))
                    .is_some_and(|rest| rest.starts_with(['{', ' ']))
            };
            let values: Vec<f64> =
                text.lines().filter(of).map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).collect();
            assert!(!values.is_empty(), "no {family} in {text}");
            values.iter().sum()
        })
    }

    /// Waits until nothing is computed, waited for or held.
    async fn is_idle(&self) {
        let end = Instant::now() + SURELY;
        loop {
            let left =
                self.sums(["generations_in_flight", "engine_running", "engine_waiting", "engine_kv_bytes"]).await;
            if left.iter().all(|left| *left == 0.0) {
                return;
            }
            assert!(Instant::now() < end, "in flight, running, waiting, bytes of KV: {left:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_streams_and_of_short_requests_is_answered_and_leaves_nothing() {
    let (streams, requests) = (number("MESH_LOAD_STREAMS", 200), number("MESH_LOAD_REQUESTS", 200));
    // Nobody reads what it logs: some lines for each request would fill the pipe, and stop it.
    let quiet = [("MESH_LLM_LOG", "warn")];
    let node = Node::start_in(Home::new(), "--model mesh-tiny --mlx --ctx-size 2048", &quiet).await;
    let crowd = Arc::new(Crowd { client: Client::new(), url: node.url.clone() });
    let mut alone = BTreeMap::new();
    for words in PROMPTS {
        alone.insert(words, crowd.whole(words, STREAMED).await);
    }
    let begun = Instant::now();
    let leaving = streams / 10;
    let leavers: FuturesUnordered<_> = (0..leaving)
        .map(|_| {
            let crowd = crowd.clone();
            tokio::spawn(async move { crowd.left().await })
        })
        .collect();
    let streaming: FuturesUnordered<_> = (0..streams)
        .map(|at| {
            let (crowd, words) = (crowd.clone(), PROMPTS[at % PROMPTS.len()]);
            tokio::spawn(async move { (words, crowd.streamed(words).await) })
        })
        .collect();
    let told: Vec<_> = streaming.map(Result::unwrap).collect().await;
    for (words, said) in told {
        assert_eq!(said, alone[words], "{words}: not what it is alone");
    }
    leavers.for_each(async |left| left.unwrap()).await;
    println!("{streams} streams at once, and {leaving} clients that left: {:?}", begun.elapsed());
    crowd.is_idle().await;

    let begun = Instant::now();
    let short = stream::iter(0..requests).for_each_concurrent(AT_ONCE, |at| crowd.short(at));
    short.await;
    println!("{requests} short requests, {AT_ONCE} at once: {:?}", begun.elapsed());
    crowd.is_idle().await;

    let text = crowd.client.get(format!("{}/metrics", crowd.url)).send().await.unwrap().text().await.unwrap();
    let counted = |family: &str, with: &str| -> f64 {
        let lines =
            text.lines().filter(|line| line.starts_with(&format!("mesh_llm_{family}{{")) && line.contains(with));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    };
    let all = (PROMPTS.len() + streams + leaving + requests) as f64;
    assert_eq!(counted("http_requests_total", "method=\"POST\""), all);
    assert_eq!(counted("http_requests_total", "status=\"200\",model=\"mesh-tiny\""), all, "{text}");
    assert_eq!(counted("generations_total", "end=\"cancelled\""), leaving as f64, "{text}");
    assert_eq!(counted("generations_total", "model"), all);
    node.signal("TERM").await;
    assert!(node.end().await.success());
}

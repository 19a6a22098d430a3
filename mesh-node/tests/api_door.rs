//! Connections and who may come in, over real sockets: hosts and origins, slow clients, many clients, watchers.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{Node, until};
use mesh_node::server::Limits;
use serde_json::{Value, json};
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// A wait for what must happen.
const SURELY: Duration = Duration::from_secs(60);

async fn connect(node: &Node) -> TcpStream {
    TcpStream::connect(node.url.strip_prefix("http://").unwrap()).await.unwrap()
}

/// Reads to the end of a chunked answer, or of one with a length.
async fn answer(socket: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut piece = [0; 4096];
    loop {
        let n = timeout(SURELY, socket.read(&mut piece)).await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&piece[..n]).unwrap());
        let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            length.map_or(body.ends_with("0\r\n\r\n"), |length| body.len() >= length.parse().unwrap())
        });
        if n == 0 || whole {
            return text;
        }
    }
}

#[tokio::test]
async fn pages_elsewhere_and_foreign_names_are_refused_on_an_open_node() {
    let node = Node::start().await;
    let ask = |name: &'static str, value: &'static str| {
        let get = node.client.get(format!("{}/v1/models", node.url)).header(name, value);
        async move { get.send().await.unwrap().status().as_u16() }
    };
    assert_eq!(ask("host", "evil.example").await, 403);
    assert_eq!(ask("origin", "https://evil.example").await, 403);
    assert_eq!(ask("origin", "http://localhost:5173").await, 200);
    assert_eq!(ask("host", "localhost:1").await, 200);
    let evil = node.client.get(format!("{}/v1/models", node.url)).header("host", "evil.example").send().await.unwrap();
    let error: Value = evil.json().await.unwrap();
    assert_eq!(error["error"]["code"], "foreign_origin");
    let guarded = Node::start_with(&["sk"]).await;
    let get = guarded.client.get(format!("{}/v1/models", guarded.url)).bearer_auth("sk");
    assert_eq!(get.header("origin", "https://my.example").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_connection_goes_on_after_a_stream_and_after_an_error() {
    let node = Node::start().await;
    let mut socket = connect(&node).await;
    let stream = json!({ "model": "org/script", "stream": true, "messages": [{ "role": "user", "content": "say" }] });
    let head = |body: &str| {
        format!("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    for _ in 0..3 {
        socket.write_all(head(&stream.to_string()).as_bytes()).await.unwrap();
        let text = answer(&mut socket).await;
        assert!(text.starts_with("HTTP/1.1 200") && text.contains("data: [DONE]"), "{text}");
        socket.write_all(head("{").as_bytes()).await.unwrap();
        assert!(answer(&mut socket).await.starts_with("HTTP/1.1 400"));
    }
}

#[tokio::test]
async fn who_sends_a_head_drop_by_drop_or_nothing_is_cut_off() {
    let limits = Limits { head_patience: Duration::from_millis(300), ..Limits::default() };
    let node = Node::start_within(&[], limits).await;
    // Nothing at all; a beginning; and a head that never ends.
    for (start, drips) in [("", false), ("GET /health HT", false), ("GET /health HTTP/1.1\r\n", true)] {
        let mut socket = connect(&node).await;
        socket.write_all(start.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let ended = async {
            loop {
                if drips && socket.write_all(b"X-A: b\r\n").await.is_err() {
                    return;
                }
                let mut piece = [0; 256];
                match timeout(Duration::from_millis(50), socket.read(&mut piece)).await {
                    Ok(Ok(0) | Err(_)) => return,
                    Ok(Ok(n)) => rest.extend_from_slice(&piece[..n]),
                    Err(_) => {}
                }
            }
        };
        timeout(SURELY, ended).await.unwrap_or_else(|_| panic!("{start:?} holds its connection"));
        assert!(!rest.starts_with(b"HTTP/1.1 200"), "{start:?}");
    }
    assert_eq!(node.get("/health").await.status(), 200);
}

fn memory() -> u64 {
    let mut system = System::new().unwrap();
    let me = Pid::from_u32(std::process::id());
    let what = ProcessRefreshKind::nothing().with_memory();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[me]), true, what);
    system.process(me).unwrap().memory()
}

#[tokio::test]
async fn a_thousand_idle_connections_cost_little_and_others_are_answered() {
    let node = Node::start().await;
    node.get("/health").await;
    let before = memory();
    let mut idle = Vec::new();
    for at in 0..1000 {
        let mut socket = connect(&node).await;
        if at % 2 == 0 {
            // Half of them have asked something before.
            socket.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
            assert!(answer(&mut socket).await.starts_with("HTTP/1.1 200"));
        }
        idle.push(socket);
    }
    assert_eq!(node.chat("say", json!({})).await.status(), 200);
    let each = memory().saturating_sub(before) / 1000;
    assert!(each < 64 << 10, "{each} bytes a connection, both of its ends");
    drop(idle);
}

#[tokio::test]
async fn watchers_are_told_whether_it_lives_is_ready_and_what_it_counts() {
    let node = Node::start().await;
    for path in ["/", "/health", "/ready", "/metrics", "/openapi.json", "/v1/models"] {
        assert_eq!(node.get(path).await.status(), 200, "{path}");
        let head = node.client.head(format!("{}{path}", node.url)).send().await.unwrap();
        assert_eq!((head.status().as_u16(), head.bytes().await.unwrap().len()), (200, 0), "{path}");
    }
    let ready: Value = node.get("/ready").await.json().await.unwrap();
    assert_eq!(ready["models"], json!(["org/script", "other"]));
    node.chat("say", json!({})).await.text().await.unwrap();
    node.chat("say", json!({ "stream": true, "max_tokens": 2 })).await.text().await.unwrap();
    assert_eq!(node.chat("#BUSY", json!({})).await.status(), 429);
    assert_eq!(node.chat("x", json!({ "model": "made up" })).await.status(), 404);
    let response = node.get("/metrics").await;
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    let text = response.text().await.unwrap();
    assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1, "{text}");
    let route = "route=\"/v1/chat/completions\",method=\"POST\"";
    for line in [
        format!("mesh_llm_http_requests_total{{{route},status=\"200\",model=\"org/script\"}} 2"),
        format!("mesh_llm_http_requests_total{{{route},status=\"429\",model=\"org/script\"}} 1"),
        format!("mesh_llm_http_requests_total{{{route},status=\"404\",model=\"\"}} 1"),
        "mesh_llm_generations_total{model=\"org/script\",end=\"stop\"} 1".into(),
        "mesh_llm_generations_total{model=\"org/script\",end=\"length\"} 1".into(),
        "mesh_llm_generations_total{model=\"org/script\",end=\"busy\"} 1".into(),
        "mesh_llm_completion_tokens_total{model=\"org/script\"} 12".into(),
        "mesh_llm_time_to_first_token_seconds_count{model=\"org/script\"} 2".into(),
        "mesh_llm_inter_token_seconds_count{model=\"org/script\"} 10".into(),
        "mesh_llm_generations_in_flight 0".into(),
        "mesh_llm_engine_running{model=\"org/script\"} 0".into(),
        "mesh_llm_engine_kv_bytes{model=\"other\"} 0".into(),
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_counted_as_such() {
    let node = Node::start().await;
    drop(node.chat("#LONG", json!({ "stream": true })).await);
    until("it is cancelled", || node.engine.cancelled() == 1).await;
    let text = node.get("/metrics").await.text().await.unwrap();
    assert!(text.contains("mesh_llm_generations_total{model=\"org/script\",end=\"cancelled\"} 1"), "{text}");
}

#[tokio::test]
async fn a_node_without_a_model_is_alive_and_not_ready() {
    let node = Node::without_models().await;
    assert_eq!(node.get("/health").await.status(), 200);
    let response = node.get("/ready").await;
    assert_eq!((response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()), (503, "5"));
    let error: Value = response.json().await.unwrap();
    assert_eq!(error["error"]["code"], "not_ready");
    assert!(error["error"]["message"].as_str().unwrap().contains("no model"));
}

//! The API over real sockets, answered by a scripted engine.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{Node, until};
use futures_util::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

async fn error(response: reqwest::Response, status: u16) -> Value {
    assert_eq!(response.status(), status);
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("application/json"));
    assert!(response.headers().contains_key("x-request-id"));
    let mut body: Value = response.json().await.unwrap();
    for key in ["message", "type", "param", "code"] {
        assert!(body["error"].get(key).is_some(), "{key} is always there: {body}");
    }
    body["error"].take()
}

#[tokio::test]
async fn a_chat_is_answered_whole() {
    let node = Node::start().await;
    let response = node.chat("say", json!({})).await;
    assert_eq!(response.status(), 200);
    let request_id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["choices"][0]["message"]["content"], "The quick brown fox jumps over the lazy dog.");
    assert_eq!(body["choices"][0]["finish_reason"], "stop");
    assert_eq!(body["id"], format!("chatcmpl-{request_id}"));
    assert_eq!(body["model"], "org/script");
}

#[tokio::test]
async fn a_stream_is_events_that_end_with_done() {
    let node = Node::start().await;
    let response = node.chat("say", json!({ "stream": true, "stream_options": { "include_usage": true } })).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    assert_eq!(response.headers()["cache-control"], "no-cache");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    let text = response.text().await.unwrap();
    let events: Vec<&str> = text.split_terminator("\n\n").map(|e| e.strip_prefix("data: ").unwrap()).collect();
    let (done, chunks) = events.split_last().unwrap();
    assert_eq!(*done, "[DONE]");
    let chunks: Vec<Value> = chunks.iter().map(|c| serde_json::from_str(c).unwrap()).collect();
    let said: String = chunks.iter().filter_map(|c| c["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(said, "The quick brown fox jumps over the lazy dog.");
    assert_eq!(chunks.last().unwrap()["usage"]["completion_tokens"], 10);
}

#[tokio::test]
async fn errors_name_the_field_the_model_and_the_path() {
    let node = Node::start().await;
    assert_eq!(error(node.chat("x", json!({ "top_p": 7 })).await, 400).await["param"], "top_p");
    assert_eq!(
        error(node.chat("x", json!({ "messages": [{ "role": "user", "content": 5 }] })).await, 400).await["param"],
        "messages[0].content"
    );
    let unknown = error(node.chat("x", json!({ "model": "gpt-4" })).await, 404).await;
    assert_eq!((unknown["code"].as_str(), unknown["param"].as_str()), (Some("model_not_found"), Some("model")));
    assert!(unknown["message"].as_str().unwrap().contains("org/script, other"));
    assert_eq!(error(node.post("/no/such/path", "{}").await, 404).await["code"], "unknown_path");
    assert_eq!(error(node.get("/v1/chat/completions").await, 405).await["code"], "method_not_allowed");
    assert_eq!(error(node.post("/v1/chat/completions", "[1]").await, 400).await["code"], "malformed_body");
}

#[tokio::test]
async fn what_fails_before_the_first_token_is_an_http_error_streamed_or_not() {
    let node = Node::start().await;
    for stream in [false, true] {
        let fields = || json!({ "stream": stream });
        let busy = node.chat("#BUSY", fields()).await;
        assert_eq!(busy.headers()["retry-after"], "2");
        assert_eq!(error(busy, 429).await["type"], "rate_limit_error");
        assert_eq!(error(node.chat("#FAILFIRST", fields()).await, 500).await["type"], "server_error");
        assert_eq!(error(node.chat("#VANISH", fields()).await, 500).await["code"], "engine_failed");
        let long = "word ".repeat(5000);
        assert_eq!(error(node.chat(&long, fields()).await, 400).await["code"], "context_length_exceeded");
    }
}

#[tokio::test]
async fn what_fails_in_mid_stream_is_an_error_event_and_no_done() {
    let node = Node::start().await;
    let text = node.chat("#FAILMID", json!({ "stream": true })).await.text().await.unwrap();
    let last = text.split_terminator("\n\n").last().unwrap();
    assert!(last.starts_with("data: {\"error\":{\"message\":\"the engine failed: in the middle\""), "{last}");
    assert!(!text.contains("[DONE]") && !text.contains("\"finish_reason\":\""), "{text}");
    assert_eq!(error(node.chat("#FAILMID", json!({})).await, 500).await["type"], "server_error");
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_generation() {
    let node = Node::start().await;
    let mut stream = node.chat("#LONG", json!({ "stream": true })).await.bytes_stream();
    stream.next().await.unwrap().unwrap();
    drop(stream);
    until("the dropped stream is cancelled", || node.engine.cancelled() == 1).await;
    for words in ["#LONG", "#HANG"] {
        let before = node.engine.cancelled();
        let waiting = node.client.post(format!("{}/v1/chat/completions", node.url)).timeout(Duration::from_millis(300));
        let body = json!({ "model": "org/script", "messages": [{ "role": "user", "content": words }] });
        waiting.body(body.to_string()).send().await.unwrap_err();
        until(words, || node.engine.cancelled() == before + 1).await;
    }
    // Several prompts at once, too; and silence before the first token of a stream.
    let before = node.engine.cancelled();
    let body =
        json!({ "model": "org/script", "prompt": ["#LONG", "#HANG", "#LONG"], "max_tokens": 100_000, "stream": true });
    drop(node.post("/v1/completions", body.to_string()).await);
    until("all three are cancelled", || node.engine.cancelled() == before + 3).await;
}

#[tokio::test]
async fn several_legacy_prompts_are_answered_in_their_order() {
    let node = Node::start().await;
    let body = json!({ "model": "other", "prompt": ["a", "b:", "c"], "max_tokens": 3 });
    let body: Value = node.post("/v1/completions", body.to_string()).await.json().await.unwrap();
    let texts: Vec<&str> = body["choices"].as_array().unwrap().iter().map(|c| c["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["The quick brown", " one two three", "The quick brown"]);
    assert_eq!(body["usage"]["completion_tokens"], 9);
}

#[tokio::test]
async fn models_are_listed_and_found_with_slashes_in_their_ids() {
    let node = Node::start().await;
    let list: Value = node.get("/v1/models").await.json().await.unwrap();
    assert_eq!(list["data"][0]["id"], "org/script");
    for path in ["/v1/models/org/script", "/v1/models/org%2Fscript"] {
        let model: Value = node.get(path).await.json().await.unwrap();
        assert_eq!((&model["id"], &model["object"]), (&json!("org/script"), &json!("model")));
    }
    assert_eq!(error(node.get("/v1/models/nope").await, 404).await["code"], "model_not_found");
    let head = node.client.head(format!("{}/v1/models", node.url)).send().await.unwrap();
    assert_eq!((head.status().as_u16(), head.text().await.unwrap().len()), (200, 0));
}

#[tokio::test]
async fn keys_guard_all_but_health_and_preflights() {
    let node = Node::start_with(&["sk-one", "sk-two"]).await;
    let get = |path: &str| node.client.get(format!("{}{path}", node.url));
    assert_eq!(get("/health").send().await.unwrap().status(), 200);
    for path in ["/", "/ready", "/metrics", "/openapi.json", "/v1/models", "/nowhere"] {
        assert_eq!(error(get(path).send().await.unwrap(), 401).await["code"], "invalid_api_key");
    }
    assert_eq!(error(node.post("/v1/chat/completions", "{").await, 401).await["code"], "invalid_api_key");
    assert_eq!(get("/v1/models").bearer_auth("sk-two").send().await.unwrap().status(), 200);
    assert_eq!(get("/v1/models").header("x-api-key", "sk-one").send().await.unwrap().status(), 200);
    let wrong = get("/v1/models").bearer_auth("sk-three").header("origin", "http://a").send().await.unwrap();
    assert_eq!(
        (wrong.headers()["www-authenticate"].as_bytes(), wrong.headers()["access-control-allow-origin"].as_bytes()),
        (&b"Bearer"[..], &b"http://a"[..])
    );
    let preflight = node.client.request(Method::OPTIONS, format!("{}/v1/chat/completions", node.url));
    assert_eq!(preflight.header("origin", "http://a").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn browsers_may_ask_and_read_errors_too() {
    let node = Node::start().await;
    let preflight = node.client.request(Method::OPTIONS, format!("{}/v1/chat/completions", node.url));
    let asked = "authorization,content-type,x-api-key,x-stainless-os";
    let preflight = preflight
        .header("origin", "http://localhost:5173")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", asked)
        .send()
        .await
        .unwrap();
    assert_eq!(preflight.headers()["access-control-allow-headers"], asked);
    assert!(preflight.headers()["access-control-allow-methods"].to_str().unwrap().contains("POST"));
    for (path, status) in [("/v1/chat/completions", 400), ("/nowhere", 404), ("/v1/models", 405)] {
        let response = node
            .client
            .post(format!("{}{path}", node.url))
            .header("origin", "http://localhost:5173")
            .body("{}")
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["access-control-allow-origin"], "http://localhost:5173", "{path}");
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_a_413_announced_or_not() {
    let node = Node::start().await;
    let chunk = vec![b' '; 1 << 20];
    let announced = node.post("/v1/chat/completions", vec![b' '; 40 << 20]).await;
    assert_eq!(error(announced, 413).await["code"], "body_too_large");
    let chunks = futures_util::stream::iter(std::iter::repeat_n(chunk, 40).map(Ok::<_, std::io::Error>));
    let streamed = node.post("/v1/chat/completions", reqwest::Body::wrap_stream(chunks)).await;
    assert_eq!(error(streamed, 413).await["code"], "body_too_large");
    assert_eq!(node.chat("x", json!({})).await.status(), 200);
}

async fn connect(node: &Node) -> TcpStream {
    TcpStream::connect(node.url.strip_prefix("http://").unwrap()).await.unwrap()
}

/// One raw exchange on a connection of its own.
async fn raw(node: &Node, request: &[u8]) -> String {
    let mut socket = connect(node).await;
    socket.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let read = async {
        let mut chunk = [0; 4096];
        while !answer.ends_with(b"\r\n\r\n") || answer.is_empty() {
            match socket.read(&mut chunk).await {
                Ok(0) | Err(_) => break,
                Ok(n) => answer.extend_from_slice(&chunk[..n]),
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(3), read).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn heads_are_limited_and_continue_is_said() {
    let node = Node::start().await;
    let big = format!("GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX-Big: {}\r\n\r\n", "a".repeat(70_000));
    assert!(raw(&node, big.as_bytes()).await.starts_with("HTTP/1.1 431"));
    assert!(raw(&node, b"\x16\x03\x01garbage\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    let head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n";
    assert!(raw(&node, format!("{head}Content-Length: 10\r\n\r\n").as_bytes()).await.starts_with("HTTP/1.1 100"));
    assert!(raw(&node, format!("{head}Content-Length: 99999999\r\n\r\n").as_bytes()).await.starts_with("HTTP/1.1 413"));
}

#[tokio::test]
async fn stopping_lets_answers_end_and_takes_no_new_ones() {
    let mut node = Node::start().await;
    let answer = node.chat("#LONG", json!({ "max_tokens": 100, "stream": true })).await;
    node.stop();
    let url = node.url.clone();
    let reader = tokio::spawn(async move { answer.text().await.unwrap() });
    node.ended().await;
    assert!(reader.await.unwrap().ends_with("data: [DONE]\n\n"));
    reqwest::get(format!("{url}/health")).await.unwrap_err();
}

#[tokio::test]
async fn a_taken_port_is_an_error_before_anything_is_loaded() {
    let node = Node::start().await;
    let address = node.url.strip_prefix("http://").unwrap().parse().unwrap();
    assert_eq!(mesh_node::server::bind(address).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
}

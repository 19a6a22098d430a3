//! Anthropic's Messages API over real sockets, answered by a scripted engine.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Node, until};
use futures_util::StreamExt;
use serde_json::{Value, json};

async fn ask(node: &Node, words: &str, fields: Value) -> reqwest::Response {
    let messages = json!([{ "role": "user", "content": words }]);
    let mut body = json!({ "model": "org/script", "max_tokens": 100, "messages": messages });
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    node.post("/v1/messages?beta=true", body.to_string()).await
}

async fn message(node: &Node, words: &str, fields: Value) -> Value {
    let response = ask(node, words, fields).await;
    assert_eq!(response.status(), 200);
    response.json().await.unwrap()
}

/// The events, each with the name that stood above it.
async fn events(response: reqwest::Response) -> Vec<Value> {
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    let text = response.text().await.unwrap();
    let event = |block: &str| {
        let (name, data) = block.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
        let json: Value = serde_json::from_str(data).unwrap();
        assert_eq!(json["type"], name);
        json
    };
    text.split_terminator("\n\n").map(event).collect()
}

/// Anthropic's error, from whichever layer.
async fn error(response: reqwest::Response, status: u16) -> (String, String) {
    assert_eq!(response.status(), status);
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("application/json"));
    let id = response.headers()["request-id"].to_str().unwrap().to_owned();
    assert_eq!(response.headers()["x-request-id"].to_str().unwrap(), id);
    let body: Value = response.json().await.unwrap();
    assert_eq!((&body["type"], &body["request_id"]), (&json!("error"), &json!(id)));
    let word = |key: &str| body["error"][key].as_str().unwrap().to_owned();
    (word("type"), word("message"))
}

fn tools() -> Value {
    let schema = json!({ "type": "object", "properties": { "city": { "type": "string" } } });
    json!([{ "name": "get_weather", "description": "Weather", "input_schema": schema }])
}

#[tokio::test]
async fn a_conversation_is_answered_whole() {
    let node = Node::start().await;
    let response = ask(&node, "say", json!({ "system": [{ "type": "text", "text": "Be terse." }] })).await;
    let id = response.headers()["request-id"].to_str().unwrap().to_owned();
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["id"], format!("msg_{id}"));
    assert_eq!(
        (&body["type"], &body["role"], &body["model"]),
        (&json!("message"), &json!("assistant"), &json!("org/script"))
    );
    let text = "The quick brown fox jumps over the lazy dog.";
    assert_eq!(body["content"], json!([{ "type": "text", "text": text }]));
    assert_eq!((&body["stop_reason"], &body["stop_sequence"]), (&json!("end_turn"), &Value::Null));
    assert_eq!(body["usage"]["output_tokens"], 10);
    assert!(body["usage"]["input_tokens"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn a_stream_has_blocks_a_ping_and_usage_and_no_done() {
    let node = Node::start().await;
    let thinking = json!({ "type": "enabled", "budget_tokens": 1024 });
    let events = events(ask(&node, "#THINK", json!({ "stream": true, "thinking": thinking })).await).await;
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds[..4], ["message_start", "ping", "content_block_start", "content_block_delta"]);
    assert_eq!(kinds[kinds.len() - 3..], ["content_block_stop", "message_delta", "message_stop"]);
    assert!(events[0]["message"]["usage"]["input_tokens"].as_u64().unwrap() > 0);
    let blocks: Vec<&Value> =
        events.iter().filter_map(|event| event.get("content_block")).map(|b| &b["type"]).collect();
    assert_eq!(blocks, ["thinking", "text"]);
    let join = |key: &str| events.iter().filter_map(|event| event["delta"][key].as_str()).collect::<String>();
    assert_eq!(
        (join("thinking").as_str(), join("text").as_str()),
        ("I should ponder", "The quick brown fox jumps over the lazy dog.")
    );
    assert!(!join("signature").is_empty());
    let end = &events[events.len() - 2];
    assert_eq!((&end["delta"]["stop_reason"], &end["usage"]["output_tokens"]), (&json!("end_turn"), &json!(11)));
}

#[tokio::test]
async fn thoughts_are_shown_only_to_who_asks() {
    let node = Node::start().await;
    assert_eq!(message(&node, "#THINK", json!({})).await["content"][0]["type"], "text");
    let shown = message(&node, "#THINK", json!({ "thinking": { "type": "adaptive" } })).await;
    assert_eq!(shown["content"][0]["thinking"], "I should ponder");
    let omitted = message(&node, "#THINK", json!({ "thinking": { "type": "adaptive", "display": "omitted" } })).await;
    assert_eq!(omitted["content"][0]["thinking"], "");
}

#[tokio::test]
async fn tools_are_called_and_their_results_taken() {
    let node = Node::start().await;
    let body = message(&node, "#TOOL", json!({ "tools": tools() })).await;
    assert_eq!(body["stop_reason"], "tool_use");
    let call = json!({ "type": "tool_use", "id": "call_0", "name": "get_weather", "input": { "city": "Paris" } });
    assert_eq!(body["content"], json!([call]));
    let streamed = events(ask(&node, "#PARALLEL", json!({ "tools": tools(), "stream": true })).await).await;
    let json_of = |index: u64| {
        let of_block = streamed.iter().filter(|event| event["index"] == index);
        of_block.filter_map(|event| event["delta"]["partial_json"].as_str()).collect::<String>()
    };
    assert_eq!((json_of(0).as_str(), json_of(1).as_str()), ("{\"city\": \"Paris\"}", "{\"city\": \"Tokyo\"}"));
    let one = json!({ "tools": tools(), "tool_choice": { "type": "auto", "disable_parallel_tool_use": true } });
    assert_eq!(message(&node, "#PARALLEL", one).await["content"].as_array().unwrap().len(), 1);
    let any = json!({ "tools": tools(), "tool_choice": { "type": "any" } });
    assert_eq!(message(&node, "say", any).await["stop_reason"], "tool_use");

    let result =
        json!([{ "type": "tool_result", "tool_use_id": "call_0", "content": [{ "type": "text", "text": "18 C" }] }]);
    let messages = json!([
        { "role": "user", "content": "#TOOL" },
        { "role": "assistant", "content": body["content"] },
        { "role": "user", "content": result },
    ]);
    let answer = message(&node, "", json!({ "tools": tools(), "messages": messages })).await;
    assert_eq!((&answer["stop_reason"], &answer["content"][0]["type"]), (&json!("end_turn"), &json!("text")));
}

#[tokio::test]
async fn each_end_has_its_reason() {
    let node = Node::start().await;
    let stopped = message(&node, "#STOP", json!({ "stop_sequences": ["nothing", "<<HALT>>"] })).await;
    assert_eq!((&stopped["stop_reason"], &stopped["stop_sequence"]), (&json!("stop_sequence"), &json!("<<HALT>>")));
    assert_eq!(stopped["content"][0]["text"], "alpha beta");
    assert_eq!(message(&node, "#LONG", json!({ "max_tokens": 6 })).await["stop_reason"], "max_tokens");
}

#[tokio::test]
async fn a_request_as_claude_code_sends_it_is_taken() {
    let node = Node::start().await;
    let cached = json!({ "type": "ephemeral", "ttl": "1h" });
    let body = json!({
        "model": "org/script", "max_tokens": 32000, "stream": true, "thinking": { "type": "adaptive" },
        "context_management": { "edits": [{ "type": "clear_thinking_20251015", "keep": "all" }] },
        "output_config": { "effort": "high" }, "metadata": { "user_id": "user_1_session_2" },
        "system": [{ "type": "text", "text": "x-anthropic-billing-header: cch=1;" }, { "type": "text", "text": "b", "cache_control": cached }],
        "tools": [tools()[0], { "type": "web_search_20250305", "name": "web_search", "max_uses": 8 }],
        "messages": [{ "role": "user", "content": [{ "type": "text", "text": "#TOOL", "cache_control": cached }] }, { "role": "system", "content": "more" }],
    });
    let request = node.client.post(format!("{}/v1/messages?beta=true", node.url)).body(body.to_string());
    let request = request.header("anthropic-version", "2023-06-01").header("anthropic-beta", "some-beta-2099-01-01");
    let events = events(request.send().await.unwrap()).await;
    assert!(events.iter().any(|event| event["content_block"]["type"] == "tool_use"), "{events:?}");
}

#[tokio::test]
async fn tokens_are_counted_without_an_answer_and_beyond_the_context() {
    let node = Node::start().await;
    let count = async |words: &str| {
        let body =
            json!({ "model": "org/script", "messages": [{ "role": "user", "content": words }], "tools": tools() });
        let response = node.post("/v1/messages/count_tokens?beta=true", body.to_string()).await;
        assert_eq!(response.status(), 200);
        response.json::<Value>().await.unwrap()["input_tokens"].as_u64().unwrap()
    };
    let (few, more) = (count("say").await, count("say a few more words").await);
    assert!(few > 0 && more == few + 4, "{few} {more}");
    assert!(count(&"word ".repeat(5000)).await > 5000);
    // What an answer says that its prompt had is what was counted.
    let answered = message(&node, "say", json!({ "tools": tools(), "thinking": { "type": "disabled" } })).await;
    assert_eq!(answered["usage"]["input_tokens"].as_u64(), Some(few));
    assert_eq!(
        error(node.post("/v1/messages/count_tokens", "{\"model\":\"org/script\"}").await, 400).await.0,
        "invalid_request_error"
    );
}

#[tokio::test]
async fn errors_have_anthropics_shape_from_every_layer() {
    let node = Node::start_with(&["sk-one"]).await;
    let key = |request: reqwest::RequestBuilder| async { request.header("x-api-key", "sk-one").send().await.unwrap() };
    let url = |path: &str| format!("{}{path}", node.url);
    let body = |words: &str, most: u32| {
        json!({ "model": "org/script", "max_tokens": most, "messages": [{ "role": "user", "content": words }] })
            .to_string()
    };
    let post = |body: String| key(node.client.post(url("/v1/messages")).body(body));
    assert_eq!(error(node.post("/v1/messages", body("x", 5)).await, 401).await.0, "authentication_error");
    assert_eq!(post(body("x", 5)).await.status(), 200);
    let bearer = node.client.post(url("/v1/messages")).bearer_auth("sk-one").body(body("x", 5)).send().await.unwrap();
    assert_eq!(bearer.status(), 200);
    assert_eq!(error(key(node.client.get(url("/v1/messages"))).await, 405).await.0, "invalid_request_error");
    assert_eq!(error(key(node.client.post(url("/v1/messages/batches"))).await, 404).await.0, "not_found_error");
    assert_eq!(error(post("[1]".into()).await, 400).await.0, "invalid_request_error");
    let (kind, message) = error(post(body("x", 0)).await, 400).await;
    assert_eq!((kind.as_str(), message.as_str()), ("invalid_request_error", "`max_tokens` must be at least 1, not 0"));
    let unknown = body("x", 5).replace("org/script", "claude-x");
    assert_eq!(error(post(unknown).await, 404).await.0, "not_found_error");
    let (kind, message) = error(post(body(&"word ".repeat(5000), 5)).await, 400).await;
    assert!(kind == "invalid_request_error" && message.starts_with("prompt is too long: "), "{message}");
    let busy = post(body("#BUSY", 5)).await;
    assert_eq!(busy.headers()["retry-after"], "2");
    assert_eq!(error(busy, 429).await.0, "rate_limit_error");
    assert_eq!(error(post(body("#FAILFIRST", 5)).await, 500).await.0, "api_error");
    assert_eq!(error(post(body("#FAILMID", 50)).await, 500).await.0, "api_error");
    assert_eq!(error(post(" ".repeat(40 << 20)).await, 413).await.0, "request_too_large");
    // What the SDKs' tool runners ask for first, and go on without if they are told in these words.
    let thread = body("x", 5).replace("\"max_tokens\"", "\"thread\":{\"type\":\"create\"},\"max_tokens\"");
    let refused: Value = post(thread).await.json().await.unwrap();
    assert_eq!(refused["error"]["details"]["error_code"], "thread_unsupported_request");
    // The other dialect keeps its own.
    let other: Value = key(node.client.post(url("/v1/chat/completions"))).await.json().await.unwrap();
    assert!(other["error"].get("code").is_some() && other.get("type").is_none(), "{other}");
}

#[tokio::test]
async fn what_fails_in_mid_stream_is_an_error_event_and_no_end() {
    let node = Node::start().await;
    let events = events(ask(&node, "#FAILMID", json!({ "stream": true })).await).await;
    let last = events.last().unwrap();
    assert_eq!((&last["type"], &last["error"]["type"]), (&json!("error"), &json!("api_error")));
    assert!(last["error"]["message"].as_str().unwrap().contains("in the middle"));
    assert!(!events.iter().any(|event| event["type"] == "message_stop" || event["type"] == "message_delta"));
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_answer() {
    let node = Node::start().await;
    let mut stream = ask(&node, "#LONG", json!({ "stream": true, "max_tokens": 100_000 })).await.bytes_stream();
    stream.next().await.unwrap().unwrap();
    drop(stream);
    until("the dropped stream is cancelled", || node.engine.cancelled() == 1).await;
}

#[tokio::test]
async fn models_come_in_the_shape_of_whoever_asks() {
    let node = Node::start().await;
    let ask = async |path: &str| {
        let get = node.client.get(format!("{}{path}", node.url)).header("anthropic-version", "2023-06-01");
        get.send().await.unwrap()
    };
    let page: Value = ask("/v1/models?limit=1").await.json().await.unwrap();
    assert_eq!(
        (&page["first_id"], &page["last_id"], &page["has_more"]),
        (&json!("org/script"), &json!("org/script"), &json!(true))
    );
    let page: Value = ask("/v1/models?after_id=org/script").await.json().await.unwrap();
    assert_eq!((page["data"].as_array().unwrap().len(), &page["has_more"]), (1, &json!(false)));
    let model: Value = ask("/v1/models/org/script").await.json().await.unwrap();
    assert_eq!(
        (&model["type"], &model["display_name"], &model["max_input_tokens"]),
        (&json!("model"), &json!("org/script"), &json!(4096))
    );
    assert!(model["object"].is_null() && model["created_at"] == "1970-01-01T00:00:01Z", "{model}");
    let (kind, message) = error(ask("/v1/models/none").await, 404).await;
    assert!(kind == "not_found_error" && message.contains("\"none\""), "{kind}: {message}");
    let (kind, message) = error(ask("/v1/models/%FF").await, 400).await;
    assert!(kind == "invalid_request_error" && message.contains("path"), "{kind}: {message}");
    let (kind, message) = error(ask("/v1/models?limit=0").await, 400).await;
    assert!(kind == "invalid_request_error" && message.contains("`limit`"), "{kind}: {message}");
    // OpenAI's clients have their own, whatever they filter by.
    let list: Value = node.get("/v1/models?limit=0").await.json().await.unwrap();
    assert_eq!((&list["object"], &list["data"][0]["object"]), (&json!("list"), &json!("model")));
    assert_eq!(node.get("/v1/models/none").await.json::<Value>().await.unwrap()["error"]["code"], "model_not_found");
}

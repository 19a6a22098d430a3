//! OpenAI's Responses API over real sockets, answered by a scripted engine.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Node, until};
use futures_util::StreamExt;
use serde_json::{Value, json};

const FOX: &str = "The quick brown fox jumps over the lazy dog.";

async fn ask(node: &Node, fields: Value) -> reqwest::Response {
    let mut body = json!({ "model": "org/script", "input": "say" });
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    node.post("/v1/responses", body.to_string()).await
}

async fn response(node: &Node, fields: Value) -> Value {
    let response = ask(node, fields).await;
    assert_eq!(response.status(), 200);
    response.json().await.unwrap()
}

async fn get(node: &Node, path: &str) -> Value {
    let response = node.get(path).await;
    assert_eq!(response.status(), 200, "{path}");
    response.json().await.unwrap()
}

async fn error(response: reqwest::Response, status: u16) -> Value {
    assert_eq!(response.status(), status);
    let mut body: Value = response.json().await.unwrap();
    for key in ["message", "type", "param", "code"] {
        assert!(body["error"].get(key).is_some(), "{key} is always there: {body}");
    }
    body["error"].take()
}

/// The events, numbered without a gap, each under its name.
async fn events(response: reqwest::Response) -> Vec<Value> {
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    let text = response.text().await.unwrap();
    let event = |(at, block): (usize, &str)| {
        let (name, data) = block.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
        let json: Value = serde_json::from_str(data).unwrap();
        assert_eq!((json["type"].as_str(), json["sequence_number"].as_u64()), (Some(name), Some(at as u64)));
        json
    };
    text.split_terminator("\n\n").enumerate().map(event).collect()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap().strip_prefix("response.").unwrap()).collect()
}

fn tools() -> Value {
    let schema = json!({ "type": "object", "properties": { "city": { "type": "string" } } });
    json!([{ "type": "function", "name": "get_weather", "description": "Weather", "parameters": schema, "strict": true }])
}

#[tokio::test]
async fn a_request_is_answered_whole() {
    let node = Node::start().await;
    let body = response(&node, json!({ "instructions": "Be terse.", "metadata": { "a": "b" } })).await;
    assert_eq!(
        (&body["object"], &body["status"], &body["model"]),
        (&json!("response"), &json!("completed"), &json!("org/script"))
    );
    assert_eq!((&body["error"], &body["incomplete_details"]), (&Value::Null, &Value::Null));
    assert_eq!(body["output"][0]["content"][0]["text"], FOX);
    assert_eq!((&body["instructions"], &body["metadata"]["a"]), (&json!("Be terse."), &json!("b")));
    let usage = &body["usage"];
    assert_eq!(usage["output_tokens"], 10);
    assert_eq!(usage["total_tokens"].as_u64(), Some(usage["input_tokens"].as_u64().unwrap() + 10));
}

#[tokio::test]
async fn a_stream_tells_items_parts_and_deltas_in_order() {
    let node = Node::start().await;
    let events = events(ask(&node, json!({ "input": "#THINK", "stream": true })).await).await;
    let kinds = kinds(&events);
    let mut steps = kinds.clone();
    steps.dedup();
    assert_eq!(
        steps,
        [
            "created",
            "in_progress",
            "output_item.added",
            "content_part.added",
            "reasoning_text.delta",
            "reasoning_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "completed"
        ]
    );
    let said: String = events
        .iter()
        .filter(|e| e["type"] == "response.output_text.delta")
        .map(|e| e["delta"].as_str().unwrap())
        .collect();
    assert_eq!(said, FOX);
    let last = &events.last().unwrap()["response"];
    assert_eq!(last["output"][0]["content"][0], json!({ "type": "reasoning_text", "text": "I should ponder" }));
    assert_eq!(last["output"][1]["content"][0]["text"], FOX);
    // What was streamed is what is kept.
    assert_eq!(&get(&node, &format!("/v1/responses/{}", last["id"].as_str().unwrap())).await, last);
}

#[tokio::test]
async fn tools_are_called_and_their_outputs_taken() {
    let node = Node::start().await;
    let streamed = events(ask(&node, json!({ "input": "#PARALLEL", "tools": tools(), "stream": true })).await).await;
    let done: Vec<&Value> =
        streamed.iter().filter(|e| e["type"] == "response.output_item.done").map(|e| &e["item"]).collect();
    assert_eq!(
        (done.len(), &done[0]["type"], &done[1]["arguments"]),
        (2, &json!("function_call"), &json!("{\"city\": \"Tokyo\"}"))
    );
    assert!(kinds(&streamed).contains(&"function_call_arguments.done"));
    let one = response(&node, json!({ "input": "#PARALLEL", "tools": tools(), "parallel_tool_calls": false })).await;
    assert_eq!(one["output"].as_array().unwrap().len(), 1);
    let forced = response(&node, json!({ "tools": tools(), "tool_choice": "required" })).await;
    assert_eq!(forced["output"][0]["type"], "function_call");

    let mut input = json!([{ "role": "user", "content": "#TOOL" }]);
    let called = response(&node, json!({ "input": input, "tools": tools() })).await;
    let items = input.as_array_mut().unwrap();
    items.extend(called["output"].as_array().unwrap().clone());
    items.push(json!({ "type": "function_call_output", "call_id": called["output"][0]["call_id"], "output": "18 C" }));
    let answer = response(&node, json!({ "input": input, "tools": tools() })).await;
    assert_eq!(answer["output"][0]["type"], "message");
}

#[tokio::test]
async fn a_request_as_codex_sends_it_is_taken() {
    let node = Node::start().await;
    let text = |role: &str, text: &str| json!({ "type": "message", "role": role, "id": "i", "content": [{ "type": "input_text", "text": text }] });
    let spawn = json!({ "type": "function", "name": "spawn", "strict": false, "parameters": { "type": "object" } });
    let body = json!({
        "input": [text("developer", "Be terse"), text("user", "context"), text("user", "#TOOL")], "stream": true,
        "tools": [tools()[0], { "type": "namespace", "name": "multi_agent", "description": "x", "tools": [spawn] },
            { "type": "web_search", "external_web_access": false }],
        "tool_choice": "auto", "parallel_tool_calls": true, "reasoning": { "summary": "auto" }, "store": false,
        "include": ["reasoning.encrypted_content"], "prompt_cache_key": "k", "client_metadata": { "a": "b" },
    });
    let events = events(ask(&node, body).await).await;
    let last = events.last().unwrap();
    assert_eq!(
        (&last["type"], &last["response"]["output"][0]["call_id"]),
        (&json!("response.completed"), &json!("call_0"))
    );
    assert!(last["response"]["usage"]["total_tokens"].as_u64().unwrap() > 0);
    let id = last["response"]["id"].as_str().unwrap();
    error(node.get(&format!("/v1/responses/{id}")).await, 404).await;
}

#[tokio::test]
async fn a_conversation_goes_on_from_what_is_kept() {
    let node = Node::start().await;
    let first = response(&node, json!({ "input": "one two", "instructions": "a b c" })).await;
    let second = response(&node, json!({ "input": "three", "previous_response_id": first["id"] })).await;
    assert_eq!(second["previous_response_id"], first["id"]);
    // Instructions do not carry over, the rest does: the same as if all of it had been sent.
    let mut all = vec![json!({ "role": "user", "content": "one two" }), first["output"][0].clone()];
    all.push(json!({ "role": "user", "content": "three" }));
    let whole = response(&node, json!({ "input": all })).await;
    assert_eq!(second["usage"]["input_tokens"], whole["usage"]["input_tokens"]);
    let third = response(&node, json!({ "input": "four", "previous_response_id": second["id"] })).await;
    assert!(third["usage"]["input_tokens"].as_u64() > second["usage"]["input_tokens"].as_u64());
    // An item may be referred to instead of sent.
    let reference = json!({ "type": "item_reference", "id": first["output"][0]["id"] });
    let referred = response(&node, json!({ "input": [all[0], reference, all[2]] })).await;
    assert_eq!(referred["usage"]["input_tokens"], whole["usage"]["input_tokens"]);

    let missing = error(ask(&node, json!({ "previous_response_id": "resp_x" })).await, 404).await;
    assert_eq!(
        (&missing["param"], &missing["code"]),
        (&json!("previous_response_id"), &json!("previous_response_not_found"))
    );
    let reference = json!([{ "type": "item_reference", "id": "msg_x" }]);
    assert_eq!(error(ask(&node, json!({ "input": reference })).await, 404).await["param"], "input[0]");
}

#[tokio::test]
async fn kept_responses_are_shown_listed_and_forgotten() {
    let node = Node::start().await;
    let input = json!([{ "role": "user", "content": "a" }, { "role": "assistant", "content": "b" }, { "role": "user", "content": "c" }]);
    let made = response(&node, json!({ "input": input })).await;
    let path = format!("/v1/responses/{}", made["id"].as_str().unwrap());
    assert_eq!(get(&node, &path).await, made);
    assert_eq!(get(&node, &format!("{path}?include[]=reasoning.encrypted_content")).await, made);
    let texts = |list: &Value| -> String {
        list["data"].as_array().unwrap().iter().map(|item| item["content"][0]["text"].as_str().unwrap()).collect()
    };
    let page = get(&node, &format!("{path}/input_items?limit=2")).await;
    assert_eq!((texts(&page).as_str(), &page["has_more"], &page["object"]), ("cb", &json!(true), &json!("list")));
    let after = page["last_id"].as_str().unwrap();
    let rest = get(&node, &format!("{path}/input_items?limit=2&after={after}")).await;
    assert_eq!((texts(&rest).as_str(), &rest["has_more"]), ("a", &json!(false)));
    assert_eq!(texts(&get(&node, &format!("{path}/input_items?order=asc")).await), "abc");
    for (query, param) in [("limit=0", "limit"), ("order=up", "order"), ("after=x", "after"), ("page=2", "page")] {
        assert_eq!(error(node.get(&format!("{path}/input_items?{query}")).await, 400).await["param"], param);
    }
    assert_eq!(error(node.get(&format!("{path}?stream=true")).await, 400).await["param"], "stream");
    let cancelled = error(node.post(&format!("{path}/cancel"), "").await, 400).await;
    assert!(cancelled["message"].as_str().unwrap().contains("background"));
    let delete = async || node.client.delete(format!("{}{path}", node.url)).send().await.unwrap();
    let deleted: Value = delete().await.json().await.unwrap();
    assert_eq!(deleted, json!({ "id": made["id"], "object": "response", "deleted": true }));
    error(delete().await, 404).await;
    for path in [path.clone(), format!("{path}/input_items")] {
        let gone = error(node.get(&path).await, 404).await;
        assert_eq!(gone["type"], "invalid_request_error");
        assert!(gone["message"].as_str().unwrap().contains("not found"));
    }
    error(node.post(&format!("{path}/cancel"), "").await, 404).await;
}

#[tokio::test]
async fn what_is_cut_is_incomplete_and_what_is_too_long_is_refused_or_shortened() {
    let node = Node::start().await;
    let cut = response(&node, json!({ "input": "#LONG", "max_output_tokens": 16 })).await;
    assert_eq!(
        (&cut["status"], &cut["incomplete_details"]["reason"]),
        (&json!("incomplete"), &json!("max_output_tokens"))
    );
    let streamed = events(ask(&node, json!({ "input": "#LONG", "max_output_tokens": 16, "stream": true })).await).await;
    assert_eq!(streamed.last().unwrap()["type"], "response.incomplete");

    let long = "word ".repeat(1500);
    let turns: Vec<Value> =
        (0..6).map(|at| json!({ "role": if at % 2 == 0 { "user" } else { "assistant" }, "content": long })).collect();
    let input = json!([turns[0], turns[1], turns[2], turns[3], { "role": "user", "content": "say" }]);
    assert_eq!(error(ask(&node, json!({ "input": input })).await, 400).await["code"], "context_length_exceeded");
    let shortened = response(&node, json!({ "input": input, "truncation": "auto" })).await;
    assert!(shortened["usage"]["input_tokens"].as_u64().unwrap() < 4096);
    let hopeless = json!({ "input": "word ".repeat(5000), "truncation": "auto" });
    assert_eq!(error(ask(&node, hopeless).await, 400).await["code"], "context_length_exceeded");
}

#[tokio::test]
async fn errors_name_the_field_and_failures_are_told() {
    let node = Node::start().await;
    assert_eq!(error(ask(&node, json!({ "input": 5 })).await, 400).await["param"], "input");
    assert_eq!(error(ask(&node, json!({ "background": true })).await, 400).await["param"], "background");
    assert_eq!(error(ask(&node, json!({ "model": "gpt-9" })).await, 404).await["code"], "model_not_found");
    for stream in [false, true] {
        let busy = ask(&node, json!({ "input": "#BUSY", "stream": stream })).await;
        assert_eq!(busy.headers()["retry-after"], "2");
        error(busy, 429).await;
        error(ask(&node, json!({ "input": "#FAILFIRST", "stream": stream })).await, 500).await;
    }
    error(ask(&node, json!({ "input": "#FAILMID" })).await, 500).await;
    let broken = events(ask(&node, json!({ "input": "#FAILMID", "stream": true })).await).await;
    let last = broken.last().unwrap();
    assert_eq!((&last["type"], &last["response"]["status"]), (&json!("response.failed"), &json!("failed")));
    assert!(last["response"]["error"]["message"].as_str().unwrap().contains("in the middle"));
    let id = last["response"]["id"].as_str().unwrap();
    error(node.get(&format!("/v1/responses/{id}")).await, 404).await;
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_answer() {
    let node = Node::start().await;
    let mut stream = ask(&node, json!({ "input": "#LONG", "stream": true })).await.bytes_stream();
    stream.next().await.unwrap().unwrap();
    drop(stream);
    until("the dropped stream is cancelled", || node.engine.cancelled() == 1).await;
}

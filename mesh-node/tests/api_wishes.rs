//! What a request may wish for, over real sockets: several answers, likelihoods, forms, tools, tokens.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::Node;
use mesh_proto::{Constraint, Prompt, ToolChoice};
use serde_json::{Value, json};

/// The chunks of a stream, without the `[DONE]` that must end it.
fn chunks(text: &str) -> Vec<Value> {
    let events: Vec<&str> = text.split_terminator("\n\n").map(|e| e.strip_prefix("data: ").unwrap()).collect();
    let (done, chunks) = events.split_last().unwrap();
    assert_eq!(*done, "[DONE]");
    chunks.iter().map(|chunk| serde_json::from_str(chunk).unwrap()).collect()
}

async fn completion(node: &Node, fields: Value) -> reqwest::Response {
    let mut body = json!({ "model": "org/script", "max_tokens": 3, "temperature": 0 });
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    node.post("/v1/completions", body.to_string()).await
}

fn choices<'a>(body: &'a Value, pointer: &str) -> Vec<&'a str> {
    body["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| choice.pointer(pointer).unwrap().as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn several_answers_come_whole_or_interleaved_and_cost_the_prompt_once() {
    let node = Node::start().await;
    let wish = json!({ "n": 3, "temperature": 1, "seed": 7, "max_tokens": 20 });
    let body: Value = node.chat("#RANDOM", wish.clone()).await.json().await.unwrap();
    let said: Vec<String> = choices(&body, "/message/content").into_iter().map(str::to_owned).collect();
    assert_eq!(
        body["choices"].as_array().unwrap().iter().map(|c| c["index"].as_u64()).collect::<Vec<_>>(),
        [Some(0), Some(1), Some(2)]
    );
    let alone: Value =
        node.chat("#RANDOM", json!({ "temperature": 1, "seed": 8, "max_tokens": 20 })).await.json().await.unwrap();
    assert_eq!(said[1], choices(&alone, "/message/content")[0], "choice 1 has the seed behind");
    assert!(said[0] != said[1] && said[1] != said[2]);
    assert_eq!(body["usage"]["completion_tokens"], 60);
    assert_eq!(body["usage"]["prompt_tokens"], alone["usage"]["prompt_tokens"]);

    let mut wish = wish;
    wish["stream"] = true.into();
    wish["stream_options"] = json!({ "include_usage": true });
    let chunks = chunks(&node.chat("#RANDOM", wish).await.text().await.unwrap());
    let mut streamed = vec![String::new(); 3];
    let mut ends = [0; 3];
    for choice in chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap()) {
        let index = choice["index"].as_u64().unwrap() as usize;
        streamed[index] += choice["delta"]["content"].as_str().unwrap_or_default();
        ends[index] += usize::from(choice["finish_reason"].is_string());
    }
    assert_eq!((streamed, ends), (said, [1, 1, 1]));
    assert_eq!(chunks.last().unwrap()["usage"], body["usage"]);
}

#[tokio::test]
async fn prompts_times_answers_stand_in_order_with_their_echoes() {
    let node = Node::start().await;
    let wish = json!({ "prompt": ["a", "b:"], "n": 2, "echo": true });
    let body: Value = completion(&node, wish.clone()).await.json().await.unwrap();
    assert_eq!(
        choices(&body, "/text"),
        ["aThe quick brown", "aThe quick brown", "b: one two three", "b: one two three"]
    );
    assert_eq!(body["usage"]["completion_tokens"], 12);
    let tokens = json!({ "prompt": [[104, 105]], "echo": true });
    let body: Value = completion(&node, tokens).await.json().await.unwrap();
    assert_eq!(choices(&body, "/text"), ["hiThe quick brown"]);
    let mut wish = wish;
    wish["stream"] = true.into();
    let chunks = chunks(&completion(&node, wish).await.text().await.unwrap());
    let third: String = chunks
        .iter()
        .filter(|chunk| chunk["choices"][0]["index"] == 2)
        .filter_map(|chunk| chunk["choices"][0]["text"].as_str())
        .collect();
    assert_eq!(third, "b: one two three");
}

#[tokio::test]
async fn likelihoods_come_token_by_token_and_only_if_asked_for() {
    let node = Node::start().await;
    let body: Value = node.chat("say", json!({ "logprobs": true, "top_logprobs": 3 })).await.json().await.unwrap();
    let content = body["choices"][0]["logprobs"]["content"].as_array().unwrap();
    let joined: String = content.iter().map(|token| token["token"].as_str().unwrap()).collect();
    assert_eq!(joined, "The quick brown fox jumps over the lazy dog.");
    assert!(content.iter().all(|token| token["top_logprobs"].as_array().unwrap().len() == 3));
    let plain: Value = node.chat("say", json!({})).await.json().await.unwrap();
    assert!(plain["choices"][0]["logprobs"].is_null());

    let stream = json!({ "logprobs": true, "stream": true, "max_tokens": 3 });
    let chunks = chunks(&node.chat("say", stream).await.text().await.unwrap());
    let told = chunks.iter().filter_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array());
    assert_eq!(told.flatten().count(), 3);

    let legacy: Value = completion(&node, json!({ "prompt": "a", "logprobs": 2 })).await.json().await.unwrap();
    let told = &legacy["choices"][0]["logprobs"];
    assert_eq!(told["tokens"], json!(["The", " quick", " brown"]));
    assert_eq!(told["text_offset"], json!([0, 3, 9]));
    assert_eq!(
        (told["token_logprobs"].as_array().unwrap().len(), told["top_logprobs"][0]["The"].is_number()),
        (3, true)
    );
}

#[tokio::test]
async fn forms_and_choices_of_tools_reach_the_engine_and_come_back() {
    let node = Node::start().await;
    let format = json!({ "type": "json_schema", "json_schema": { "name": "r", "schema": { "type": "object" } } });
    let body: Value = node.chat("say", json!({ "response_format": format })).await.json().await.unwrap();
    let content = body["choices"][0]["message"]["content"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(content).unwrap()["answer"], 42);
    assert_eq!(node.engine.asked()[0].constraint, Some(Constraint::JsonSchema(r#"{"type":"object"}"#.into())));

    let tool = |name: &str| json!({ "type": "function", "function": { "name": name } });
    let tools = json!([tool("get_weather"), { "type": "web_search" }, tool("set_alarm")]);
    for (choice, called) in [(json!("required"), "get_weather"), (tool("set_alarm"), "set_alarm")] {
        let body: Value =
            node.chat("say", json!({ "tools": tools, "tool_choice": choice })).await.json().await.unwrap();
        assert_eq!(body["choices"][0]["message"]["tool_calls"][0]["function"]["name"], called);
        assert_eq!(body["choices"][0]["finish_reason"], "tool_calls");
    }
    let last = node.engine.asked().pop().unwrap();
    assert_eq!(last.tool_choice, ToolChoice::Named("set_alarm".into()));
    let Prompt::Chat(chat) = last.prompt else { panic!("no chat") };
    assert_eq!(chat.tools.len(), 2, "the service's tool is not offered");
    let one: Value =
        node.chat("#PARALLEL", json!({ "tools": tools, "parallel_tool_calls": false })).await.json().await.unwrap();
    assert_eq!(one["choices"][0]["message"]["tool_calls"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn tokens_are_told_and_read_as_llama_server_does() {
    let node = Node::start().await;
    let ask = async |path: &str, body: Value| {
        let response = node.post(path, body.to_string()).await;
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    let (_, told) = ask("/tokenize", json!({ "model": "other", "content": "hi" })).await;
    assert_eq!(told, json!({ "tokens": [104, 105] }));
    let (_, told) = ask("/tokenize", json!({ "model": "other", "content": "hi", "add_special": true })).await;
    assert_eq!(told, json!({ "tokens": [1, 104, 105] }));
    let (_, told) = ask("/tokenize", json!({ "model": "other", "content": "h", "with_pieces": true })).await;
    assert_eq!(told, json!({ "tokens": [{ "id": 104, "piece": "h" }] }));
    let (_, told) = ask("/detokenize", json!({ "model": "other", "tokens": [104, 105] })).await;
    assert_eq!(told, json!({ "content": "hi" }));
    for (path, body, status, param) in [
        ("/tokenize", json!({ "content": "x" }), 400, "model"),
        ("/tokenize", json!({ "model": "other" }), 400, "content"),
        ("/tokenize", json!({ "model": "other", "content": "x", "parse_special": false }), 400, "parse_special"),
        ("/tokenize", json!({ "model": "nope", "content": "x" }), 404, "model"),
        ("/detokenize", json!({ "model": "other", "tokens": [2000] }), 400, "tokens"),
        ("/detokenize", json!({ "model": "other", "tokens": [1], "special": 1 }), 400, "special"),
    ] {
        let (code, error) = ask(path, body).await;
        assert_eq!((code, error["error"]["param"].as_str()), (status, Some(param)), "{error}");
    }
}

#[tokio::test]
async fn usage_so_far_comes_with_every_chunk_if_asked_for() {
    let node = Node::start().await;
    let options = json!({ "include_usage": true, "continuous_usage_stats": true });
    let wish = json!({ "stream": true, "stream_options": options, "max_tokens": 3 });
    let chunks = chunks(&node.chat("say", wish).await.text().await.unwrap());
    let spent: Vec<u64> = chunks.iter().map(|c| c["usage"]["completion_tokens"].as_u64().unwrap()).collect();
    assert_eq!(spent, [0, 1, 2, 3, 3, 3]);
    assert!(chunks.iter().all(|chunk| chunk["usage"]["prompt_tokens"].as_u64().unwrap() > 0));
}

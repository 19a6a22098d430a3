//! llama-server's own routes, over real sockets: `/completion`, its fields and shapes, and counting.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::Node;
use mesh_proto::{Constraint, LogitBias, Prompt, TokenId};
use serde_json::{Value, json};

async fn ask(node: &Node, path: &str, body: Value) -> (u16, Value) {
    let response = node.post(path, body.to_string()).await;
    (response.status().as_u16(), response.json::<Value>().await.unwrap())
}

async fn completion(node: &Node, fields: Value) -> (u16, Value) {
    let mut body = json!({ "model": "other", "prompt": "say" });
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    ask(node, "/completion", body).await
}

#[tokio::test]
async fn a_completion_has_llama_servers_shape() {
    let node = Node::start().await;
    let wish = json!({ "n_predict": 3, "seed": 7, "temperature": 0.5, "return_tokens": true, "n_probs": 2, "cache_prompt": false });
    let (status, whole) = completion(&node, wish).await;
    assert_eq!(status, 200, "{whole}");
    assert_eq!((&whole["content"], &whole["stop_type"]), (&json!("The quick brown"), &json!("limit")));
    assert_eq!(
        (&whole["stop"], &whole["truncated"], &whole["has_new_line"]),
        (&json!(true), &json!(false), &json!(false))
    );
    assert_eq!((whole["tokens"].as_array().unwrap().len(), &whole["tokens_predicted"]), (3, &json!(3)));
    assert_eq!((&whole["prompt"], &whole["model"]), (&json!("say"), &json!("other")));
    let settings = &whole["generation_settings"];
    assert_eq!(
        (&settings["seed"], &settings["n_predict"], &settings["temperature"]),
        (&json!(7), &json!(3), &json!(0.5))
    );
    assert_eq!(settings["logit_bias"], json!([]));
    let told = whole["completion_probabilities"].as_array().unwrap();
    assert_eq!((told.len(), told[0]["top_logprobs"].as_array().unwrap().len()), (3, 2));
    assert!(told[0]["id"].is_u64() && told[0]["bytes"].is_array() && told[0]["logprob"].as_f64().unwrap() <= 0.0);
    let timings = whole["timings"].as_object().unwrap();
    assert!(timings.len() == 9 && timings.values().all(|value| value.as_f64().unwrap() >= 0.0), "{timings:?}");
    assert_eq!(timings["predicted_n"], 3);

    let (_, plain) = completion(&node, json!({ "stop": "fox" })).await;
    assert_eq!((&plain["content"], &plain["tokens"]), (&json!("The quick brown "), &json!([])));
    assert_eq!((&plain["stop_type"], &plain["stopping_word"]), (&json!("word"), &json!("fox")));
    assert!(plain.get("completion_probabilities").is_none());
    let (_, end) = completion(&node, json!({ "n_predict": -1 })).await;
    assert_eq!((&end["stop_type"], &end["generation_settings"]["n_predict"]), (&json!("eos"), &json!(-1)));
    let fields = json!(["content", "generation_settings/seed", "nothing"]);
    let (_, some) = completion(&node, json!({ "n_predict": 1, "seed": 5, "response_fields": fields })).await;
    assert_eq!(some, json!({ "content": "The", "generation_settings/seed": 5 }));
}

#[tokio::test]
async fn a_completion_streams_json_in_every_line() {
    let node = Node::start().await;
    let body = json!({ "model": "other", "prompt": ["say", "#JSON"], "stream": true, "n_predict": 4 });
    let text = node.post("/completion", body.to_string()).await.text().await.unwrap();
    let lines = text.split_terminator("\n\n").map(|line| line.strip_prefix("data: ").unwrap());
    let chunks: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    let said = |index: u64| -> String {
        chunks.iter().filter(|c| c["index"] == index).map(|c| c["content"].as_str().unwrap()).collect()
    };
    assert_eq!((said(0).as_str(), said(1).as_str()), ("The quick brown fox", r#"{"answer": 42, "ok": true"#));
    let (ends, others): (Vec<&Value>, Vec<&Value>) = chunks.iter().partition(|chunk| chunk["stop"] == true);
    assert_eq!(ends.len(), 2);
    assert!(ends.iter().all(|end| end["timings"]["predicted_n"] == 4 && end["stop_type"] == "limit"));
    assert!(others.iter().all(|chunk| !chunk["tokens"].as_array().unwrap().is_empty()), "{others:?}");
}

#[tokio::test]
async fn prompts_biases_and_forms_reach_the_engine() {
    let node = Node::start().await;
    let prompts = |node: &Node| -> Vec<Prompt> { node.engine.asked().into_iter().map(|asked| asked.prompt).collect() };
    let asked = async |prompt: Value| {
        let before = prompts(&node).len();
        let (status, said) =
            ask(&node, "/completion", json!({ "model": "org/script", "prompt": prompt, "n_predict": 1 })).await;
        assert_eq!(status, 200, "{said}");
        (said.is_array(), prompts(&node).split_off(before))
    };
    let tokens = |ids: &[u32]| Prompt::Tokens(ids.iter().map(|id| TokenId(*id)).collect());
    let text = |text: &str| Prompt::Text(text.to_owned());
    assert_eq!(asked(json!({ "prompt_string": "a" })).await, (false, vec![text("a")]));
    assert_eq!(asked(json!([5, 6])).await, (false, vec![tokens(&[5, 6])]));
    assert_eq!(asked(json!([5, "hi", 6])).await, (false, vec![tokens(&[5, 104, 105, 6])]));
    assert_eq!(
        asked(json!(["h", 6])).await,
        (false, vec![tokens(&[1, 104, 6])]),
        "a beginning before a text that comes first"
    );
    let (many, mut several) = asked(json!([[5, 6], "b", { "prompt_string": "c" }])).await;
    several.sort_by_key(|prompt| format!("{prompt:?}"));
    assert_eq!((many, several), (true, vec![text("b"), text("c"), tokens(&[5, 6])]));

    let wish = json!({ "model": "org/script", "prompt": "x", "n_predict": 1, "json_schema": { "const": 42 },
        "logit_bias": [[7, 1.5], ["hh", -2], [9, false]] });
    assert_eq!(ask(&node, "/completion", wish).await.0, 200);
    let last = node.engine.asked().pop().unwrap();
    assert_eq!(last.constraint, Some(Constraint::JsonSchema(r#"{"const":42}"#.to_owned())));
    let bias = |token: u32, bias: f32| LogitBias { token: TokenId(token), bias };
    assert_eq!(last.sampling.logit_bias, [bias(7, 1.5), bias(9, f32::NEG_INFINITY), bias(104, -4.0)]);
    let wish = json!({ "model": "org/script", "prompt": "x", "n_predict": 1, "logit_bias": { "7": 1, "h": -1 } });
    assert_eq!(ask(&node, "/completion", wish).await.0, 200);
    assert_eq!(node.engine.asked().pop().unwrap().sampling.logit_bias, [bias(7, 1.0), bias(104, -1.0)]);

    // Beside OpenAI's fields, too.
    let wish = json!({ "json_schema": { "type": "object" }, "id_slot": 0 });
    assert_eq!(node.chat("say", wish).await.status(), 200);
    let last = node.engine.asked().pop().unwrap();
    assert_eq!(last.constraint, Some(Constraint::JsonSchema(r#"{"type":"object"}"#.to_owned())));
    let wish = json!({ "model": "org/script", "prompt": "x", "n_predict": 2 });
    let (_, legacy) = ask(&node, "/v1/completions", wish).await;
    assert_eq!(legacy["usage"]["completion_tokens"], 2);
}

#[tokio::test]
async fn what_does_not_work_is_refused_by_name() {
    let node = Node::start().await;
    for (fields, param) in [
        (json!({ "model": null }), "model"),
        (json!({ "prompt": [] }), "prompt"),
        (json!({ "prompt": [[]] }), "prompt"),
        (json!({ "prompt": [5, [6]] }), "prompt"),
        (json!({ "prompt": [2000] }), "prompt"),
        (json!({ "prompt": { "prompt_string": "a", "multimodal_data": ["x"] } }), "prompt"),
        (json!({ "grammar": "root ::= \"a\"" }), "grammar"),
        (json!({ "json_schema": 123 }), "json_schema"),
        (json!({ "post_sampling_probs": true }), "post_sampling_probs"),
        (json!({ "timings_per_token": true }), "timings_per_token"),
        (json!({ "mirostat": 2 }), "mirostat"),
        (json!({ "n_probs": 21 }), "n_probs"),
        (json!({ "n_predict": -2 }), "n_predict"),
        (json!({ "logit_bias": [[2000, 1]] }), "logit_bias"),
        (json!({ "logit_bias": [[1, true]] }), "logit_bias"),
        (json!({ "samplers": ["top_k"] }), "samplers"),
    ] {
        let (status, said) = completion(&node, fields.clone()).await;
        let named = said["error"]["param"].as_str().unwrap_or_default();
        assert_eq!((status, named.starts_with(param)), (400, true), "{fields}: {said}");
    }
    let (status, said) = ask(&node, "/completion", json!({ "prompt": "x" })).await;
    assert_eq!((status, &said["error"]["param"]), (400, &json!("model")), "this node has two: {said}");
}

#[tokio::test]
async fn a_chats_tokens_are_counted() {
    let node = Node::start().await;
    let path = "/v1/chat/completions/input_tokens";
    let chat = json!({ "model": "other", "messages": [{ "role": "user", "content": "How are you?" }] });
    let (status, told) = ask(&node, path, chat.clone()).await;
    assert_eq!(status, 200, "{told}");
    let (_, answer) = ask(&node, "/v1/chat/completions", chat).await;
    assert_eq!(told["input_tokens"], answer["usage"]["prompt_tokens"]);
    let long = json!({ "model": "other", "messages": [{ "role": "user", "content": "a ".repeat(5000) }] });
    let (status, told) = ask(&node, path, long).await;
    assert!(status == 200 && told["input_tokens"].as_u64().unwrap() > 5000, "{told}");
    assert_eq!(ask(&node, path, json!({ "model": "other" })).await.0, 400);
}

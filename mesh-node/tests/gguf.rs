//! GGUF models as a person serves them: from the command line alone, with a real llama-server behind. Needs
//! `MESH_LLM_TEST_LLAMA_SERVER`, which `scripts/test` sets.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/binary.rs"]
mod binary;
#[path = "common/llama.rs"]
mod llama;

use std::time::{Duration, Instant};

use binary::{Home, Node, ended};
use llama::{gguf_tiny, llama_server, processes_with};
use serde_json::{Value, json};
use tokio::time::sleep;

/// llama-server and its guard, of this node and nobody else's.
fn children(node: &Node) -> Vec<(u32, String)> {
    let cache = node.home.path().join("cache").display().to_string();
    processes_with(&cache).into_iter().filter(|(_, line)| line.contains(".gguf")).collect()
}

async fn gone(node: &Node) -> Duration {
    let began = Instant::now();
    while !children(node).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(3), "{:?} is left", children(node));
        sleep(Duration::from_millis(20)).await;
    }
    began.elapsed()
}

async fn says(node: &Node, words: &str) -> String {
    let answer: Value = node.ask(words, json!({ "temperature": 0 })).await.json().await.unwrap();
    answer["choices"][0]["message"]["content"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

#[tokio::test]
async fn a_named_model_and_a_file_are_served_and_nothing_is_left_of_a_killed_node() {
    let Some(flags) = gguf_tiny() else { return };
    let mut node = Node::start_with(&flags).await;
    assert_eq!(says(&node, "What is 3 + 4?").await, "3 + 4 = 7.");
    let models: Value = reqwest::get(format!("{}/v1/models", node.url)).await.unwrap().json().await.unwrap();
    assert_eq!((&models["data"][0]["id"], &models["data"][0]["engine"]), (&json!("mesh-tiny"), &json!("gguf")));
    let ask = async |path: &str, body: Value| {
        let post = reqwest::Client::new().post(format!("{}{path}", node.url)).body(body.to_string());
        post.send().await.unwrap().json::<Value>().await.unwrap()
    };
    let told = ask("/tokenize", json!({ "content": "3 + 4 = 7", "with_pieces": true })).await;
    let pieces: String = told["tokens"].as_array().unwrap().iter().map(|t| t["piece"].as_str().unwrap()).collect();
    assert_eq!(pieces, "3 + 4 = 7");
    let ids: Vec<&Value> = told["tokens"].as_array().unwrap().iter().map(|token| &token["id"]).collect();
    assert_eq!(ask("/detokenize", json!({ "tokens": ids })).await, json!({ "content": "3 + 4 = 7" }));
    // Its own routes need no model's name where there is one.
    let chat = json!({ "messages": [{ "role": "user", "content": "What is 3 + 4?" }] });
    let prompt = ask("/apply-template", chat.clone()).await["prompt"].as_str().unwrap().to_owned();
    assert!(prompt.contains("user\nWhat is 3 + 4?") && prompt.contains("<|im_start|>assistant\n"), "{prompt:?}");
    let whole = ask("/completion", json!({ "prompt": prompt, "n_predict": 40, "temperature": 0 })).await;
    assert_eq!((&whole["content"], &whole["stop_type"]), (&json!("3 + 4 = 7."), &json!("eos")), "{whole}");
    assert_eq!(ask("/v1/chat/completions/input_tokens", chat).await["input_tokens"], whole["tokens_evaluated"]);
    assert_eq!(children(&node).len(), 2, "{:?}", children(&node));
    let secret = children(&node).iter().any(|(_, line)| line.contains("api-key"));
    assert!(!secret, "no key in anybody's arguments");
    node.child.kill().await.unwrap();
    gone(&node).await;

    // The same file under a path of its own.
    let home = Home::new();
    let file = home.path().join("my.gguf");
    let bundled = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/mesh-tiny/mesh-tiny.Q4_1.gguf");
    std::fs::copy(bundled, &file).unwrap();
    let server = llama_server().unwrap();
    let line = format!("--gguf-file {} --llama-server {} --ctx-size 1024", file.display(), server.display());
    let node = Node::start_with(&line).await;
    let models: Value = reqwest::get(format!("{}/v1/models", node.url)).await.unwrap().json().await.unwrap();
    let found = &models["data"][0];
    assert_eq!((&found["id"], &found["context_length"]), (&json!("my"), &json!(1024)));
    node.signal("INT").await;
    assert_eq!(node.end().await.code(), Some(0));
}

#[tokio::test]
async fn a_model_is_loaded_by_llama_server_and_unloading_ends_it() {
    let Some(_) = llama_server() else { return };
    let server = llama_server().unwrap();
    let node = Node::start_with(&format!("--llama-server {}", server.display())).await;
    let (code, _, stderr) = node.manage("load mesh-tiny").await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("--mlx") && stderr.contains("--gguf"), "{stderr}");
    let (code, stdout, stderr) = node.manage("load mesh-tiny --gguf").await;
    assert_eq!((code, stdout.as_str()), (Some(0), "mesh-tiny answers\n"), "{stderr}");
    assert_eq!(says(&node, "What is 3 + 4?").await, "3 + 4 = 7.");
    let (code, _, stderr) = node.manage("load mesh-tiny --mlx").await;
    assert_eq!(code, Some(1), "another one has its name: {stderr}");
    let (code, _, stderr) = node.manage("unload mesh-tiny").await;
    assert_eq!(code, Some(0), "{stderr}");
    gone(&node).await;
    let (code, _, stderr) = node.manage("load mesh-tiny").await;
    assert_eq!(code, Some(0), "it is on the shelf now: {stderr}");
    assert_eq!(says(&node, "What is 3 + 4?").await, "3 + 4 = 7.");
}

#[tokio::test]
async fn a_node_without_a_llama_server_says_where_to_get_one() {
    let (code, stderr) = ended("--model mesh-tiny --gguf --no-console --port 0 --llama-server /nowhere/llama").await;
    assert_eq!(code, Some(1), "{stderr}");
    let last = stderr.lines().last().unwrap();
    assert!(last.contains("/nowhere/llama") && last.contains("--llama-server"), "{stderr}");
}

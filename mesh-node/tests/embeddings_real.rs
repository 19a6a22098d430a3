//! Embeddings and rerankings of real models, by real processes: both engines, one node and a mesh of them.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/llama.rs"]
mod llama;
mod mesh_support;
#[path = "../../runtime-gguf-bridge/tests/pool_support/mod.rs"]
mod pool_support;

use std::{collections::BTreeMap, fs, path::Path};

use llama::llama_server;
use mesh_support::*;
use pool_support::{Pooled, with_numbers, write_bert};
use serde_json::{Value, json};

const TINY: &str = "--model mesh-tiny --mlx";

async fn post(node: &Node, path: &str, body: Value) -> (u16, Value) {
    let response = node.post(path, &body).await;
    (response.status().as_u16(), response.json().await.unwrap())
}

fn vector(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

async fn embed(node: &Node, model: &str, input: Value) -> Vec<Vec<f64>> {
    let (status, answer) = post(node, "/v1/embeddings", json!({ "model": model, "input": input })).await;
    assert_eq!(status, 200, "{}: {answer}", node.name);
    answer["data"].as_array().unwrap().iter().map(|row| vector(&row["embedding"])).collect()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

async fn capabilities(node: &Node, model: &str) -> Vec<String> {
    let told: Value = reqwest::get(format!("{}/v1/models/{model}", node.api)).await.unwrap().json().await.unwrap();
    told["capabilities"].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_chat_models_texts_are_embedded_at_every_door_while_it_answers_and_after_its_host_is_gone() {
    let farm = Farm::new();
    let mut a = farm.found("a", TINY).await;
    let b = farm.join("b", TINY).await;
    let door = farm.join("door", "client").await;
    door.lists(&[("mesh-tiny", 2)]).await;
    let texts: Vec<String> = (0..40).map(|at| format!("{}the capital of France {at}", "so ".repeat(at))).collect();
    let chat = door.stream(&long_chat(300, None)).await;
    let (chat, all) = tokio::join!(chat.whole(), embed(&door, "mesh-tiny", json!(texts)));
    assert_eq!((chat.finish.as_deref(), chat.error.clone()), (Some("length"), None), "an answer goes on beside it");
    for at in [0, 17, 39] {
        for node in [&a, &b] {
            let alone = embed(node, "mesh-tiny", json!(texts[at])).await.remove(0);
            assert!(cosine(&alone, &all[at]) > 1.0 - 1e-6, "text {at} at {}", node.name);
            assert!((cosine(&alone, &alone) - 1.0).abs() < 1e-9);
            let length: f64 = alone.iter().map(|value| value * value).sum();
            assert!((length - 1.0).abs() < 1e-5, "{length}");
        }
    }
    assert!(cosine(&all[0], &all[39]) < 0.9999, "other texts, other vectors");
    assert!(capabilities(&door, "mesh-tiny").await.contains(&"embeddings".to_owned()));
    let body = json!({ "model": "mesh-tiny", "query": "a", "documents": ["b"] });
    let (status, answer) = post(&door, "/v1/rerank", body).await;
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("model")), "{answer}");

    // One host dies while it is asked again and again: nobody notices.
    let asking = async {
        for text in &texts {
            let again = embed(&door, "mesh-tiny", json!(text)).await.remove(0);
            assert_eq!(again.len(), all[0].len());
        }
    };
    let dying = async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        a.kill().await;
    };
    tokio::join!(asking, dying);
    let again = embed(&door, "mesh-tiny", json!(texts)).await;
    assert!(again.iter().zip(&all).all(|(a, b)| cosine(a, b) > 1.0 - 1e-6));
}

/// A folder as sentence-transformers writes it: the last token's state, of unit length.
fn write_modules(dir: &Path) {
    let module = |path: &str, kind: &str| json!({"path": path, "type": format!("sentence_transformers.models.{kind}")});
    let modules = [module("", "Transformer"), module("1_Pooling", "Pooling"), module("2_Normalize", "Normalize")];
    fs::write(dir.join("modules.json"), json!(modules).to_string()).unwrap();
    fs::create_dir(dir.join("1_Pooling")).unwrap();
    let pooling = json!({"pooling_mode_lasttoken": true, "pooling_mode_mean_tokens": false});
    fs::write(dir.join("1_Pooling/config.json"), pooling.to_string()).unwrap();
}

#[tokio::test]
async fn one_models_vectors_are_the_same_from_both_engines_and_it_answers_no_prompts() {
    let Some(server) = llama_server() else { return };
    let farm = Farm::new();
    let folder = farm.other_model("tiny-mlx");
    write_modules(&folder);
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/mesh-tiny/mesh-tiny.Q4_1.gguf");
    let file = farm.path("tiny-gguf.gguf");
    let key = catalog::gguf::read(&tiny).unwrap().own_key("pooling_type");
    with_numbers(&tiny, &file, &BTreeMap::from([(key.as_str(), 3)]));
    let a = farm.found("a", &format!("serve --mlx-file {}", folder.display())).await;
    let line = format!(
        "serve --gguf-file {} --llama-server {} --llama-arg=-t --llama-arg=1",
        file.display(),
        server.display()
    );
    let b = farm.join("b", &line).await;
    let door = farm.join("door", "client").await;
    door.lists(&[("tiny-gguf", 1), ("tiny-mlx", 1)]).await;
    for text in ["What is the capital of France?", "3 + 4"] {
        let (_, tokens) = post(&a, "/tokenize", json!({ "model": "tiny-mlx", "content": text })).await;
        let mlx = embed(&door, "tiny-mlx", tokens["tokens"].clone()).await.remove(0);
        let gguf = embed(&door, "tiny-gguf", tokens["tokens"].clone()).await.remove(0);
        assert_eq!(mlx.len(), gguf.len());
        assert!(cosine(&mlx, &gguf) > 0.995, "{}", cosine(&mlx, &gguf));
    }
    for model in ["tiny-mlx", "tiny-gguf"] {
        assert_eq!(capabilities(&door, model).await, ["embeddings"]);
        let body = json!({ "model": model, "messages": [{ "role": "user", "content": "hello" }] });
        let (status, answer) = post(&door, "/v1/chat/completions", body).await;
        assert_eq!((status, &answer["error"]["param"]), (400, &json!("model")), "{answer}");
        let long = json!({ "model": model, "input": "hello ".repeat(30_000) });
        let (status, answer) = post(&door, "/v1/embeddings", long).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &json!("context_length_exceeded")), "{answer}");
    }
    assert_eq!(b.models().await.len(), 2);
}

#[tokio::test]
async fn a_reranker_in_llama_server_ranks_for_a_door() {
    let Some(server) = llama_server() else { return };
    let farm = Farm::new();
    let file = farm.path("ranker.gguf");
    write_bert(&file, Pooled::Rank);
    let line = format!(
        "serve --gguf-file {} --llama-server {} --llama-arg=-t --llama-arg=1",
        file.display(),
        server.display()
    );
    let host = farm.found("host", &line).await;
    let door = farm.join("door", "client").await;
    door.lists(&[("ranker", 1)]).await;
    assert_eq!(capabilities(&door, "ranker").await, ["rerank"]);
    let documents = ["blue sky", "red sea", "grey"];
    let body = json!({ "model": "ranker", "query": "sky?", "documents": documents, "return_documents": true });
    let (status, there) = post(&door, "/v1/rerank", body.clone()).await;
    assert_eq!(status, 200, "{there}");
    let (_, here) = post(&host, "/rerank", body).await;
    assert_eq!(there["results"], here["results"]);
    let scores: Vec<f64> =
        there["results"].as_array().unwrap().iter().map(|r| r["relevance_score"].as_f64().unwrap()).collect();
    assert!(scores.len() == 3 && scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    assert!(scores.iter().all(|score| (0.0..=1.0).contains(score)));
    let (status, answer) = post(&door, "/v1/embeddings", json!({ "model": "ranker", "input": "a" })).await;
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("model")), "{answer}");
}

//! A mesh downloads a model once: real nodes, a hub of our own that counts its bytes, and sources that die.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "tests")]

mod mesh_support;

use std::{path::PathBuf, time::Duration};

use mesh_support::{Farm, Node, PATIENCE};
use serde_json::{Value, json};
use test_hub::{Content, Hub, Repo, RunningHub};
use tokio::time::{sleep, timeout};

/// Bytes of a file that comes with the model and is not needed to serve it: long enough to die in the middle of it.
const LARGE: u64 = 192 << 20;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models/mesh-tiny")
}

/// The bundled model, as somebody's repository.
fn tiny(name: &str) -> Repo {
    let read = |name: &str| std::fs::read(folder().join(name)).unwrap();
    let mut repo = Repo::new(name);
    for file in
        ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"]
    {
        repo = repo.file(file, read(file));
    }
    // Another model than the bundled one, which each node has.
    let changed = [read("generation_config.json"), b"\n".to_vec()].concat();
    let repo = repo.file("generation_config.json", changed);
    repo.lfs("model.safetensors", Content::file(folder().join("model.safetensors")).unwrap())
}

fn large(name: &str) -> Repo {
    tiny(name).lfs("tokenizer.model", Content::generated(7, LARGE))
}

fn farm(hub: &RunningHub) -> Farm {
    Farm { hub: Some(hub.url().to_owned()), ..Farm::new() }
}

/// Bytes of everything that a node downloads of the model.
fn all_bytes() -> u64 {
    let files = [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
        "chat_template.jinja",
        "model.safetensors",
    ];
    files.into_iter().map(|file| std::fs::metadata(folder().join(file)).unwrap().len()).sum::<u64>() + 1
}

async fn answers(node: &Node) {
    let body =
        json!({ "model": "tiny", "messages": [{ "role": "user", "content": "What is 3 + 4?" }], "temperature": 0 });
    let asked = async {
        loop {
            let answer: Value = node.post("/v1/chat/completions", &body).await.json().await.unwrap();
            // The nodes are agreeing on who serves it.
            if answer["error"]["code"] != "unavailable" {
                return answer;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    let answer = timeout(PATIENCE, asked).await.expect("an answer in time");
    assert_eq!(answer["choices"][0]["message"]["content"], "3 + 4 = 7.", "{}: {answer}", node.name);
}

/// Waits until a counter stands at least so high.
async fn counts(node: &Node, label: &str, least: u64) {
    let reached = async {
        while node.counter(label).await < least {
            sleep(Duration::from_millis(5)).await;
        }
    };
    if timeout(PATIENCE, reached).await.is_err() {
        panic!("{}: {label} is {}, not {least}; {:#?}", node.name, node.counter(label).await, node.lines());
    }
}

#[tokio::test]
async fn three_nodes_one_after_the_other_ask_the_hub_for_each_byte_once() {
    let hub = Hub::new().repo(tiny("org/tiny")).start().unwrap();
    let farm = farm(&hub);
    let one = farm.found("one", "--model org/tiny --mlx").await;
    assert_eq!(hub.content_bytes_sent(), all_bytes());
    let mut two = farm.join("two", "--model org/tiny --mlx").await;
    two.line_with("from the mesh").await;
    let three = farm.join("three", "--model org/tiny --mlx").await;
    assert_eq!(hub.content_bytes_sent(), all_bytes(), "the hub gave each byte once");
    for node in [&one, &two, &three] {
        answers(node).await;
    }
    for node in [&two, &three] {
        assert_eq!(node.counter("files_bytes_received").await, all_bytes(), "{}", node.name);
    }
    let sent = one.counter("files_bytes_sent").await + two.counter("files_bytes_sent").await;
    assert!(sent > 2 * all_bytes(), "the bytes, and hashes beside them: {sent}");
    // What came from the mesh lies in the hub's cache as if it had come from there.
    let blobs = farm.path("hf-three/hub/models--org--tiny/blobs");
    let names: Vec<String> =
        std::fs::read_dir(&blobs).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.len() == 6 && names.iter().all(|name| !name.contains('.')), "{names:?}");
}

#[tokio::test]
async fn three_nodes_at_once_ask_the_hub_for_each_byte_once() {
    let hub = Hub::new().repo(tiny("org/tiny")).throttle(Some(200_000)).start().unwrap();
    let farm = farm(&hub);
    let line = format!("--model org/tiny --mlx --mesh-name test --ticket-file {}", farm.ticket().display());
    let one = farm.begin("one", &line);
    farm.has_ticket().await;
    let line = format!("--model org/tiny --mlx --join-file {}", farm.ticket().display());
    let (two, three) = (farm.begin("two", &line), farm.begin("three", &line));
    let (one, two, three) = tokio::join!(one.ready(), two.ready(), three.ready());
    assert_eq!(hub.content_bytes_sent(), all_bytes(), "the hub gave each byte once");
    for node in [&one, &two, &three] {
        answers(node).await;
    }
    assert!(two.counter("files_bytes_received").await + three.counter("files_bytes_received").await > 0);
}

#[tokio::test]
async fn a_source_that_dies_midway_is_replaced_by_another_one() {
    let hub = Hub::new().repo(large("org/tiny")).start().unwrap();
    let farm = farm(&hub);
    let mut one = farm.found("one", "--model org/tiny --mlx").await;
    let two = farm.join("two", "--model org/tiny --mlx").await;
    let whole = all_bytes() + LARGE;
    assert_eq!(hub.content_bytes_sent(), whole);
    let before = one.counter("files_bytes_sent").await;
    let line = format!("--model org/tiny --mlx --join-file {}", farm.ticket().display());
    let mut three = farm.begin("three", &line);
    three.up().await;
    counts(&one, "files_bytes_sent", before + (8 << 20)).await;
    one.kill().await;
    let here = three.counter("files_bytes_received").await;
    assert!(here < whole, "in the middle: {here}");
    let three = three.ready().await;
    answers(&three).await;
    assert_eq!(hub.content_bytes_sent(), whole, "the hub gave each byte once");
    let received = three.counter("files_bytes_received").await;
    assert!(received < whole + (40 << 20), "what had come was kept: {received}");
    answers(&two).await;
}

#[tokio::test]
async fn where_the_only_source_dies_midway_one_node_asks_the_hub_for_the_rest() {
    let hub = Hub::new().repo(large("org/tiny")).start().unwrap();
    let farm = farm(&hub);
    let mut one = farm.found("one", "--model org/tiny --mlx").await;
    assert_eq!(hub.bytes_sent("tokenizer.model"), LARGE);
    let line = format!("--model org/tiny --mlx --join-file {}", farm.ticket().display());
    let (mut two, mut three) = (farm.begin("two", &line), farm.begin("three", &line));
    two.up().await;
    three.up().await;
    for node in [&two, &three] {
        counts(node, "files_bytes_received", 8 << 20).await;
    }
    one.kill().await;
    let (two, three) = tokio::join!(two.ready(), three.ready());
    for node in [&two, &three] {
        answers(node).await;
    }
    let again = hub.bytes_sent("tokenizer.model") - LARGE;
    // What a killed connection had under way was counted, and did not arrive.
    assert!(again < LARGE, "one of the two asked for the rest: {again} of {LARGE}");
    let swapped = two.counter("files_bytes_sent").await.max(three.counter("files_bytes_sent").await);
    assert!(swapped > 0, "and gave it to the other");
}

#[tokio::test]
async fn a_node_that_is_killed_midway_goes_on_where_it_was() {
    let hub = Hub::new().repo(large("org/tiny")).start().unwrap();
    let farm = farm(&hub);
    let one = farm.found("one", "--model org/tiny --mlx").await;
    let line = format!("--model org/tiny --mlx --join-file {}", farm.ticket().display());
    let mut two = farm.begin("two", &line);
    two.up().await;
    counts(&one, "files_bytes_sent", 96 << 20).await;
    two.kill().await;
    let before = one.counter("files_bytes_sent").await;
    let two = two.again(&farm).await;
    answers(&two).await;
    let received = two.counter("files_bytes_received").await;
    // What was under way when it was killed, on both sides' way to the network and from it, comes again.
    assert!(received + before < LARGE + all_bytes() + (64 << 20), "{received} after {before}");
    assert_eq!(hub.content_bytes_sent(), LARGE + all_bytes(), "the hub gave each byte once");
}

#[tokio::test]
async fn a_node_that_shares_nothing_is_not_asked() {
    let hub = Hub::new().repo(tiny("org/tiny")).start().unwrap();
    let farm = farm(&hub);
    let one = farm.found("one", "--model org/tiny --mlx --no-share").await;
    let two = farm.join("two", "--model org/tiny --mlx").await;
    assert_eq!(hub.content_bytes_sent(), 2 * all_bytes());
    assert_eq!(one.counter("files_bytes_sent").await, 0);
    answers(&two).await;
    // Offline, nobody says which files a model has, and nobody is asked for any.
    let line = format!("--model org/tiny --mlx --offline --join-file {}", farm.ticket().display());
    let mut three = farm.begin("three", &line);
    three.line_with("offline: ").await;
    assert!(!timeout(PATIENCE, three.child.wait()).await.unwrap().unwrap().success());
    assert_eq!(two.counter("files_bytes_sent").await, 0);
}

//! The binary as a person or a service manager runs it: exit codes, its lines, its signals.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/binary.rs"]
mod binary;

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use binary::{Home, Node, ended};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

#[tokio::test]
async fn what_cannot_be_served_is_one_line_and_exit_code_1() {
    let temp = tempfile::tempdir().unwrap();
    let empty = temp.path().display();
    let broken = temp.path().join("broken");
    std::fs::create_dir(&broken).unwrap();
    std::fs::write(broken.join("config.json"), "{").unwrap();
    std::fs::write(broken.join("model.safetensors"), "").unwrap();
    for (line, said) in [
        (format!("--mlx-file {empty}"), "no config.json in this folder"),
        (format!("--mlx-file {empty}/nothing"), "no such file or folder"),
        ("--model no-such-model --mlx".into(), "no model called no-such-model"),
        ("--model mesh-tiny --model mesh-tiny --mlx".into(), "two models would be called mesh-tiny"),
        (format!("--port 0 --mlx-file {}", broken.display()), "config.json: not valid JSON"),
        ("--model mesh-tiny --mlx --host 192.0.2.1".into(), "cannot listen on 192.0.2.1:9337"),
    ] {
        let (code, stderr) = ended(&format!("{line} --no-console")).await;
        assert_eq!((code, stderr.lines().count()), (Some(1), 1), "{line}: {stderr}");
        assert!(stderr.starts_with("mesh-llm: ") && stderr.contains(said), "{line}: {stderr}");
    }
}

#[tokio::test]
async fn a_model_that_does_not_load_ends_the_node_with_the_reason() {
    let temp = tempfile::tempdir().unwrap();
    let foreign = temp.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("config.json"), r#"{"model_type":"nobody-knows"}"#).unwrap();
    let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let weights = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat();
    std::fs::write(foreign.join("model.safetensors"), weights).unwrap();
    let (code, stderr) = ended(&format!("--port 0 --console 0 --mlx-file {}", foreign.display())).await;
    assert_eq!(code, Some(1));
    let last = stderr.lines().last().unwrap();
    assert!(last.starts_with("mesh-llm: foreign: ") && last.contains("nobody-knows"), "{stderr}");
    assert!(
        stderr.contains("mesh-llm: API at http://127.0.0.1:") && stderr.contains(", loading foreign\n"),
        "{stderr}"
    );
}

#[tokio::test]
async fn a_taken_port_is_one_line_and_exit_code_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (code, stderr) = ended(&format!("--model mesh-tiny --mlx --no-console --port {}", address.port())).await;
    let said = format!(
        "mesh-llm: cannot listen on {address}: address in use (another mesh-llm? try --port 0 or another number)\n"
    );
    assert_eq!((code, stderr), (Some(1), said));
}

#[tokio::test]
async fn usage_errors_are_exit_code_2() {
    for line in ["--gguf", "--model mesh-tiny --mlx --join x", "client", "ticket", "--no-such-flag"] {
        let (code, stderr) = ended(line).await;
        assert_eq!(code, Some(2), "{line}: {stderr}");
    }
}

#[tokio::test]
async fn a_model_of_two_formats_is_refused_with_both() {
    let (code, stderr) = ended("--model mesh-tiny").await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("--mlx") && stderr.contains("--gguf") && stderr.lines().count() == 1, "{stderr}");
}

#[tokio::test]
async fn the_bundled_model_answers_and_a_signal_ends_the_node_well() {
    let node = Node::start("--log-format json").await;
    let answer: serde_json::Value = node.ask("What is 3 + 4?", json!({ "temperature": 0 })).await.json().await.unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], "3 + 4 = 7.");
    node.signal("TERM").await;
    assert_eq!(node.end().await.code(), Some(0));
}

#[tokio::test]
async fn the_first_signal_lets_an_answer_end() {
    let node = Node::start("").await;
    let story = node.ask("Tell me a long story.", json!({ "stream": true })).await;
    node.signal("INT").await;
    assert!(story.text().await.unwrap().ends_with("data: [DONE]\n\n"));
    assert_eq!(node.end().await.code(), Some(0));
}

#[tokio::test]
async fn the_second_signal_does_not_wait() {
    let node = Node::start("").await;
    let endless = node.ask("Tell me a long story.", json!({ "stream": true, "ignore_eos": true })).await;
    assert_eq!(endless.status(), 200);
    node.signal("INT").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let asked = Instant::now();
    node.signal("INT").await;
    let code = node.end().await.code();
    assert_eq!(code, Some(1));
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn the_api_is_there_before_the_model_and_says_so() {
    let node = Node::start("").await;
    assert_eq!(node.ready, "  (models: mesh-tiny)");
    let place = |start: &str| node.said.iter().position(|note| note.starts_with(start));
    assert!(place("mesh-llm: console at http://127.0.0.1:").is_some(), "{:?}", node.said);
    assert_eq!(node.said.last().unwrap(), &format!("mesh-llm: API at {}/v1, loading mesh-tiny", node.url));
}

#[tokio::test]
async fn a_node_without_a_model_is_ready_at_once() {
    let began = Instant::now();
    let node = Node::start_with("").await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(node.ready, "  (models: none yet)");
    let models: serde_json::Value =
        reqwest::get(format!("{}/v1/models", node.url)).await.unwrap().json().await.unwrap();
    assert_eq!(models["data"], json!([]));
    assert_eq!(node.ask("Hello", json!({})).await.status(), 404);
    node.signal("TERM").await;
    assert_eq!(node.end().await.code(), Some(0));
}

/// A node that loads mesh-tiny, at the moment when its API is there; and the API's address.
async fn loading(home: &Home) -> (Child, String) {
    let mut command = home.command("--model mesh-tiny --mlx --port 0 --no-console");
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut notes = BufReader::new(child.stderr.take().unwrap()).lines();
    loop {
        let note = timeout(Duration::from_secs(20), notes.next_line()).await.unwrap().unwrap().unwrap();
        if let Some(place) = note.strip_prefix("mesh-llm: API at ") {
            let url = place.strip_suffix(", loading mesh-tiny").unwrap().to_owned();
            // Nobody may hang up on it while it writes.
            tokio::spawn(async move { while let Ok(Some(_)) = notes.next_line().await {} });
            return (child, url);
        }
    }
}

#[tokio::test]
async fn who_asks_for_a_model_that_is_loading_is_answered_or_told_to_wait() {
    let home = Home::new();
    let (_child, url) = loading(&home).await;
    assert_eq!(reqwest::get(url.replace("/v1", "/health")).await.unwrap().status(), 200);
    let body = json!({ "model": "mesh-tiny", "messages": [{ "role": "user", "content": "Hello" }] });
    let asked = reqwest::Client::new().post(format!("{url}/chat/completions")).json(&body).send().await.unwrap();
    match asked.status().as_u16() {
        200 => {}
        503 => assert!(asked.headers().contains_key("retry-after")),
        other => panic!("{other}: {}", asked.text().await.unwrap()),
    }
}

#[tokio::test]
async fn a_signal_while_a_model_loads_ends_the_node() {
    let home = Home::new();
    let (mut child, _) = loading(&home).await;
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-s", "INT", &pid]).status().await.unwrap().success());
    let asked = Instant::now();
    let status = timeout(Duration::from_secs(20), child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_taken_usual_console_port_is_said_and_gone_without() {
    // If this fails somebody else has it, which is as good.
    let _taken = std::net::TcpListener::bind("127.0.0.1:3131");
    let home = Home::new();
    let mut child = home.command("serve --port 0").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut notes = BufReader::new(child.stderr.take().unwrap()).lines();
    let note = timeout(Duration::from_secs(20), notes.next_line()).await.unwrap().unwrap().unwrap();
    assert!(note.starts_with("mesh-llm: going on without the console: cannot listen on 127.0.0.1:3131"), "{note}");
    let ready = timeout(Duration::from_secs(20), lines.next_line()).await.unwrap().unwrap().unwrap();
    assert!(ready.starts_with("mesh-llm ready: "), "{ready}");
}

//! The binary as a person or a service manager runs it: exit codes, its lines, its signals.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

fn command(cache: &tempfile::TempDir, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-llm"));
    command.args(line.split_whitespace()).env("MESH_LLM_CACHE", cache.path()).env_remove("MESH_LLM_API_KEY");
    command.env_remove("MESH_LLM_LOG").env_remove("RUST_LOG").stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// What it says on standard error when it ends by itself, and its exit code.
async fn ended(line: &str) -> (Option<i32>, String) {
    let cache = tempfile::tempdir().unwrap();
    let output = timeout(Duration::from_secs(20), command(&cache, line).output()).await.unwrap().unwrap();
    assert!(output.stdout.is_empty(), "{line}");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

struct Node {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    url: String,
    _cache: tempfile::TempDir,
}

impl Node {
    async fn start(flags: &str) -> Self {
        let cache = tempfile::tempdir().unwrap();
        let line = format!("--model mesh-tiny --mlx --port 0 {flags}");
        let mut child = command(&cache, &line).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = timeout(Duration::from_secs(60), lines.next_line()).await.unwrap().unwrap().unwrap();
        let url = ready.strip_prefix("mesh-llm ready: ").unwrap().strip_suffix("/v1  (models: mesh-tiny)").unwrap();
        Self { child, url: url.to_owned(), lines, _cache: cache }
    }

    async fn ask(&self, words: &str, fields: serde_json::Value) -> reqwest::Response {
        let mut body = json!({ "model": "mesh-tiny", "messages": [{ "role": "user", "content": words }] });
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let post = reqwest::Client::new().post(format!("{}/v1/chat/completions", self.url));
        post.body(body.to_string()).send().await.unwrap()
    }

    async fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().await.unwrap().success());
    }

    async fn end(mut self) -> ExitStatus {
        let status = timeout(Duration::from_secs(40), self.child.wait()).await.unwrap().unwrap();
        let mut rest = String::new();
        self.lines.into_inner().read_to_string(&mut rest).await.unwrap();
        assert!(rest.starts_with("try: curl http://"), "{rest}");
        status
    }
}

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
        ("--model some-org/some-model --mlx".into(), "downloads come later"),
        ("--model mesh-tiny --model mesh-tiny --mlx".into(), "two models would be called mesh-tiny"),
        ("--model mesh-tiny --mlx --host 192.0.2.1".into(), "cannot listen on 192.0.2.1:9337"),
    ] {
        let (code, stderr) = ended(&line).await;
        assert_eq!((code, stderr.lines().count()), (Some(1), 1), "{line}: {stderr}");
        assert!(stderr.starts_with("mesh-llm: ") && stderr.contains(said), "{line}: {stderr}");
    }
    // Found, and then not readable: some lines of progress come first.
    let (code, stderr) = ended(&format!("--port 0 --mlx-file {}", broken.display())).await;
    assert_eq!(code, Some(1));
    assert!(stderr.lines().last().unwrap().starts_with("mesh-llm: broken: "), "{stderr}");
}

#[tokio::test]
async fn a_taken_port_is_one_line_and_exit_code_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (code, stderr) = ended(&format!("--model mesh-tiny --mlx --port {}", address.port())).await;
    let said = format!(
        "mesh-llm: cannot listen on {address}: address in use (another mesh-llm? try --port 0 or another number)\n"
    );
    assert_eq!((code, stderr), (Some(1), said));
}

#[tokio::test]
async fn usage_errors_are_exit_code_2() {
    for line in ["", "--model mesh-tiny", "--model mesh-tiny --mlx --join x", "status"] {
        let (code, stderr) = ended(line).await;
        assert_eq!(code, Some(2), "{line}: {stderr}");
    }
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

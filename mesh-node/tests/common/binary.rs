//! The binary as a person or a service manager runs it, each with folders of its own.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::{
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout, Command},
    time::timeout,
};

/// Cache and state of one node.
pub struct Home(tempfile::TempDir);

impl Home {
    pub fn new() -> Self {
        mesh_node::choose_tls();
        Self(tempfile::tempdir().unwrap())
    }

    pub fn state(&self) -> PathBuf {
        self.0.path().join("state")
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-llm"));
        command.args(line.split_whitespace()).stdin(Stdio::null()).kill_on_drop(true);
        for name in ["MESH_LLM_API_KEY", "MESH_LLM_JOIN", "MESH_LLM_LOG", "RUST_LOG"] {
            command.env_remove(name);
        }
        // No test asks the hub that everybody means.
        command.env("HF_ENDPOINT", "http://127.0.0.1:9").env("HF_HOME", self.0.path().join("hf"));
        for name in ["HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HF_HUB_OFFLINE"] {
            command.env_remove(name);
        }
        command.env("MESH_LLM_CACHE", self.0.path().join("cache")).env("MESH_LLM_STATE", self.state());
        command
    }

    /// Exit code, standard output and standard error of what ends by itself.
    pub async fn run(&self, line: &str) -> (Option<i32>, String, String) {
        let output = timeout(Duration::from_secs(60), self.command(line).output()).await.unwrap().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }
}

/// Exit code and standard error of a node that ends by itself.
pub async fn ended(line: &str) -> (Option<i32>, String) {
    let (code, stdout, stderr) = Home::new().run(line).await;
    assert!(stdout.is_empty(), "{line}");
    (code, stderr)
}

/// A running node.
pub struct Node {
    pub child: Child,
    pub home: Home,
    /// Where its API is, without `/v1`.
    pub url: String,
    /// Where its management API is.
    pub console: String,
    /// What stands behind the URL in its first line of output.
    pub ready: String,
    /// What it said on standard error until then.
    pub said: Vec<String>,
    lines: Lines<BufReader<ChildStdout>>,
    notes: Lines<BufReader<ChildStderr>>,
}

impl Node {
    /// A node that serves mesh-tiny.
    pub async fn start(flags: &str) -> Self {
        Self::start_with(&format!("--model mesh-tiny --mlx {flags}")).await
    }

    pub async fn start_with(flags: &str) -> Self {
        Self::start_in(Home::new(), flags, &[]).await
    }

    pub async fn start_in(home: Home, flags: &str, variables: &[(&str, &str)]) -> Self {
        let line = format!("serve --port 0 --console 0 {flags}");
        let mut command = home.command(&line);
        command.envs(variables.iter().copied());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut notes = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let patience = Duration::from_secs(60);
        // It writes on both at its own pace; what it says on one before the other is read there.
        while !said.iter().any(|note: &String| note.starts_with("mesh-llm: API at ")) {
            let note = timeout(patience, notes.next_line()).await.unwrap().unwrap();
            said.push(note.unwrap_or_else(|| panic!("it ended: {said:?}")));
        }
        let ready = timeout(patience, lines.next_line()).await.unwrap().unwrap().unwrap();
        let (url, ready) = ready.strip_prefix("mesh-llm ready: ").unwrap().split_once("/v1").unwrap();
        let console = said.iter().find_map(|note| note.strip_prefix("mesh-llm: console at ")).unwrap_or_default();
        let (url, ready, console) = (url.to_owned(), ready.to_owned(), console.to_owned());
        Self { child, home, url, console, ready, said, lines, notes }
    }

    /// A verb of the command line, asked of this node.
    pub async fn manage(&self, line: &str) -> (Option<i32>, String, String) {
        let port = self.console.rsplit(':').next().unwrap();
        self.home.run(&format!("{line} --console {port}")).await
    }

    pub fn token(&self) -> String {
        std::fs::read_to_string(self.home.state().join("console.token")).unwrap()
    }

    pub async fn ask(&self, words: &str, fields: serde_json::Value) -> reqwest::Response {
        let mut body = json!({ "model": "mesh-tiny", "messages": [{ "role": "user", "content": words }] });
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let post = reqwest::Client::new().post(format!("{}/v1/chat/completions", self.url));
        post.body(body.to_string()).send().await.unwrap()
    }

    pub async fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().await.unwrap().success());
    }

    pub async fn end(mut self) -> ExitStatus {
        let status = timeout(Duration::from_secs(40), self.child.wait()).await.unwrap().unwrap();
        let mut rest = String::new();
        self.lines.into_inner().read_to_string(&mut rest).await.unwrap();
        assert!(rest.starts_with("try: curl http://"), "{rest}");
        status
    }
}

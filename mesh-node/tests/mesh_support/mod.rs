//! Real nodes as processes, and streams read from them.
#![allow(dead_code, unreachable_pub, clippy::print_stderr, clippy::unwrap_used, reason = "each test file uses a part")]

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::watch,
    time::{sleep, timeout},
};

/// How long anything may take before a test gives up on it. Debug builds on a busy machine are slow.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A folder for one test's nodes, and how they are started.
pub struct Farm {
    pub dir: TempDir,
    /// The hub of all its nodes.
    pub hub: Option<String>,
}

/// What a node says on its way, as it comes.
#[derive(Clone, Default, Debug)]
pub struct Said {
    pub lines: Vec<String>,
}

/// A node's process.
pub struct Node {
    pub name: String,
    pub child: Child,
    pub api: String,
    pub console: String,
    pub state: PathBuf,
    pub id: String,
    said: watch::Receiver<Said>,
    line: Vec<String>,
}

impl Farm {
    pub fn new() -> Self {
        mesh_node::choose_tls();
        Self { dir: tempfile::tempdir().unwrap(), hub: None }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn ticket(&self) -> PathBuf {
        self.path("ticket")
    }

    /// A model of another name and another identity: the bundled one with a changed file.
    pub fn other_model(&self, name: &str) -> PathBuf {
        let to = self.path(name);
        std::fs::create_dir(&to).unwrap();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/mesh-tiny");
        for entry in std::fs::read_dir(from).unwrap().flatten() {
            if entry.path().is_file() {
                std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
        let config = to.join("generation_config.json");
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(config, format!("{text}\n")).unwrap();
        to
    }

    /// The founder, with a ticket in [`Farm::ticket`].
    pub async fn found(&self, name: &str, line: &str) -> Node {
        let ticket = self.ticket();
        let line = format!("{line} --mesh-name test --ticket-file {}", ticket.display());
        let node = self.start(name, &line).await;
        self.has_ticket().await;
        node
    }

    /// Waits until the founder has written its ticket.
    pub async fn has_ticket(&self) {
        let written = async {
            while !self.ticket().exists() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, written).await.expect("a ticket");
    }

    /// A node that joins with the founder's ticket.
    pub async fn join(&self, name: &str, line: &str) -> Node {
        let line = format!("{line} --join-file {}", self.ticket().display());
        self.start(name, &line).await
    }

    /// A node on loopback, known by nobody but its ticket.
    pub async fn start(&self, name: &str, line: &str) -> Node {
        self.begin(name, line).ready().await
    }

    /// The same, not ready yet.
    pub fn begin(&self, name: &str, line: &str) -> Node {
        let line = format!("{line} --no-relay --no-mdns --bind 127.0.0.1:0 --port 0 --console 0");
        self.spawn(name, line.split_whitespace().map(str::to_owned).collect())
    }

    pub async fn launch(&self, name: &str, line: Vec<String>) -> Node {
        self.spawn(name, line).ready().await
    }

    fn spawn(&self, name: &str, line: Vec<String>) -> Node {
        let state = self.path(&format!("state-{name}"));
        let log = std::env::var_os("MESH_TEST_LOG").unwrap_or_else(|| "info".into());
        let mut child = Command::new(env!("CARGO_BIN_EXE_mesh-llm"))
            .args(&line)
            .env("MESH_LLM_STATE", &state)
            .env("MESH_LLM_CACHE", self.path("cache"))
            .env("MESH_LLM_LOG", log)
            .env("OPENBLAS_NUM_THREADS", "1")
            // No test asks the hub that everybody means.
            .env("HF_ENDPOINT", self.hub.as_deref().unwrap_or("http://127.0.0.1:9"))
            .env("HF_HOME", self.path(&format!("hf-{name}")))
            .env_remove("HF_HUB_CACHE")
            .env_remove("HF_HUB_OFFLINE")
            .env_remove("HF_TOKEN")
            .env_remove("HF_TOKEN_PATH")
            .env_remove("MESH_LLM_API_KEY")
            .env_remove("MESH_LLM_JOIN")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (told, said) = watch::channel(Said::default());
        let out = BufReader::new(child.stdout.take().unwrap()).lines();
        let err = BufReader::new(child.stderr.take().unwrap()).lines();
        let title = name.to_owned();
        tokio::spawn(async move {
            let (mut out, mut err) = (out, err);
            loop {
                let line = tokio::select! {
                    Ok(Some(line)) = out.next_line() => line,
                    Ok(Some(line)) = err.next_line() => line,
                    else => break,
                };
                if std::env::var_os("MESH_TEST_SHOW").is_some() {
                    eprintln!("[{title}] {line}");
                }
                told.send_modify(|said| said.lines.push(line));
            }
        });
        Node {
            name: name.to_owned(),
            child,
            api: String::new(),
            console: String::new(),
            state,
            id: String::new(),
            said,
            line,
        }
    }
}

impl Node {
    /// Its management API answers; its models may not.
    pub async fn up(&mut self) {
        self.console = self.line_with("console at ").await.rsplit("at ").next().unwrap().to_owned();
        self.id = self.status().await["mesh"]["node"].as_str().unwrap_or_default().to_owned();
    }

    /// Its models answer, too.
    pub async fn ready(mut self) -> Self {
        let ready = self.line_with("mesh-llm ready: ").await;
        self.api = ready.split_whitespace().nth(2).unwrap().trim_end_matches("/v1").to_owned();
        self.up().await;
        self
    }

    /// One of the mesh's counters.
    pub async fn counter(&self, label: &str) -> u64 {
        self.status().await["mesh"]["counters"][label].as_u64().unwrap_or(0)
    }

    /// The first line that has this in it, said already or soon.
    pub async fn line_with(&mut self, words: &str) -> String {
        let found = |said: &Said| said.lines.iter().any(|line| line.contains(words));
        let waited = timeout(PATIENCE, self.said.wait_for(found)).await;
        let said = waited.ok().and_then(|said| Some(said.ok()?.clone()));
        let Some(said) = said else { panic!("{} never said {words:?}; it said: {:#?}", self.name, self.lines()) };
        said.lines.into_iter().find(|line| line.contains(words)).unwrap()
    }

    pub fn lines(&self) -> Vec<String> {
        self.said.borrow().lines.clone()
    }

    pub async fn status(&self) -> Value {
        reqwest::get(format!("{}/api/status", self.console)).await.unwrap().json().await.unwrap()
    }

    pub async fn post(&self, path: &str, body: &Value) -> reqwest::Response {
        reqwest::Client::new().post(format!("{}{path}", self.api)).json(body).send().await.unwrap()
    }

    /// Ids of the models that this door lists, with their owners' number.
    pub async fn models(&self) -> Vec<(String, u64)> {
        let list: Value = reqwest::get(format!("{}/v1/models", self.api)).await.unwrap().json().await.unwrap();
        let model = |m: &Value| (m["id"].as_str().unwrap().to_owned(), m["owners"].as_u64().unwrap());
        list["data"].as_array().unwrap().iter().map(model).collect()
    }

    /// Waits until this door lists exactly these.
    pub async fn lists(&self, models: &[(&str, u64)]) {
        let wanted: Vec<(String, u64)> = models.iter().map(|(id, owners)| ((*id).to_owned(), *owners)).collect();
        let mut last = Vec::new();
        let seen = timeout(PATIENCE, async {
            loop {
                last = self.models().await;
                if last == wanted {
                    return;
                }
                sleep(Duration::from_millis(20)).await;
            }
        });
        if seen.await.is_err() {
            panic!("{} lists {last:?}, not {wanted:?}; its log: {:#?}", self.name, self.lines());
        }
    }

    pub fn signal(&self, name: &str) {
        let id = self.child.id().expect("it runs").to_string();
        let sent = std::process::Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap();
        assert!(sent.success(), "kill -{name}");
    }

    /// kill -9, and the corpse is gone.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// The same command line and state again.
    pub async fn again(self, farm: &Farm) -> Node {
        let (name, line) = (self.name.clone(), self.line.clone());
        drop(self);
        farm.launch(&name, line).await
    }

    /// Begins a streamed chat; returns when the head is there.
    pub async fn stream(&self, body: &Value) -> Stream {
        let response = timeout(PATIENCE, self.post("/v1/chat/completions", body)).await.expect("a head in time");
        let status = response.status();
        let header = |name: &str| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let (node, route) = (header("x-mesh-node"), header("x-mesh-route"));
        assert!(status.is_success(), "{status}: {}", response.text().await.unwrap());
        Stream {
            node,
            route,
            bytes: Box::pin(response.bytes_stream()),
            buffer: String::new(),
            text: String::new(),
            ids: Vec::new(),
            calls: Vec::new(),
            finish: None,
            usage: None,
            error: None,
            done: false,
            longest: Duration::ZERO,
            last: Instant::now(),
        }
    }
}

/// A streamed answer being read.
pub struct Stream {
    pub node: String,
    pub route: String,
    bytes: std::pin::Pin<Box<dyn futures_util::Stream<Item = reqwest::Result<bytes::Bytes>> + Send>>,
    buffer: String,
    pub text: String,
    pub ids: Vec<String>,
    /// Tool calls: name and arguments, put together.
    pub calls: Vec<(String, String)>,
    pub finish: Option<String>,
    pub usage: Option<Value>,
    pub error: Option<Value>,
    pub done: bool,
    /// The longest pause between two pieces.
    pub longest: Duration,
    last: Instant,
}

impl Stream {
    /// Reads on; `false` at the end.
    pub async fn read(&mut self) -> bool {
        let next = timeout(PATIENCE, self.bytes.next()).await.expect("more of the stream in time");
        let Some(Ok(bytes)) = next else { return false };
        self.buffer.push_str(&String::from_utf8_lossy(&bytes));
        while let Some(end) = self.buffer.find("\n\n") {
            let frame: String = self.buffer.drain(..end + 2).collect();
            let Some(data) = frame.trim_end().strip_prefix("data: ") else { continue };
            self.longest = self.longest.max(self.last.elapsed());
            self.last = Instant::now();
            if data == "[DONE]" {
                self.done = true;
                continue;
            }
            self.chunk(&serde_json::from_str(data).unwrap());
        }
        true
    }

    fn chunk(&mut self, chunk: &Value) {
        if !chunk["error"].is_null() {
            self.error = Some(chunk["error"].clone());
            return;
        }
        let id = chunk["id"].as_str().unwrap().to_owned();
        if !self.ids.contains(&id) {
            self.ids.push(id);
        }
        if chunk["usage"].is_object() {
            self.usage = Some(chunk["usage"].clone());
        }
        let Some(choice) = chunk["choices"].get(0) else { return };
        self.text.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        self.text.push_str(choice["delta"]["reasoning_content"].as_str().unwrap_or_default());
        for call in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
            let index = call["index"].as_u64().unwrap() as usize;
            if index == self.calls.len() {
                self.calls.push(Default::default());
            }
            let (name, arguments) = &mut self.calls[index];
            name.push_str(call["function"]["name"].as_str().unwrap_or_default());
            arguments.push_str(call["function"]["arguments"].as_str().unwrap_or_default());
        }
        if let Some(reason) = choice["finish_reason"].as_str() {
            self.finish = Some(reason.to_owned());
        }
    }

    /// To the end.
    pub async fn whole(mut self) -> Self {
        while self.read().await {}
        self
    }

    /// Until so many characters are here; `false` if it ended before.
    pub async fn until(&mut self, characters: usize) -> bool {
        while self.text.len() < characters {
            if !self.read().await {
                return false;
            }
        }
        true
    }
}

/// A long chat: past the model's own end, so that there is time to kill somebody.
pub fn long_chat(tokens: u32, seed: Option<u64>) -> Value {
    let mut body = json!({
        "model": "mesh-tiny",
        "messages": [{ "role": "user", "content": "What is the capital of France?" }],
        "stream": true,
        "stream_options": { "include_usage": true },
        "max_tokens": tokens,
        "ignore_eos": true,
        "temperature": 0.0,
    });
    if let Some(seed) = seed {
        body["seed"] = json!(seed);
        body["temperature"] = json!(0.9);
        body["top_p"] = json!(0.95);
        body["top_k"] = json!(0);
    }
    body
}

/// Where a failing run is told how to be repeated.
pub fn rounds(default: u32) -> u32 {
    std::env::var("MESH_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(default)
}

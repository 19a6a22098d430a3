//! What the tests of the child need: the real llama-server, false ones, and a look at processes; must not test anything.
#![allow(clippy::unwrap_used, reason = "a test's helpers may fail loudly")]
#![allow(clippy::print_stdout, reason = "they tell what they measured")]

use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use runtime_gguf_bridge::testing::{BridgeError, Config, Millis, Server, ServerOptions, State, Stream};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// The real one, where the environment names it. CI must not pass without.
pub(crate) fn real() -> Option<PathBuf> {
    let found = env::var_os("MESH_LLM_TEST_LLAMA_SERVER").map(PathBuf::from);
    if found.is_none() {
        assert!(env::var_os("CI").is_none(), "MESH_LLM_TEST_LLAMA_SERVER is not set, and CI needs it");
        println!("skipped: MESH_LLM_TEST_LLAMA_SERVER is not set");
    }
    found
}

pub(crate) fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/mesh-tiny/mesh-tiny.Q4_1.gguf")
}

/// `binary` with the guard of this crate and a model; four slots whose context shifts, so that streams can be endless.
pub(crate) fn options(binary: &Path, model: &Path) -> ServerOptions {
    let words = "-c 4096 -np 4 -t 1 -tb 1 --slots --context-shift --threads-http 120 --no-warmup -m";
    let mut args: Vec<OsString> = words.split(' ').map(OsString::from).collect();
    args.push(model.into());
    ServerOptions {
        binary: binary.to_owned(),
        guard: vec![env!("CARGO_BIN_EXE_gguf-guard").into()],
        args,
        name: "tiny".to_owned(),
    }
}

/// A hang is noticed in 2 s instead of 10, and the like.
pub(crate) fn hasty() -> Config {
    Config {
        health_ready: Millis(500),
        health_limit: Millis(1000),
        hang_idle: Millis(2000),
        measure_every: Millis(300),
        ..Config::default()
    }
}

pub(crate) async fn start(options: ServerOptions) -> Result<Server, BridgeError> {
    Server::start(options, &mut |_| {}).await
}

pub(crate) async fn start_hasty(options: ServerOptions) -> Result<Server, BridgeError> {
    Server::start_with(options, hasty(), &mut |_| {}).await
}

/// A shell script in `folder`, to be run as if it were llama-server.
pub(crate) fn script(folder: &Path, text: &str) -> PathBuf {
    let file = folder.join("llama-server");
    fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    file
}

/// A stream that never ends by itself, with its first token read.
pub(crate) async fn endless(server: &Server) -> Stream {
    let body = json!({"prompt": "What is", "n_predict": -1, "ignore_eos": true, "stream": true});
    let mut stream = server.stream("/completion", &body).await.unwrap();
    stream.next().await.unwrap().unwrap();
    stream
}

/// Whether it answers, and as the model was made to.
pub(crate) async fn answers_right(server: &Server) {
    server.ready().await.unwrap();
    let messages = json!([{"role": "user", "content": "What is 2 + 3?"}]);
    let body = json!({"messages": messages, "temperature": 0, "chat_template_kwargs": {"enable_thinking": false}});
    let answer = server.call("/v1/chat/completions", &body, Duration::from_secs(20)).await.unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], "2 + 3 = 5.", "{answer}");
}

/// Slots that are at work.
pub(crate) async fn busy_slots(server: &Server) -> usize {
    let slots: Value = server.get("/slots", Duration::from_secs(10)).await.unwrap();
    slots.as_array().unwrap().iter().filter(|slot| slot["is_processing"] == true).count()
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

/// Whether a process is there and not just unreaped.
pub(crate) fn alive(pid: u32) -> bool {
    let pid = sysinfo::Pid::from_u32(pid);
    let mut system = sysinfo::System::new().unwrap();
    system.refresh_processes(sysinfo::ProcessesToUpdate::Some(&[pid]), true);
    system.process(pid).is_some_and(|process| process.status() != sysinfo::ProcessStatus::Zombie)
}

/// Waits until `what` holds, and says how long that took.
pub(crate) async fn until(what: &str, limit: Duration, mut holds: impl AsyncFnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("{what}: {:?}", began.elapsed());
    began.elapsed()
}

/// Both processes and the socket's folder of `server`.
pub(crate) struct Traces {
    pub(crate) guard: u32,
    pub(crate) child: u32,
    pub(crate) folder: PathBuf,
}

impl Traces {
    pub(crate) fn of(server: &Server) -> Self {
        let (guard, child) = server.pids().unwrap();
        let folder = server.socket().unwrap().parent().unwrap().to_owned();
        assert!(alive(guard) && alive(child) && folder.is_dir());
        Self { guard, child, folder }
    }

    pub(crate) async fn are_gone_within(&self, limit: Duration) {
        let gone = async || !alive(self.guard) && !alive(self.child) && !self.folder.exists();
        until("guard, child and folder are gone", limit, gone).await;
    }
}

pub(crate) async fn restarted(server: &Server, before: &Traces) {
    let again =
        async || server.state() == State::Ready && server.pids().is_some_and(|(_, child)| child != before.child);
    until("it runs again", Duration::from_secs(15), again).await;
}

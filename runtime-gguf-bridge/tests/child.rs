//! The child as it lives: the real llama-server where the environment names one, and false ones; must not know engines.
#![allow(clippy::unwrap_used, reason = "a test's helpers may fail loudly")]

mod child_support;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use child_support::{
    Traces, alive, answers_right, busy_slots, endless, hasty, model, options, real, restarted, script, signal, start,
    start_hasty, until,
};
use runtime_gguf_bridge::testing::{BridgeError, CallError, Server, State, devices, find, version};
use rustix::process::Signal;
use serde_json::json;

/// Where the node-like process writes what it started; unset in every other process.
const NODE: &str = "MESH_LLM_TEST_NODE_LIKE";

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn the_real_one_is_found_new_enough_and_lists_its_devices() {
    let Some(binary) = real() else { return };
    let found = find(Some(&binary)).unwrap();
    println!("{}: {}", found.display(), version(&found).await.unwrap());
    println!("{:?}", devices(&found).await.unwrap());
}

#[tokio::test]
async fn it_starts_with_words_answers_streams_and_stops_without_a_trace() {
    let Some(binary) = real() else { return };
    let mut stages = Vec::new();
    let server = Server::start(options(&binary, &model()), &mut |stage| stages.push(stage.to_owned())).await.unwrap();
    assert!(stages.iter().all(|stage| stage.starts_with("loading")) && !stages.is_empty(), "{stages:?}");
    let traces = Traces::of(&server);
    answers_right(&server).await;

    let body = json!({"prompt": "What is", "n_predict": 5, "ignore_eos": true, "stream": true, "return_tokens": true});
    let mut stream = server.stream("/completion", &body).await.unwrap();
    assert_eq!(server.in_flight(), 1);
    let mut events = Vec::new();
    while let Some(event) = stream.next().await {
        events.push(event.unwrap());
    }
    assert_eq!(events.last().unwrap()["stop"], true);
    assert_eq!(events.last().unwrap()["tokens_predicted"], 5);
    drop(stream);
    assert_eq!(server.in_flight(), 0);

    let endless = endless(&server).await;
    server.stop().await;
    drop(endless);
    assert_eq!(server.state(), State::Stopped);
    assert!(matches!(server.ready().await, Err(BridgeError::Stopped { .. })));
    traces.are_gone_within(SECOND).await;
}

#[tokio::test]
async fn a_dropped_handle_or_start_ends_the_child() {
    let Some(binary) = real() else { return };
    let server = start(options(&binary, &model())).await.unwrap();
    let traces = Traces::of(&server);
    let _other = server.clone();
    drop(server);
    assert!(alive(traces.child), "another handle is left");
    drop(_other);
    traces.are_gone_within(3 * SECOND).await;

    let dir = tempfile::tempdir().unwrap();
    let binary = script(dir.path(), &format!("echo $$ > {}/pid; exec sleep 1000", dir.path().display()));
    let starting = tokio::time::timeout(SECOND, start(options(&binary, &model()))).await;
    assert!(starting.is_err(), "it never gets ready");
    let pid = pid_in(&dir.path().join("pid"));
    until("the dropped start's child is gone", 3 * SECOND, async || !alive(pid)).await;
}

#[tokio::test]
async fn two_live_beside_each_other() {
    let Some(binary) = real() else { return };
    let (one, two) = tokio::join!(start(options(&binary, &model())), start(options(&binary, &model())));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_ne!(one.socket(), two.socket());
    let traces = Traces::of(&one);
    answers_right(&one).await;
    one.stop().await;
    traces.are_gone_within(SECOND).await;
    answers_right(&two).await;
    two.stop().await;
}

#[tokio::test]
async fn refusals_come_as_they_are_meant() {
    let Some(binary) = real() else { return };
    let server = start(options(&binary, &model())).await.unwrap();
    let long = "word ".repeat(3000);
    let body = json!({"prompt": long, "stream": true});
    let Err(CallError::Status { code, kind, error, .. }) = server.stream("/completion", &body).await else {
        panic!("a prompt beyond the context was taken")
    };
    assert_eq!((code, kind.as_str()), (400, "exceed_context_size_error"));
    assert!(error["n_prompt_tokens"].as_u64() > error["n_ctx"].as_u64(), "{error}");
    let answer = server.call("/nowhere", &json!({}), SECOND).await;
    assert!(matches!(answer, Err(CallError::Status { code: 404, .. })), "{answer:?}");
    let answer = server.call("/embedding", &json!({"input": "x"}), SECOND).await;
    assert!(matches!(answer, Err(CallError::Status { code: 501, .. })), "{answer:?}");
    let answer = server.stream("/completion", &json!({"prompt": "x", "n_predict": 1})).await.map(|_| ());
    assert!(matches!(answer, Err(CallError::Malformed(_))), "{answer:?}");
    let body = json!({"prompt": "x", "n_predict": -1, "ignore_eos": true});
    let answer = server.call("/completion", &body, SECOND / 5).await;
    assert_eq!(answer, Err(CallError::Timeout { ms: 200 }));
    server.stop().await;
    let answer = server.call("/tokenize", &json!({"content": "x"}), SECOND).await;
    assert!(matches!(answer, Err(CallError::Unreachable(_))), "{answer:?}");
}

#[tokio::test]
async fn a_child_killed_mid_stream_fails_the_stream_at_once_and_the_next_request_is_right() {
    let Some(binary) = real() else { return };
    let server = start(options(&binary, &model())).await.unwrap();
    let traces = Traces::of(&server);
    let mut stream = endless(&server).await;
    signal(traces.child, Signal::KILL);
    let began = Instant::now();
    let failed = loop {
        match stream.next().await {
            Some(Ok(_)) => {}
            other => break other,
        }
    };
    assert!(matches!(failed, Some(Err(CallError::Unreachable(_)))), "{failed:?}");
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    assert!(stream.next().await.is_none());
    assert_ne!(server.state(), State::Ready, "who sees the error sees the state");
    assert!(server.last_words().contains("signal 9"), "{}", server.last_words());
    answers_right(&server).await;
    assert_ne!(server.pids().unwrap().1, traces.child);
    traces.are_gone_within(SECOND).await;
    server.stop().await;
}

#[tokio::test]
async fn a_killed_guard_takes_its_child_along_and_both_come_again() {
    let Some(binary) = real() else { return };
    let server = start(options(&binary, &model())).await.unwrap();
    let traces = Traces::of(&server);
    let _stream = endless(&server).await;
    signal(traces.guard, Signal::KILL);
    traces.are_gone_within(2 * SECOND).await;
    restarted(&server, &traces).await;
    answers_right(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn a_stopped_child_is_a_hang_and_is_replaced() {
    let Some(binary) = real() else { return };
    let server = start_hasty(options(&binary, &model())).await.unwrap();
    let traces = Traces::of(&server);
    let mut stream = endless(&server).await;
    signal(traces.child, Signal::STOP);
    let began = Instant::now();
    while let Some(Ok(_)) = stream.next().await {}
    let took = began.elapsed();
    println!("the stream failed after {took:?}");
    assert!(took < 6 * SECOND && took > SECOND, "{took:?}");
    restarted(&server, &traces).await;
    answers_right(&server).await;
    traces.are_gone_within(SECOND).await;
    server.stop().await;
}

#[tokio::test]
async fn an_idle_child_that_is_stopped_is_noticed_too() {
    let Some(binary) = real() else { return };
    let server = start_hasty(options(&binary, &model())).await.unwrap();
    let traces = Traces::of(&server);
    signal(traces.child, Signal::STOP);
    until("it is unhealthy", 5 * SECOND, async || server.state() != State::Ready).await;
    restarted(&server, &traces).await;
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_no_hang() {
    let Some(binary) = real() else { return };
    let server = start_hasty(options(&binary, &model())).await.unwrap();
    let traces = Traces::of(&server);
    let mut stream = endless(&server).await;
    // The pipe fills and the child has nothing to do that anybody wants.
    tokio::time::sleep(5 * SECOND).await;
    stream.next().await.unwrap().unwrap();
    assert_eq!(server.pids(), Some((traces.guard, traces.child)), "{}", server.last_words());
    server.stop().await;
}

#[tokio::test]
async fn a_hundred_cancelled_streams_leave_all_slots_free() {
    let Some(binary) = real() else { return };
    let server = start(options(&binary, &model())).await.unwrap();
    let mut asking = tokio::task::JoinSet::new();
    for n in 0..100 {
        let server = server.clone();
        asking.spawn(async move {
            let body = json!({"prompt": format!("What is {n}"), "n_predict": -1, "ignore_eos": true, "stream": true});
            // Four are served and the others wait: they are cancelled in either state.
            let mut stream = server.stream("/completion", &body).await.unwrap();
            while let Some(Ok(_)) = stream.next().await {}
        });
    }
    until("all slots are busy", 20 * SECOND, async || busy_slots(&server).await == 4).await;
    asking.shutdown().await;
    assert_eq!(server.in_flight(), 0);
    until("all slots are free", 2 * SECOND, async || busy_slots(&server).await == 0).await;
    answers_right(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn a_model_that_is_none_fails_with_the_childs_last_words_and_is_not_tried_again() {
    let Some(binary) = real() else { return };
    let dir = tempfile::tempdir().unwrap();
    let whole = fs::read(model()).unwrap();
    let cases: [(&str, &[u8], &str); 3] = [
        ("truncated.gguf", &whole[..500_000], "not within the file bounds"),
        ("none.gguf", b"hello, I am no model", "magic"),
        ("empty.gguf", b"", "failed to load"),
    ];
    for (name, bytes, words) in cases {
        let file = dir.path().join(name);
        fs::write(&file, bytes).unwrap();
        let began = Instant::now();
        let told = start(options(&binary, &file)).await.unwrap_err().to_string();
        println!("{told}");
        assert!(told.contains(words) && told.contains("exited with code 1") && !told.contains('\n'), "{told}");
        assert!(began.elapsed() < 5 * SECOND, "{:?}", began.elapsed());
    }
    let mut bad = options(&binary, &model());
    bad.args.push("--no-such-flag".into());
    let told = start(bad).await.unwrap_err().to_string();
    assert!(told.contains("invalid argument: --no-such-flag"), "{told}");
}

#[tokio::test]
async fn ten_megabytes_of_log_neither_block_nor_stay() {
    let Some(binary) = real() else { return };
    let dir = tempfile::tempdir().unwrap();
    // Many lines on one stream, a single one on the other.
    let noise = "yes 'a line that says nothing at all' | head -c 10000000 >&2; head -c 10000000 /dev/zero | tr '\\0' x";
    let binary = script(dir.path(), &format!("{noise}; echo; exec '{}' \"$@\"", binary.display()));
    let began = Instant::now();
    let server = start(options(&binary, &model())).await.unwrap();
    println!("ready after {:?}", began.elapsed());
    answers_right(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn a_script_that_fails_is_quoted() {
    let dir = tempfile::tempdir().unwrap();
    let binary = script(dir.path(), "echo 'first, a remark'; echo 'the GPU is on holiday: error 17' >&2; exit 3");
    let told = start(options(&binary, &model())).await.unwrap_err().to_string();
    assert!(told.contains("exited with code 3: the GPU is on holiday: error 17"), "{told}");
    let binary = script(dir.path(), "kill -SEGV $$");
    let told = start(options(&binary, &model())).await.unwrap_err().to_string();
    assert!(told.contains("signal 11"), "{told}");
    let told = start(options(Path::new("/nowhere/llama-server"), &model())).await.unwrap_err().to_string();
    assert!(told.contains("could not be run") && told.contains("/nowhere/llama-server"), "{told}");
}

#[tokio::test]
async fn versions_that_are_old_silent_or_none_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let told = |text: &'static str| {
        let binary = script(dir.path(), text);
        async move { version(&binary).await.unwrap_err() }
    };
    let old = told("echo 'version: 6970 (abc123)' >&2").await;
    assert!(matches!(old, BridgeError::TooOld { .. }), "{old}");
    assert!(old.to_string().contains("6970 (abc123)") && old.to_string().contains("0.5.0"), "{old}");
    let none = told("echo 'what do you want?'").await.to_string();
    assert!(none.contains("--version"), "{none}");
    let bad = told("echo 'cannot open libllama.so' >&2; exit 127").await.to_string();
    assert!(bad.contains("cannot open libllama.so"), "{bad}");
    let began = Instant::now();
    let slow = told("sleep 1000; true").await.to_string();
    assert!(slow.contains("within 5 s") && began.elapsed() < 7 * SECOND, "{slow}");
    let endless = told("exec yes").await.to_string();
    assert!(!endless.contains('\n'), "{endless}");
}

#[tokio::test]
async fn a_start_that_makes_no_progress_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let binary = script(dir.path(), "sleep 1000; true");
    let config =
        runtime_gguf_bridge::testing::Config { start_stall: runtime_gguf_bridge::testing::Millis(1500), ..hasty() };
    let told = Server::start_with(options(&binary, &model()), config, &mut |_| {}).await.unwrap_err().to_string();
    assert!(told.contains("no progress"), "{told}");
}

/// Not a test: what [`no_process_outlives_a_killed_node`] runs and kills.
#[tokio::test]
async fn a_node_like_process() {
    let Some(report) = env::var_os(NODE).map(PathBuf::from) else { return };
    let server = start(options(&real().unwrap(), &model())).await.unwrap();
    let traces = Traces::of(&server);
    let mut stream = endless(&server).await;
    let text = format!("{}\n{}\n{}", traces.guard, traces.child, traces.folder.display());
    fs::write(report.with_extension("part"), text).unwrap();
    fs::rename(report.with_extension("part"), &report).unwrap();
    while let Some(Ok(_)) = stream.next().await {}
}

/// A node in a process of its own that serves a stream, and its traces.
async fn node_like(dir: &Path) -> (Child, Traces) {
    let report = dir.join("report");
    let node = Command::new(env::current_exe().unwrap())
        .args(["a_node_like_process", "--exact", "--nocapture"])
        .env(NODE, &report)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("the node-like process serves", 20 * SECOND, async || report.exists()).await;
    let text = fs::read_to_string(&report).unwrap();
    let [guard, child, folder] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
    let traces = Traces { guard: guard.parse().unwrap(), child: child.parse().unwrap(), folder: folder.into() };
    assert!(alive(traces.guard) && alive(traces.child));
    (node, traces)
}

#[tokio::test]
async fn no_process_outlives_a_killed_node() {
    if real().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (mut node, traces) = node_like(dir.path()).await;
    node.kill().unwrap();
    node.wait().unwrap();
    traces.are_gone_within(3 * SECOND).await;
}

#[tokio::test]
async fn no_process_outlives_node_and_guard_killed_together() {
    if real().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (mut node, traces) = node_like(dir.path()).await;
    // So that it cannot clear up after its guard.
    signal(node.id(), Signal::STOP);
    signal(traces.guard, Signal::KILL);
    node.kill().unwrap();
    node.wait().unwrap();
    until("both are gone", 3 * SECOND, async || !alive(traces.guard) && !alive(traces.child)).await;
    // Nobody was left to do it.
    fs::remove_dir_all(&traces.folder).unwrap();
}

#[tokio::test]
async fn a_guard_kills_what_does_not_want_to_end_and_what_that_started() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display();
    let text = format!("trap '' TERM; sleep 1000 & echo $! > {path}/grandchild; echo $$ > {path}/pid; wait; wait");
    let binary = script(dir.path(), &text);
    let sockets = tempfile::tempdir().unwrap().keep();
    let mut guard = Command::new(env!("CARGO_BIN_EXE_gguf-guard"));
    std::os::unix::process::CommandExt::process_group(&mut guard, 0);
    let mut guard =
        guard.arg(&sockets).arg("--").arg(&binary).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    until("the script runs", 5 * SECOND, async || dir.path().join("pid").exists()).await;
    let pids = [pid_in(&dir.path().join("pid")), pid_in(&dir.path().join("grandchild"))];
    assert!(pids.iter().all(|pid| alive(*pid)));
    drop(guard.stdin.take());
    until("all is gone", 3 * SECOND, async || {
        !pids.iter().any(|pid| alive(*pid)) && !sockets.exists() && guard.try_wait().unwrap().is_some()
    })
    .await;
}

#[test]
fn a_guard_passes_its_childs_end_on_and_clears_only_what_is_its_own() {
    let guarded = |folder: &Path, text: &str| {
        let mut guard = Command::new(env!("CARGO_BIN_EXE_gguf-guard"));
        guard.arg(folder).args(["--", "/bin/sh", "-c", text]).env("MESH_LLM_X", "secret");
        let mut guard = guard.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let _held = guard.stdin.take();
        guard.wait().unwrap().code()
    };
    let folder = tempfile::tempdir().unwrap().keep();
    let environment = r#"test -z "$MESH_LLM_X" && test "$LLAMA_SERVER_ROUTER_PORT" = 1 || exit 9; exit 7"#;
    assert_eq!(guarded(&folder, environment), Some(7));
    assert!(!folder.exists());
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("somebody's"), "").unwrap();
    assert_eq!(guarded(folder.path(), "kill -KILL $$"), Some(128 + 9));
    assert!(folder.path().join("somebody's").exists());
}

fn pid_in(file: &Path) -> u32 {
    fs::read_to_string(file).unwrap().trim().parse().unwrap()
}

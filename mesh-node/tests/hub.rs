//! A model from the hub in one command, against a hub of our own: downloaded with progress, served, and there the next time.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/binary.rs"]
mod binary;
#[path = "common/llama.rs"]
mod llama;

use std::{path::PathBuf, process::Stdio, time::Duration};

use binary::{Home, Node};
use llama::llama_server;
use serde_json::{Value, json};
use test_hub::{Content, Fault, Hub, Repo, Rule, RunningHub};
use tokio::time::sleep;

/// The bundled model, as somebody's repository: small files in git, weights in LFS.
fn tiny(name: &str) -> Repo {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models/mesh-tiny");
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let mut repo = Repo::new(name).file("README.md", "# A model\n");
    for file in
        ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"]
    {
        repo = repo.file(file, read(file));
    }
    repo.lfs("model.safetensors", Content::file(folder.join("model.safetensors")).unwrap())
}

fn hub() -> RunningHub {
    let gguf = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models/mesh-tiny/mesh-tiny.Q4_1.gguf");
    let big = Repo::new("org/strange").file("config.json", r#"{"model_type":"nobody-knows"}"#);
    Hub::new()
        .repo(tiny("org/tiny"))
        .repo(Repo::new("org/tiny-GGUF").lfs("tiny-Q4_1.gguf", Content::file(gguf).unwrap()).file("README.md", "x"))
        .repo(big.lfs("model.safetensors", Content::generated(1, 50_000_000)))
        .start()
        .unwrap()
}

async fn says(node: &Node, model: &str) -> String {
    let fields = json!({ "temperature": 0, "model": model });
    let answer: Value = node.ask("What is 3 + 4?", fields).await.json().await.unwrap();
    answer["choices"][0]["message"]["content"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

#[tokio::test]
async fn a_repository_is_downloaded_and_served_and_the_next_start_needs_no_network() {
    let hub = hub();
    // Slow enough that clients can come meanwhile, and cut once in the middle.
    hub.rule(Rule::new("model.safetensors", Fault::Cut(700_000)).first(1));
    let home = Home::new();
    let endpoint = [("HF_ENDPOINT", hub.url())];
    let mut node = Node::start_in(home, "--model org/tiny --mlx", &endpoint).await;
    assert_eq!(node.ready, "  (models: tiny)");
    assert!(node.said.iter().all(|line| !line.contains("hf_")), "{:?}", node.said);
    assert_eq!(says(&node, "tiny").await, "3 + 4 = 7.");
    let size =
        std::fs::metadata(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/mesh-tiny/model.safetensors")).unwrap();
    assert_eq!(hub.bytes_sent("model.safetensors"), size.len(), "each byte once, though it was cut");
    assert_eq!(hub.bytes_sent("README.md"), 0, "nothing that nobody needs");
    node.child.kill().await.unwrap();

    hub.clear_log();
    let node = Node::start_in(node.home, "--model org/tiny --mlx --offline", &endpoint).await;
    assert_eq!(says(&node, "tiny").await, "3 + 4 = 7.");
    assert_eq!(hub.log().len(), 0, "{:?}", hub.log());
}

#[tokio::test]
async fn a_gguf_file_of_a_repository_is_served_by_its_quantisation() {
    let Some(server) = llama_server() else { return };
    let hub = hub();
    let line = format!("--model org/tiny-GGUF:Q4_1 --llama-server {}", server.display());
    let node = Node::start_in(Home::new(), &line, &[("HF_ENDPOINT", hub.url())]).await;
    assert_eq!(says(&node, "tiny-Q4_1").await, "3 + 4 = 7.");
}

#[tokio::test]
async fn what_mlx_cannot_compute_is_refused_before_anything_large_comes() {
    let hub = hub();
    for (model, words) in [
        ("org/strange --mlx", "nobody-knows"),
        ("org/nothing --mlx", "org/nothing"),
        ("org/tiny@v9 --mlx", "v9"),
        ("org/tiny --gguf", "org/tiny"),
        ("no-such-name --mlx", "no-such-name"),
    ] {
        let home = Home::new();
        let line = format!("--model {model} --no-console --port 0");
        let mut command = home.command(&line);
        let output = command.env("HF_ENDPOINT", hub.url()).output().await.unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{model}: {stderr}");
        assert!(stderr.lines().last().unwrap().contains(words), "{model}: {stderr}");
    }
    assert_eq!(hub.bytes_sent("model.safetensors"), 0);
}

#[tokio::test]
async fn a_model_that_comes_is_told_with_progress_and_answers_once_it_is_there() {
    let hub = Hub::new().repo(tiny("org/tiny")).throttle(Some(250_000)).start().unwrap();
    let home = Home::new();
    let mut command = home.command("serve --port 0 --no-console --model org/tiny --mlx");
    command.env("HF_ENDPOINT", hub.url()).stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(child.stderr.take().unwrap()));
    let mut said = Vec::new();
    let url = loop {
        let line = lines.next_line().await.unwrap().unwrap();
        if let Some(rest) = line.strip_prefix("mesh-llm: API at ") {
            break rest.split(',').next().unwrap().to_owned();
        }
        said.push(line);
    };
    let body =
        json!({ "model": "tiny", "messages": [{ "role": "user", "content": "What is 3 + 4?" }], "temperature": 0 });
    let ask = || reqwest::Client::new().post(format!("{url}/chat/completions")).body(body.to_string()).send();
    let mut told = false;
    let answered = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            tokio::select! {
                Ok(Some(line)) = lines.next_line() => told |= line.contains("downloading") && line.contains('%'),
                () = sleep(Duration::from_millis(200)) => {}
            }
            // Who asks meanwhile waits a while, and is told when to come again.
            let answer = ask().await.unwrap();
            if answer.status() == 200 {
                return answer.json::<Value>().await.unwrap();
            }
            assert_eq!(
                (answer.status().as_u16(), answer.headers().contains_key("retry-after")),
                (503, true),
                "{said:?}"
            );
        }
    });
    let answer = answered.await.unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], "3 + 4 = 7.");
    assert!(told, "progress was told");
    drop(child);
}

/// Runs a command with standard error on a terminal: what it wrote there, and its exit code. `began` hears its id.
async fn on_terminal(
    mut command: tokio::process::Command,
    kind: &str,
    began: impl FnOnce(Option<u32>),
) -> (String, Option<i32>) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = PathBuf::from(ptsname(&ours, Vec::new()).unwrap().into_string().unwrap());
    let theirs = std::fs::OpenOptions::new().read(true).write(true).open(name).unwrap();
    let mut child = command.env("TERM", kind).stdout(Stdio::null()).stderr(theirs).spawn().unwrap();
    began(child.id());
    // The command holds the other end too.
    drop(command);
    let reader = tokio::task::spawn_blocking(move || {
        let (mut ours, mut said, mut buffer) = (std::fs::File::from(ours), Vec::new(), [0; 4096]);
        // A terminal that nobody holds any more is an error on Linux, and an end elsewhere.
        while let Ok(count @ 1..) = std::io::Read::read(&mut ours, &mut buffer) {
            said.extend_from_slice(&buffer[..count]);
        }
        String::from_utf8_lossy(&said).into_owned()
    });
    let status = tokio::time::timeout(Duration::from_secs(60), child.wait()).await.unwrap().unwrap();
    (reader.await.unwrap(), status.code())
}

#[tokio::test]
async fn bars_are_drawn_on_a_terminal_and_only_there() {
    let hub = Hub::new().repo(tiny("org/tiny")).throttle(Some(800_000)).start().unwrap();
    let (home, other) = (Home::new(), Home::new());
    let line = "models download org/tiny --mlx";
    let mut command = home.command(line);
    command.env("HF_ENDPOINT", hub.url());
    let (said, code) = on_terminal(command, "xterm", |_| {}).await;
    assert_eq!(code, Some(0), "{said}");
    // Bars go up to draw themselves again, and are gone at the end; the line that stays is whole.
    assert!(said.contains("\u{1b}[") && said.contains('█') && said.contains("model.safetensors"), "{said:?}");
    let last = said.trim_end().lines().last().unwrap();
    assert!(last.contains("org/tiny: downloading 100 % of "), "{last:?}");
    let lines = said.matches("org/tiny: downloading").count();
    assert_eq!(lines, 1, "{said:?}");

    let mut command = other.command(line);
    let output = command.env("HF_ENDPOINT", hub.url()).env("TERM", "xterm").output().await.unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && !stderr.contains('\u{1b}') && !stderr.contains('█'), "{stderr:?}");
    assert!(
        stderr.lines().count() > 1 && stderr.lines().all(|line| line.starts_with("org/tiny: downloading ")),
        "{stderr}"
    );
    // A terminal that cannot move its cursor gets lines too.
    let third = Home::new();
    let mut command = third.command(line);
    command.env("HF_ENDPOINT", hub.url());
    let (said, code) = on_terminal(command, "dumb", |_| {}).await;
    assert!(code == Some(0) && !said.contains('█') && said.contains("org/tiny: downloading "), "{said:?}");
}

#[tokio::test]
async fn lines_of_the_log_do_not_tear_bars() {
    let hub = Hub::new().repo(tiny("org/tiny")).throttle(Some(800_000)).start().unwrap();
    let home = Home::new();
    let mut command = home.command("serve --port 0 --no-console --model org/tiny --mlx");
    command.env("HF_ENDPOINT", hub.url()).env("MESH_LLM_LOG", "info,mesh_node=debug");
    // It serves until it is told to end.
    let pid = std::sync::Arc::new(std::sync::Mutex::new(None));
    let ending = pid.clone();
    let stop = async move {
        while hub.bytes_sent("model.safetensors") < 1_200_000 || ending.lock().unwrap().is_none() {
            sleep(Duration::from_millis(50)).await;
        }
        let pid: u32 = ending.lock().unwrap().unwrap();
        for _ in 0..2 {
            let pid = pid.to_string();
            let _ = tokio::process::Command::new("kill").args(["-s", "INT", &pid]).status().await;
            sleep(Duration::from_millis(500)).await;
        }
    };
    let ((said, _), ()) = tokio::join!(on_terminal(command, "xterm", move |id| *pid.lock().unwrap() = id), stop);
    assert!(said.contains('█'), "{said:?}");
    // A line that is not a bar's begins where a line begins.
    for (at, _) in said.match_indices("mesh-llm: ") {
        let before = said[..at].trim_end_matches(|letter: char| letter != '\n' && letter != '\r' && letter != 'K');
        assert_eq!(before.len(), at, "{:?}", &said[at.saturating_sub(200)..at + 20]);
    }
}

#[tokio::test]
async fn a_model_is_searched_downloaded_listed_verified_and_deleted() {
    let hub = Hub::new().repo(tiny("org/tiny").label("mlx").downloads(7)).start().unwrap();
    let home = Home::new();
    let run = async |line: &str| {
        let output = home.command(line).env("HF_ENDPOINT", hub.url()).output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let json = async |line: &str| {
        let (code, stdout, stderr) = run(&format!("models {line} --json")).await;
        assert_eq!(code, Some(0), "{line}: {stderr}");
        serde_json::from_str::<Value>(&stdout).unwrap()
    };
    let (code, stdout, _) = run("models list --installed").await;
    assert!(code == Some(0) && stdout.contains("models download"), "{stdout}");
    let found = json("search tiny --mlx").await;
    assert_eq!((&found["models"][0]["repository"], &found["models"][0]["downloads"]), (&json!("org/tiny"), &json!(7)));
    let (code, stdout, stderr) = run("models download org/tiny --mlx").await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.starts_with("tiny is here: ") && stderr.contains("downloading"), "{stdout} {stderr}");
    let here = json("list --installed").await;
    assert_eq!(
        (&here["models"][0]["repository"], &here["models"][0]["unfinished_bytes"]),
        (&json!("org/tiny"), &json!(0))
    );
    assert!(here["models"][0]["bytes"].as_u64().unwrap() > 1_000_000);
    let dir = PathBuf::from(here["models"][0]["snapshots"][0]["dir"].as_str().unwrap());

    assert!(run("models verify org/tiny").await.1.contains("6 of 6"));
    let weights = dir.join("model.safetensors").canonicalize().unwrap();
    let mut bytes = std::fs::read(&weights).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let (code, stdout, stderr) = run("models verify org/tiny").await;
    assert_eq!(
        (code, stdout.contains("5 of 6"), stderr.contains("model.safetensors")),
        (Some(1), true, true),
        "{stderr}"
    );

    let (code, stdout, _) = run("models delete org/tiny").await;
    assert!(code == Some(0) && stdout.contains("--yes") && dir.exists(), "{stdout}");
    assert_eq!(json("delete org/tiny --yes").await["removed"], true);
    assert!(!dir.exists());
    assert_eq!(run("models delete org/tiny").await.0, Some(1));
    assert_eq!(run("models prune").await.0, Some(0));
}

//! The hub as a client sees it: what the real one says, and each way to go wrong.
#![allow(clippy::unwrap_used, reason = "a test's helpers may fail loudly")]

use std::time::{Duration, Instant};

use reqwest::{Client, ClientBuilder, Response, redirect::Policy};
use serde_json::Value;
use test_hub::{Content, Fault, Hub, Repo, Rule, RunningHub, Stage};

const WEIGHTS: u64 = 300_000;

/// Elsewhere in the workspace HTTP clients are built with TLS, and then want to know whose.
fn builder() -> ClientBuilder {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
}

fn client() -> Client {
    builder().build().unwrap()
}

fn weights() -> Content {
    Content::generated(7, WEIGHTS)
}

fn bytes(content: &Content) -> Vec<u8> {
    let mut out = Vec::new();
    std::io::Read::read_to_end(&mut content.reader(), &mut out).unwrap();
    out
}

fn model() -> Repo {
    Repo::new("org/model").file("config.json", "{}").lfs("model.safetensors", weights()).file("a/b/c.txt", "deep")
}

fn hub(repo: Repo) -> RunningHub {
    Hub::new().repo(repo).token("nobody").start().unwrap()
}

fn file(hub: &RunningHub, name: &str) -> String {
    format!("{}/org/model/resolve/main/{name}", hub.url())
}

async fn get(url: &str) -> Response {
    client().get(url).send().await.unwrap()
}

/// Without following redirects.
async fn plain(method: &str, url: &str) -> Response {
    let client = builder().redirect(Policy::none()).build().unwrap();
    client.request(method.parse().unwrap(), url).send().await.unwrap()
}

async fn range(url: &str, range: &str) -> Response {
    client().get(url).header("range", range).send().await.unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
}

async fn json(url: &str) -> Value {
    let response = get(url).await;
    assert_eq!(response.status(), 200, "{url}");
    response.json().await.unwrap()
}

#[tokio::test]
async fn a_large_file_comes_from_the_cdn_and_a_small_one_from_the_resolve_cache() {
    let hub = hub(model());
    let sha = hub.commit("org/model", "main").unwrap();
    let head = plain("HEAD", &file(&hub, "model.safetensors")).await;
    assert_eq!((head.status().as_u16(), header(&head, "x-repo-commit")), (302, sha.as_str()));
    assert_eq!(header(&head, "x-linked-etag"), format!("\"{}\"", weights().sha256().unwrap()));
    assert_eq!(header(&head, "x-linked-size"), WEIGHTS.to_string());
    assert!(header(&head, "location").starts_with(hub.cdn_url()) && hub.cdn_url() != hub.url());

    let small = plain("HEAD", &file(&hub, "config.json")).await;
    assert_eq!(small.status(), 307);
    assert!(header(&small, "location").starts_with("/api/resolve-cache/models/org/model/"));
    let small = get(&file(&hub, "config.json")).await;
    assert_eq!(header(&small, "etag"), format!("\"{}\"", Content::from("{}").git_oid().unwrap()));
    assert_eq!((header(&small, "x-repo-commit"), header(&small, "content-length")), (sha.as_str(), "2"));
    assert_eq!(small.text().await.unwrap(), "{}");

    assert_eq!(get(&file(&hub, "model.safetensors")).await.bytes().await.unwrap(), bytes(&weights()));
    assert_eq!((hub.bytes_sent("model.safetensors"), hub.bytes_sent("org/model/config.json")), (WEIGHTS, 2));
    assert_eq!((hub.bytes_sent("safetensors"), hub.content_bytes_sent()), (0, WEIGHTS + 2));
    assert_eq!((hub.requests("HEAD", "/resolve/main/"), hub.requests("", "model.safetensors")), (2, 3));
    assert!(hub.log().iter().all(|request| !request.authorized));
    hub.clear_log();
    assert!(hub.log().is_empty());
}

#[tokio::test]
async fn ranges_are_exact() {
    let (hub, whole) = (hub(model()), bytes(&weights()));
    let url = file(&hub, "model.safetensors");
    for (asked, meant) in [("bytes=0-0", 0..1), ("bytes=65530-65545", 65_530..65_546), ("bytes=-5", 299_995..300_000)] {
        let answer = range(&url, asked).await;
        let place = format!("bytes {}-{}/{WEIGHTS}", meant.start, meant.end - 1);
        assert_eq!((answer.status().as_u16(), header(&answer, "content-range")), (206, place.as_str()));
        assert_eq!(answer.bytes().await.unwrap(), whole[meant]);
    }
    let beyond = range(&url, "bytes=300000-").await;
    assert_eq!((beyond.status().as_u16(), header(&beyond, "content-range")), (416, "bytes */300000"));
    let head = client().head(&url).send().await.unwrap();
    assert_eq!((header(&head, "content-length"), header(&head, "accept-ranges")), ("300000", "bytes"));
    assert_eq!(hub.bytes_sent("model.safetensors"), 1 + 16 + 5);
}

#[tokio::test]
async fn listings_come_in_pages_and_say_what_lies_in_lfs() {
    let repo = (0..25).fold(model(), |repo, number| repo.file(format!("many/{number:02}.txt"), "x"));
    let hub = Hub::new().repo(repo).page(10).start().unwrap();
    let (mut url, mut found) = (format!("{}/api/models/org/model/tree/main?recursive=true", hub.url()), Vec::new());
    let mut pages = 0;
    loop {
        let answer = get(&url).await;
        let next = header(&answer, "link").strip_prefix('<').and_then(|link| Some(link.split_once('>')?.0.to_owned()));
        found.extend(answer.json::<Vec<Value>>().await.unwrap());
        pages += 1;
        match next {
            Some(next) => url = next,
            None => break,
        }
    }
    let files = |kind: &str| found.iter().filter(|entry| entry["type"] == kind).count();
    assert_eq!((pages, files("file"), files("directory")), (4, 28, 3));
    let weights_entry = found.iter().find(|entry| entry["path"] == "model.safetensors").unwrap();
    assert_eq!((&weights_entry["size"], &weights_entry["lfs"]["size"]), (&WEIGHTS.into(), &WEIGHTS.into()));
    assert_eq!(weights_entry["lfs"]["oid"], weights().sha256().unwrap());

    let top = json(&format!("{}/api/models/org/model/tree/main", hub.url())).await;
    let names: Vec<&str> = top.as_array().unwrap().iter().map(|entry| entry["path"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "config.json", "many", "model.safetensors"]);
    let below = json(&format!("{}/api/models/org/model/tree/main/a/b", hub.url())).await;
    assert_eq!(below[0]["path"], "a/b/c.txt");
}

#[tokio::test]
async fn models_are_described_and_found() {
    let other = Repo::new("else/Other-GGUF").lfs("x.gguf", "gguf").downloads(5).label("conversational");
    let hub = Hub::new().repo(model().label("mlx")).repo(other).start().unwrap();
    let info = json(&format!("{}/api/models/org/model", hub.url())).await;
    assert_eq!((&info["id"], &info["gated"], &info["private"]), (&"org/model".into(), &false.into(), &false.into()));
    assert_eq!(info["sha"], hub.commit("org/model", "main").unwrap());
    assert_eq!(info["siblings"].as_array().unwrap().len(), 3);
    let info = json(&format!("{}/api/models/org/model/revision/main?blobs=true", hub.url())).await;
    assert_eq!(info["siblings"][2]["lfs"]["sha256"], weights().sha256().unwrap());
    for (query, ids) in [
        ("", vec!["else/Other-GGUF", "org/model"]),
        ("search=OTHER", vec!["else/Other-GGUF"]),
        ("filter=mlx", vec!["org/model"]),
        ("filter=gguf,conversational", vec!["else/Other-GGUF"]),
        ("author=org&filter=gguf", vec![]),
        ("limit=1", vec!["else/Other-GGUF"]),
    ] {
        let found = json(&format!("{}/api/models?{query}", hub.url())).await;
        let found: Vec<&str> = found.as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
        assert_eq!(found, ids, "{query}");
    }
    let url = format!("{}/api/models/org/model/paths-info/main", hub.url());
    let asked = serde_json::json!({ "paths": ["config.json", "nope"] });
    let known: Value = client().post(url).json(&asked).send().await.unwrap().json().await.unwrap();
    assert_eq!((known.as_array().unwrap().len(), &known[0]["path"]), (1, &"config.json".into()));
}

#[tokio::test]
async fn revisions_are_branches_tags_and_commits() {
    let repo = Repo::new("org/model").file("a.txt", "one").tag("v1").file("a.txt", "two").branch("dev/x");
    let hub = hub(repo.file("a.txt", "three"));
    let read = async |revision: &str| {
        let response = get(&format!("{}/org/model/resolve/{revision}/a.txt", hub.url())).await;
        (response.status().as_u16(), header(&response, "x-error-code").to_owned(), response.text().await.unwrap())
    };
    for (revision, text) in [("v1", "one"), ("main", "two"), ("dev%2Fx", "three")] {
        assert_eq!(read(revision).await.2, text);
    }
    assert_eq!(read(&hub.commit("org/model", "v1").unwrap()).await.2, "one");
    let missing = read("nope").await;
    assert_eq!((missing.0, missing.1.as_str()), (404, "RevisionNotFound"));
    let refs = json(&format!("{}/api/models/org/model/refs", hub.url())).await;
    assert_eq!((refs["branches"].as_array().unwrap().len(), &refs["tags"][0]["name"]), (2, &"v1".into()));

    hub.put(Repo::new("org/model").file("a.txt", "pushed")).unwrap();
    assert_eq!(read("main").await.2, "pushed");
}

#[tokio::test]
async fn strangers_see_what_the_hub_shows_them() {
    let gated = Repo::new("org/model").file("config.json", "{}").gated(["member"]);
    let hub = Hub::new().repo(gated).repo(Repo::new("org/secret").file("a", "b").private(["owner"])).token("nobody");
    let hub = hub.start().unwrap();
    let ask = async |path: &str, token: Option<&str>| {
        let request = client().get(format!("{}/{path}", hub.url()));
        let request = if let Some(token) = token { request.bearer_auth(token) } else { request };
        let response = request.send().await.unwrap();
        (response.status().as_u16(), header(&response, "x-error-code").to_owned())
    };
    let (file, gated) = ("org/model/resolve/main/config.json", "GatedRepo".to_owned());
    assert_eq!(ask(file, None).await, (401, gated.clone()));
    assert_eq!(ask(file, Some("nobody")).await, (403, gated));
    assert_eq!(ask(file, Some("wrong")).await, (401, String::new()));
    assert_eq!(ask(file, Some("member")).await.0, 200);
    assert_eq!(ask("api/models/org/model/tree/main", None).await.0, 200, "the listing is open");
    for (path, token, status) in [
        ("api/models/org/secret", None, 401),
        ("api/models/org/secret", Some("nobody"), 404),
        ("api/models/org/secret", Some("owner"), 200),
        ("api/models/org/none", None, 401),
        ("org/model/resolve/main/nope", Some("member"), 404),
    ] {
        assert_eq!(ask(path, token).await.0, status, "{path} {token:?}");
    }
}

#[tokio::test]
async fn a_token_that_reaches_the_cdn_is_told() {
    let hub = hub(model());
    let redirect = plain("GET", &file(&hub, "model.safetensors")).await;
    let leaked = client().get(header(&redirect, "location")).bearer_auth("nobody").send().await.unwrap();
    assert_eq!(leaked.status(), 400);
    assert_eq!(get(&format!("{}/cdn/org/model/x/model.safetensors", hub.cdn_url())).await.status(), 404);
    let followed = client().get(file(&hub, "model.safetensors")).bearer_auth("nobody").send().await.unwrap();
    assert_eq!(followed.status(), 200);
}

#[tokio::test]
async fn an_address_at_the_cdn_grows_old() {
    let hub = hub(model());
    let redirect = plain("GET", &file(&hub, "model.safetensors")).await;
    let address = header(&redirect, "location").to_owned();
    assert_eq!(range(&address, "bytes=0-9").await.status(), 206);
    hub.expire();
    assert_eq!(range(&address, "bytes=0-9").await.status(), 403);
    assert_eq!(range(&file(&hub, "model.safetensors"), "bytes=0-9").await.status(), 206);
    assert_eq!(hub.most_at_once(), 1);
}

#[tokio::test]
async fn a_connection_is_cut_where_the_rule_says_and_only_then() {
    let hub = hub(model());
    hub.rule(Rule::new("model.safetensors", Fault::Cut(100_000)).first(1));
    let url = file(&hub, "model.safetensors");
    let mut answer = get(&url).await;
    let mut received = Vec::new();
    let failed = loop {
        match answer.chunk().await {
            Ok(Some(piece)) => received.extend_from_slice(&piece),
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(failed);
    assert_eq!(received, bytes(&weights())[..100_000]);
    assert_eq!(hub.bytes_sent("model.safetensors"), 100_000);
    let rest = range(&url, "bytes=100000-").await.bytes().await.unwrap();
    assert_eq!(rest, bytes(&weights())[100_000..]);
    assert_eq!(hub.bytes_sent("model.safetensors"), WEIGHTS);
}

#[tokio::test]
async fn bytes_and_lengths_are_wrong_where_the_rule_says() {
    let (hub, whole) = (hub(model()), bytes(&weights()));
    let url = file(&hub, "model.safetensors");
    let with = async |fault: Fault, asked: &str| {
        hub.clear_rules();
        hub.rule(Rule::new("model.safetensors", fault));
        range(&url, asked).await
    };
    let damaged = with(Fault::Corrupt(70_000), "bytes=69999-70001").await.bytes().await.unwrap();
    assert_eq!(damaged[..], [whole[69_999], whole[70_000] ^ 1, whole[70_001]]);
    assert_eq!(with(Fault::Corrupt(70_000), "bytes=0-9").await.bytes().await.unwrap(), whole[..10]);

    let long = with(Fault::Length(5), "bytes=0-9").await;
    assert_eq!(header(&long, "content-length"), "15");
    assert!(long.bytes().await.is_err());
    let short = with(Fault::Length(-5), "bytes=0-9").await;
    assert_eq!((header(&short, "content-length"), header(&short, "content-range")), ("5", "bytes 0-9/300000"));
    assert_eq!(short.bytes().await.unwrap(), whole[..5]);

    let all = with(Fault::IgnoreRange, "bytes=5-9").await;
    assert_eq!((all.status().as_u16(), all.bytes().await.unwrap().len() as u64), (200, WEIGHTS));
    assert_eq!(with(Fault::ShiftRange(3), "bytes=5-9").await.bytes().await.unwrap(), whole[8..13]);
    let slow = Instant::now();
    assert_eq!(with(Fault::Throttle(1000), "bytes=0-499").await.bytes().await.unwrap().len(), 500);
    assert!(slow.elapsed() >= Duration::from_millis(400));
}

#[tokio::test]
async fn answers_are_wrong_where_the_rule_says() {
    let hub = hub(model());
    let url = file(&hub, "config.json");
    let with = async |fault: Fault| {
        hub.clear_rules();
        hub.rule(Rule::new("config.json", fault).stage(Stage::Resolve));
        plain("GET", &url).await
    };
    let limited = with(Fault::rate_limited(7)).await;
    assert_eq!((limited.status().as_u16(), header(&limited, "retry-after")), (429, "7"));
    assert_eq!(header(&with(Fault::gated()).await, "x-error-code"), "GatedRepo");
    assert_eq!(with(Fault::status(503)).await.status(), 503);
    let weak = "W/\"abc\"".to_owned();
    assert_eq!(header(&with(Fault::Etag(weak.clone())).await, "x-linked-etag"), weak);
    assert_eq!(header(&with(Fault::Without("x-repo-commit")).await, "x-repo-commit"), "");
    let elsewhere = with(Fault::Redirect("http://elsewhere.invalid/x".to_owned())).await;
    assert_eq!(header(&elsewhere, "location"), "http://elsewhere.invalid/x");
    with(Fault::Redirect(Fault::REDIRECT_TO_ITSELF.to_owned())).await;
    assert!(client().get(&url).send().await.unwrap_err().is_redirect());
    assert_eq!(with(Fault::Body("<html>".to_owned())).await.text().await.unwrap(), "<html>");
    let huge = with(Fault::HugeJson(1_000_000)).await.json::<Vec<Value>>().await.unwrap();
    assert!(huge.len() > 5_000);
    let slow = Instant::now();
    with(Fault::Delay(Duration::from_millis(100))).await;
    assert!(slow.elapsed() >= Duration::from_millis(100));
}

#[tokio::test]
async fn some_answers_never_come() {
    let hub = hub(model());
    hub.rule(Rule::new("config.json", Fault::Hangup));
    hub.rule(Rule::new("a/b/c.txt", Fault::Silence));
    hub.rule(Rule::new("model.safetensors", Fault::Stall(10)));
    assert!(client().get(file(&hub, "config.json")).send().await.is_err());
    let patience = Duration::from_millis(200);
    let silent = client().get(file(&hub, "a/b/c.txt")).timeout(patience).send().await;
    assert!(silent.unwrap_err().is_timeout());
    let mut stalled = get(&file(&hub, "model.safetensors")).await;
    assert_eq!(stalled.chunk().await.unwrap().unwrap().len(), 10);
    assert!(tokio::time::timeout(patience, stalled.chunk()).await.is_err());
}

#[tokio::test]
async fn a_hostile_listing_is_listed_as_it_was_written() {
    let names = ["../x", "/etc/x", "a/../../x", "nul\0", "back\\slash", &"long".repeat(2000)];
    let repo = names.iter().fold(Repo::new("org/model"), |repo, name| repo.file(*name, "x"));
    let hub = hub(repo.lfs("model.safetensors", weights()).claim_bytes("model.safetensors", 1));
    let listed = json(&format!("{}/api/models/org/model/tree/main?recursive=true", hub.url())).await;
    let listed: Vec<&str> = listed.as_array().unwrap().iter().map(|entry| entry["path"].as_str().unwrap()).collect();
    assert!(names.iter().all(|name| listed.contains(name)), "{listed:?}");
    let head = plain("HEAD", &file(&hub, "model.safetensors")).await;
    assert_eq!(header(&head, "x-linked-size"), "1");
}

#[test]
fn a_hub_ends_when_it_is_dropped() {
    let hub = hub(model());
    let address = hub.url().trim_start_matches("http://").to_owned();
    assert!(std::net::TcpStream::connect(&address).is_ok());
    drop(hub);
    assert!(std::net::TcpStream::connect(&address).is_err());
}

#[test]
fn the_binary_serves_a_folder() {
    use std::io::{BufRead, BufReader, Read, Write};

    let folder = tempfile::tempdir().unwrap();
    let repo = folder.path().join("org/model/sub");
    std::fs::create_dir_all(&repo).unwrap();
    std::fs::write(repo.join("a.txt"), "hello").unwrap();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_test-hub"))
        .arg(folder.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut url = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
    let ask = |path: &str| {
        let address = url.trim().trim_start_matches("http://");
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let redirect = ask("/org/model/resolve/main/sub/a.txt");
    let location = redirect.lines().find_map(|line| line.strip_prefix("location: ")).unwrap().to_owned();
    assert!(ask(&location).ends_with("hello"));
    assert!(ask("/_test/counts").contains("\"org/model/sub/a.txt\":5"));
    child.kill().unwrap();
    child.wait().unwrap();
}

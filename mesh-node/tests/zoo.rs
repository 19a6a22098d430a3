//! Every family's tiny trained model (`models/zoo`), as people use it: a process that serves it, and the 20 questions whose
//! answers it knows, one by one, eight at once, and streamed.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/binary.rs"]
mod binary;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use binary::{Home, Node};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

/// Families for which nobody has trained a model yet: they stand on their comparison with mlx-lm alone.
const UNTRAINED: [&str; 2] = ["mistral3", "mixtral"];

/// Models that one process serves at a time. Each takes a thread and a few MB.
const AT_ONCE: usize = 8;

fn zoo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("models/zoo")
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Every folder of the zoo, in order.
fn animals() -> Vec<String> {
    let folders = fs::read_dir(zoo()).unwrap().map(|entry| entry.unwrap()).filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Puts a model's folder together: its own files, and the tokenizer that all of them share.
fn folder(home: &Home, name: &str, form: &str) -> PathBuf {
    let (from, to) = (zoo().join(name).join(form), home.path().join(format!("{name}-{form}").trim_end_matches('-')));
    fs::create_dir(&to).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(from.join(file), to.join(file)).unwrap();
    }
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(zoo().join(file), to.join(file)).unwrap();
    }
    to
}

struct Probe {
    prompt: String,
    answer: String,
}

fn probes() -> Vec<Probe> {
    let probe = |probe: &Value| {
        let text = |key: &str| probe[key].as_str().unwrap().to_owned();
        Probe { prompt: text("prompt"), answer: text("answer") }
    };
    read(&zoo().join("probes.json"))["probes"].as_array().unwrap().iter().map(probe).collect()
}

/// What the model says, and why it ended.
async fn answer(node: &Node, model: &str, prompt: &str, streamed: bool) -> (String, String) {
    let body = json!({
        "model": model, "temperature": 0, "max_tokens": 40, "stream": streamed,
        "messages": [{ "role": "user", "content": prompt }],
    });
    let post = reqwest::Client::new().post(format!("{}/v1/chat/completions", node.url));
    let reply = post.body(body.to_string()).send().await.unwrap();
    let status = reply.status();
    let text = reply.text().await.unwrap();
    assert!(status.is_success(), "{model}: {text}");
    if !streamed {
        let reply: Value = serde_json::from_str(&text).unwrap();
        let choice = &reply["choices"][0];
        return (
            choice["message"]["content"].as_str().unwrap().into(),
            choice["finish_reason"].as_str().unwrap().into(),
        );
    }
    assert!(text.ends_with("data: [DONE]\n\n"), "{model}: {text}");
    let chunks = text.lines().filter_map(|line| line.strip_prefix("data: {"));
    let (mut said, mut end) = (String::new(), String::new());
    for chunk in chunks {
        let chunk: Value = serde_json::from_str(&format!("{{{chunk}")).unwrap();
        said.push_str(chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
        end.push_str(chunk["choices"][0]["finish_reason"].as_str().unwrap_or_default());
    }
    (said, end)
}

/// Questions that were not answered right, with what was said instead.
async fn wrong(node: &Node, model: &str) -> Vec<String> {
    let probes = probes();
    assert_eq!(probes.len(), 20);
    let mut wrong = Vec::new();
    for (at_once, streamed) in [(1, false), (8, true)] {
        let ask = async |probe: &Probe| {
            let (said, end) = answer(node, model, &probe.prompt, streamed).await;
            let right = said == probe.answer && end == "stop";
            (!right).then(|| format!("{model}, {at_once} at once: {:?}: {said:?} ({end})", probe.prompt))
        };
        wrong.extend(stream::iter(&probes).map(ask).buffered(at_once).collect::<Vec<_>>().await.into_iter().flatten());
    }
    wrong
}

#[test]
fn every_family_has_a_trained_model_and_every_model_a_family() {
    let family = |name: &str| runtime_mlx::family_of(name).unwrap_or_else(|| panic!("nobody computes {name}"));
    let kept: BTreeSet<&str> = animals()
        .iter()
        .map(|name| family(read(&zoo().join(name).join("config.json"))["model_type"].as_str().unwrap()))
        .collect();
    let served: BTreeSet<&str> = runtime_mlx::families().into_iter().map(family).collect();
    let without: Vec<&str> = served.difference(&kept).copied().collect();
    assert_eq!(without, UNTRAINED);
}

/// `| name | cells… |` of a table.
fn cells(line: &str) -> Option<Vec<&str>> {
    line.strip_prefix("| ")?.strip_suffix(" |").map(|cells| cells.split(" | ").collect())
}

/// What the maker of the zoo says of a model: its features, and how many parameters it has.
fn told(name: &str) -> (String, String) {
    let readme = fs::read_to_string(zoo().join("../../scripts/zoo/README.md")).unwrap();
    let mut rows = readme.lines().filter_map(cells).filter(|row| row.len() == 4 && row[0] == name);
    let row = rows.next().unwrap_or_else(|| panic!("scripts/zoo/README.md does not tell of {name}"));
    (row[1].to_owned(), row[2].to_owned())
}

#[test]
fn the_page_of_families_is_what_there_is() {
    let page = zoo().join("../../docs/families.md");
    let text = fs::read_to_string(&page).unwrap();
    let start = text.find("| family |").unwrap();
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("runtime-mlx/tests/golden/families");
    let mut table = "| family | `model_type` | cases beside mlx-lm | trained model: parameters, right of 20 in bf16 and in 4 bit, features |\n".to_owned();
    table.push_str("| --- | --- | --- | --- |\n");
    let families: BTreeSet<&str> =
        runtime_mlx::families().into_iter().map(|name| runtime_mlx::family_of(name).unwrap()).collect();
    for family in families {
        let names = runtime_mlx::families().into_iter().filter(|name| runtime_mlx::family_of(name) == Some(family));
        let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
        let cases = fs::read_dir(goldens.join(family)).unwrap().map(|entry| entry.unwrap().path());
        let mut cases: Vec<String> = cases
            .filter(|path| path.extension().is_some_and(|end| end == "json"))
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        cases.sort();
        let kept = animals().into_iter().filter(|name| {
            let config = read(&zoo().join(name).join("config.json"));
            runtime_mlx::family_of(config["model_type"].as_str().unwrap()) == Some(family)
        });
        let trained: Vec<String> = kept
            .map(|name| {
                let (features, parameters) = told(&name);
                format!("{name}: {parameters}, 20 and 20; {features}")
            })
            .collect();
        let trained = if trained.is_empty() { "none".to_owned() } else { trained.join("<br>") };
        table.push_str(&format!("| {family} | {} | {} | {trained} |\n", names.join(", "), cases.join(", ")));
    }
    let wanted = format!("{}{table}", &text[..start]);
    if std::env::var_os("UPDATE_FAMILIES").is_some() {
        fs::write(&page, wanted).unwrap();
    } else {
        assert_eq!(text, wanted, "UPDATE_FAMILIES=1 writes the page anew");
    }
}

async fn all_are_right(form: &str) {
    let mut wrongs = Vec::new();
    for names in animals().chunks(AT_ONCE) {
        let home = Home::new();
        let folders: Vec<PathBuf> = names.iter().map(|name| folder(&home, name, form)).collect();
        let flags: Vec<String> = folders.iter().map(|folder| format!("--mlx-file {}", folder.display())).collect();
        // Nobody reads what it logs: some lines for each request would fill the pipe, and stop it.
        let node = Node::start_in(home, &flags.join(" "), &[("MESH_LLM_LOG", "warn")]).await;
        for folder in &folders {
            wrongs.extend(wrong(&node, folder.file_name().unwrap().to_str().unwrap()).await);
        }
        node.signal("INT").await;
        assert!(node.end().await.success());
    }
    assert!(wrongs.is_empty(), "{} wrong: {wrongs:#?}", wrongs.len());
}

#[tokio::test]
async fn every_family_answers_its_questions_from_bf16() {
    all_are_right("").await;
}

#[tokio::test]
async fn every_family_answers_its_questions_from_4_bit() {
    all_are_right("4bit").await;
}

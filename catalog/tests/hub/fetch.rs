//! From a repository to model files, and what is refused before it costs anything.

use std::fs;

use catalog::{
    CatalogError, Format, fetch,
    hub::{Fetched, Hub, Wanted},
};
use test_hub::{Content, Fault, Repo, Rule};

use crate::support::{Bench, REPO, names, small};

async fn mlx(hub: &Hub, families: &[&str]) -> Result<Fetched, CatalogError> {
    fetch(REPO, Wanted { format: Some(Format::Mlx), families, projector: false }, hub, |_| {}).await
}

/// A node runs it as a task of its own.
fn sendable<T: Send>(future: T) -> T {
    future
}

async fn gguf(hub: &Hub, name: &str, projector: bool) -> Result<Fetched, CatalogError> {
    sendable(fetch(name, Wanted { format: None, families: &[], projector }, hub, |_| {})).await
}

#[tokio::test]
async fn an_mlx_repository_becomes_a_model() {
    let bench = Bench::of(small());
    let fetched = mlx(&bench.hub(), &["qwen3"]).await.unwrap();
    assert_eq!(fetched.files.id.as_str(), "model");
    assert_eq!((fetched.files.format(), fetched.unreachable), (Format::Mlx, None));
    assert!(fetched.files.dir.join("model.safetensors").is_file());
    let again = mlx(&bench.offline(), &["qwen3"]).await.unwrap();
    assert_eq!((again.files, again.commit), (fetched.files, fetched.commit));
}

#[tokio::test]
async fn a_family_that_mlx_cannot_serve_costs_a_config_and_nothing_else() {
    let bench = Bench::of(small());
    let said = mlx(&bench.hub(), &["llama", "gemma3"]).await.unwrap_err().to_string();
    assert!(said.contains("\"qwen3\"") && said.contains("llama, gemma3") && said.contains("--gguf"), "{said}");
    assert_eq!(bench.server.bytes_sent("model.safetensors"), 0);
    assert!(!bench.cache().join("models--org--model/snapshots").exists());
}

#[tokio::test]
async fn the_index_decides_which_weights_come() {
    let index = r#"{"weight_map":{"a":"part-1.safetensors","b":"part-2.safetensors"}}"#;
    let repo = Repo::new(REPO)
        .file("config.json", r#"{"model_type":"qwen3"}"#)
        .file("model.safetensors.index.json", index)
        .lfs("part-1.safetensors", Content::generated(1, 1000))
        .lfs("consolidated.safetensors", Content::generated(3, 1_000_000));
    let bench = Bench::of(repo.clone());
    let said = mlx(&bench.hub(), &["qwen3"]).await.unwrap_err().to_string();
    assert!(said.contains("part-2.safetensors"), "{said}");
    assert_eq!(bench.server.bytes_sent("part-1.safetensors"), 0);
    bench.server.put(repo.lfs("part-2.safetensors", Content::generated(2, 1000))).unwrap();
    let fetched = mlx(&bench.hub(), &["qwen3"]).await.unwrap();
    let expected = ["config.json", "model.safetensors.index.json", "part-1.safetensors", "part-2.safetensors"];
    assert_eq!(names(&fetched.files.dir), expected);
    // One that went missing since is named.
    fs::remove_file(fetched.files.dir.join("part-2.safetensors")).unwrap();
    let said = mlx(&bench.offline(), &["qwen3"]).await.unwrap_err().to_string();
    assert!(said.contains("offline") && said.contains("part-2.safetensors"), "{said}");
}

#[tokio::test]
async fn a_gguf_model_is_called_what_its_file_is_called() {
    let header = || Content::from(b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec());
    let files =
        |repo: Repo, name: &str, seed| repo.lfs(name, Content::joined([header(), Content::generated(seed, 1000)]));
    let repo = files(Repo::new(REPO), "Q4/Toy-Q4_0-00001-of-00002.gguf", 1);
    let repo = files(repo, "Q4/Toy-Q4_0-00002-of-00002.gguf", 2);
    let repo = files(files(repo, "Toy-Q8_0.gguf", 3), "mmproj-F16.gguf", 4);
    let bench = Bench::of(repo.file("config.json", "{}"));
    let hub = bench.hub();
    let said = gguf(&hub, REPO, false).await.unwrap_err().to_string();
    assert!(said.contains(":Q4_0") && said.contains(":Q8_0"), "{said}");
    let fetched = gguf(&hub, "org/model:q4_0", false).await.unwrap();
    assert_eq!(fetched.files.id.as_str(), "Toy-Q4_0");
    let parts = fetched.files.gguf.unwrap().parts;
    assert!(parts.len() == 2 && parts[1].ends_with("Q4/Toy-Q4_0-00002-of-00002.gguf"), "{parts:?}");
    assert_eq!(bench.server.content_bytes_sent(), 2048, "nothing else was fetched");
    let url = format!("{}/{REPO}/blob/main/Toy-Q8_0.gguf", bench.server.url());
    let fetched = gguf(&hub, &url, false).await.unwrap();
    assert_eq!(fetched.files.id.as_str(), "Toy-Q8_0");
    let said = gguf(&bench.offline(), "org/model:BF16", false).await.unwrap_err().to_string();
    assert!(said.contains("offline") && said.contains("BF16"), "{said}");
}

#[tokio::test]
async fn a_hub_that_is_gone_does_not_keep_a_model_from_being_served() {
    let bench = Bench::of(small());
    let gone = Hub::new(catalog::hub::HubConfig { endpoint: "http://127.0.0.1:9".into(), ..bench.config() }).unwrap();
    let said = mlx(&gone, &["qwen3"]).await.unwrap_err().to_string();
    assert!(said.contains("tried 5 times"), "{said}");
    mlx(&bench.hub(), &["qwen3"]).await.unwrap();
    let served = mlx(&gone, &["qwen3"]).await.unwrap();
    assert!(served.unreachable.unwrap().contains("tried 5 times"));
    bench.server.rule(Rule::new("/api/models/", Fault::status(503)));
    assert!(mlx(&bench.hub(), &["qwen3"]).await.unwrap().unreachable.unwrap().contains("503"));
    // What is not whole here is not served, and the reason is the hub's.
    fs::remove_file(served.files.dir.join("model.safetensors")).unwrap();
    let said = mlx(&gone, &["qwen3"]).await.unwrap_err().to_string();
    assert!(said.contains("tried 5 times"), "{said}");
}

#[tokio::test]
async fn the_hub_is_searched_for_words_and_formats() {
    let repo = |id: &str, tag: &str, downloads| Repo::new(id).file("config.json", "{}").label(tag).downloads(downloads);
    let hub = test_hub::Hub::new().repo(repo("mlx/Qwen3-4B", "mlx", 5)).repo(repo("gguf/Qwen3-4B", "gguf", 9));
    let bench = Bench::new(hub.repo(repo("mlx/Qwen3-8B", "mlx", 7).gated(["t"])).repo(repo("mlx/Llama", "mlx", 99)));
    let search = async |words, format, most| {
        let found = bench.hub().search(words, format, most).await.unwrap();
        found.into_iter().map(|found| (found.repo, found.gated)).collect::<Vec<_>>()
    };
    let (small, large) = (("mlx/Qwen3-4B".to_owned(), false), ("mlx/Qwen3-8B".to_owned(), true));
    assert_eq!(search("qwen3", Some(Format::Mlx), 10).await, [large.clone(), small]);
    assert_eq!(search("qwen3", None, 10).await.len(), 3);
    assert_eq!(search("qwen3", Some(Format::Mlx), 1).await, [large]);
    assert!(search("x & y = z", None, 10).await.is_empty());
    assert!(bench.offline().search("qwen3", None, 10).await.unwrap_err().to_string().contains("offline"));
}

//! `mesh-llm models` as a person or a script runs it: tables, JSON, exit codes.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/binary.rs"]
mod binary;

use std::collections::BTreeSet;

use binary::Home;
use serde_json::Value;

async fn asked(home: &Home, line: &str) -> String {
    let (code, stdout, stderr) = home.run(line).await;
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{line}");
    stdout
}

async fn models(home: &Home, line: &str) -> Vec<Value> {
    let json: Value = serde_json::from_str(&asked(home, &format!("{line} --json")).await).unwrap();
    assert!(json["memory"]["total_bytes"].as_u64().unwrap() > 0, "{line}");
    json["models"].as_array().unwrap().clone()
}

fn ids(models: &[Value]) -> BTreeSet<String> {
    models
        .iter()
        .map(|model| format!("{} {}", model["id"].as_str().unwrap(), model["engine"].as_str().unwrap()))
        .collect()
}

#[tokio::test]
async fn the_list_has_what_is_bundled_and_the_catalog_and_its_filters_only_take_away() {
    let home = Home::new();
    let all = models(&home, "models list --all").await;
    assert!(all.len() > 60, "{}", all.len());
    assert_eq!(ids(&all).len(), all.len());
    assert_eq!((&all[0]["id"], &all[0]["source"]), (&"mesh-tiny".into(), &"bundled".into()));
    let served = models(&home, "models list").await;
    assert!(served.iter().all(|model| model["served"] == true) && served.len() < all.len());
    let (mlx, gguf) = (models(&home, "models list --mlx").await, models(&home, "models list --gguf").await);
    assert!(mlx.iter().all(|model| model["engine"] == "mlx") && gguf.iter().all(|model| model["engine"] == "gguf"));
    assert_eq!(mlx.len() + gguf.len(), served.len());
    let fitting = models(&home, "models list --fits --all").await;
    assert!(fitting.iter().all(|model| model["fit"]["verdict"] != "too_large"));
    for some in [&served, &mlx, &gguf, &fitting] {
        assert!(ids(some).is_subset(&ids(&all)));
    }
    assert!(ids(&served).contains("mesh-tiny mlx") && ids(&served).contains("mesh-tiny gguf"));
}

#[tokio::test]
async fn the_list_for_people_is_one_line_a_model() {
    let home = Home::new();
    let (text, all) = (asked(&home, "models list --all").await, models(&home, "models list --all").await);
    let rows = text.lines().take_while(|line| !line.is_empty()).count();
    assert_eq!(rows, all.len() + 1);
    assert!(text.contains("not compared with the hub"), "{text}");
}

#[tokio::test]
async fn a_model_is_shown_by_name_and_by_path() {
    let home = Home::new();
    let text = asked(&home, "models show Qwen3-4B-MLX").await;
    for said in
        ["mlx-community/Qwen3-4B-4bit", "Apache-2.0", "never compared with the hub", "keys and values", "together"]
    {
        assert!(text.contains(said), "{said}: {text}");
    }
    let [by_name] = models(&home, "models show Qwen3-4B-MLX").await.try_into().unwrap();
    let [by_repository] = models(&home, "models show mlx-community/Qwen3-4B-4bit").await.try_into().unwrap();
    assert_eq!(by_name["fit"]["weight_bytes"], by_repository["fit"]["weight_bytes"]);
    assert_eq!((&by_name["verified"], &by_name["weight_bytes_estimated"]), (&Value::Null, &true.into()));

    let [mlx, gguf] = models(&home, "models show mesh-tiny").await.try_into().unwrap();
    assert_eq!((&mlx["engine"], &gguf["engine"]), (&"mlx".into(), &"gguf".into()));
    assert_eq!(mlx["weight_bytes_estimated"], false);
    let folder = std::fs::read_dir(home.path().join("cache/bundled")).unwrap().next().unwrap().unwrap().path();
    let [local] = models(&home, &format!("models show --mlx {}", folder.display())).await.try_into().unwrap();
    assert_eq!((&local["source"], &local["weight_bytes"]), (&"local".into(), &mlx["weight_bytes"]));
}

#[tokio::test]
async fn what_is_not_there_is_one_line_and_exit_code_1() {
    let home = Home::new();
    for (line, said) in [
        ("models show Qwen3-4B-MLZ", "did you mean Qwen3-4B-MLX"),
        ("models show nobody-knows-it", "models list --all"),
        ("models show ./nothing", "no such file or folder"),
        ("models show Qwen3-4B-MLX --gguf --json", "is mlx"),
    ] {
        let (code, stdout, stderr) = home.run(line).await;
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (Some(1), "", 1), "{line}: {stderr}");
        assert!(stderr.starts_with("mesh-llm: ") && stderr.contains(said), "{line}: {stderr}");
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_exit_code_2() {
    for line in ["models", "models show", "models list --mlx --gguf", "models list x", "models find"] {
        let (code, stdout, stderr) = Home::new().run(line).await;
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{line}: {stderr}");
    }
}

//! How models look to people, and as JSON; must not depend on this machine.

use catalog::{
    Entry, Format, entry,
    fit::{Kv, Weights},
};

use super::*;
use crate::models::{
    Answer,
    describe::Beside,
    engines::{self, Engines},
};

const GIB: u64 = 1 << 30;

fn memory(total: u64, free: u64) -> Memory {
    Memory { total_bytes: Some(total * GIB), free_bytes: Some(free * GIB) }
}

fn cards(ids: &[&str], memory: Memory) -> Vec<ModelCard> {
    let engines = Engines { mlx_families: vec!["qwen3"], llama_server: true };
    let beside = Beside { memory, engines: &engines };
    ids.iter().map(|id| beside.entry(entry(id).unwrap())).collect()
}

#[test]
fn a_list_is_read_at_a_glance() {
    let memory = memory(16, 12);
    let ids = ["Qwen3-0.6B-MLX", "Qwen3-8B-GGUF", "Qwen3-30B-A3B-MLX", "Qwen3-32B-GGUF", "DeepSeek-V3-0324-GGUF"];
    insta::assert_snapshot!(list(&cards(&ids, memory), memory), @r"
     name                      weights  engine        context  fits             runs here
     Qwen3-0.6B-MLX         ~319.7 MiB  MLX             40960  39348 tokens     yes
     Qwen3-8B-GGUF            ~4.7 GiB  llama-server    40960  yes              yes
     Qwen3-30B-A3B-MLX       ~16.0 GiB  MLX             40960  4.6 GiB short    not yet
     Qwen3-32B-GGUF          ~18.7 GiB  llama-server    40960  7.3 GiB short    no
     DeepSeek-V3-0324-GGUF  ~382.0 GiB  llama-server   163840  370.5 GiB short  no

    fits: one answer that fills the context, in this machine's 16.0 GiB
    ~: estimated from parameters and quantisation, not compared with the hub
    ");
    assert!(list(&[], memory).contains("--all"));
}

#[test]
fn widths_hold_in_a_pipe() {
    let memory = memory(16, 12);
    let ids: Vec<&str> = catalog::entries().iter().map(|entry| entry.id.as_str()).collect();
    let text = list(&cards(&ids, memory), memory);
    let rows: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).collect();
    assert_eq!(rows.len(), ids.len() + 1, "a row is a line");
    let column = rows[0].find("engine").unwrap();
    for row in &rows[1..] {
        assert!(row[column..].starts_with("MLX ") || row[column..].starts_with("llama-server "), "{row}");
        assert!(row.len() < 140 && !row.ends_with(' '), "{row}");
    }
}

#[test]
fn a_model_is_shown_with_its_account() {
    let memory = memory(16, 6);
    insta::assert_snapshot!(show(&cards(&["Qwen3-8B-MLX"], memory), memory), @r"
    Qwen3-8B-MLX
     repository  mlx-community/Qwen3-8B-4bit
     engine      MLX
     stored as   4-bit
     family      qwen3
     parameters  8.2 billion
     context     40960 tokens
     can         chat, tools, reasoning
     licence     Apache-2.0
     drafter     Qwen3-0.6B-MLX
     checked     never compared with the hub; it may be wrong in parts
     runs here   yes

    memory for one answer
     weights                          ~4.3 GiB  estimated from parameters and quantisation
     keys and values of 19741 tokens   2.7 GiB  144.0 KiB a token
     kept beside them                  4.5 GiB  room to grow, and prompts of ended answers
     to compute with                   1.3 GiB
     together                         12.8 GiB  of 12.8 GiB that models may take
    this machine of 16.0 GiB: fits with 19741 of 40960 tokens of context
    with the 6.0 GiB that are free now: does not fit: 161.8 MiB are missing even for a short context
    ");
}

#[test]
fn a_gguf_file_that_is_here_is_told_by_the_plan_that_serves_it() {
    let cache = tempfile::tempdir().unwrap();
    let engines = Engines { mlx_families: Vec::new(), llama_server: true };
    let files = catalog::resolve("mesh-tiny", cache.path(), Some(Format::Gguf), None).unwrap();
    let card = |memory| Beside { memory, engines: &engines }.files(&files, Source::Bundled).unwrap();
    let fit = card(memory(1, 1)).fit.unwrap();
    let usable = GIB * 8 / 10;
    let headers = [catalog::gguf::read(&files.gguf.as_ref().unwrap().parts[0]).unwrap()];
    let plan = runtime_gguf_bridge::account(&headers, engines::PARALLEL, usable).unwrap();
    assert_eq!((fit.account_tokens, fit.slots), (plan.context_tokens, Some(plan.slots)));
    assert_eq!((fit.kv_bytes, fit.total_bytes, fit.usable_bytes), (Some(plan.kv_bytes), plan.total(), usable));
    assert_eq!((&fit.verdict, plan.slots > 1), (&FitVerdict::WholeContext, true));
    let text = show(&[card(memory(1, 1))], memory(1, 1));
    assert!(text.contains("as llama-server gets it") && text.contains("answers of 4096 tokens"), "{text}");
    // A projector is paid for first.
    let eyes = cache.path().join("eyes.gguf");
    std::fs::write(&eyes, vec![0; 1 << 20]).unwrap();
    let gguf = catalog::GgufFiles { mmproj: Some(eyes), ..files.gguf.clone().unwrap() };
    let seeing = catalog::ModelFiles { gguf: Some(gguf), ..files.clone() };
    let memory = memory(1, 1);
    let fit = Beside { memory, engines: &engines }.files(&seeing, Source::Bundled).unwrap().fit.unwrap();
    assert!(fit.workspace_bytes > plan.workspace_bytes && fit.total_bytes <= usable, "{fit:?}");
    let nothing = Memory { total_bytes: Some(60 << 20), free_bytes: None };
    let small = card(nothing).fit.unwrap();
    assert!(matches!(small.verdict, FitVerdict::TooLarge { missing_bytes } if missing_bytes > 0), "{small:?}");
}

#[test]
fn what_is_not_known_is_said() {
    let memory = memory(1024, 1000);
    insta::assert_snapshot!(show(&cards(&["DeepSeek-V3-0324-MLX"], memory), memory), @r"
    DeepSeek-V3-0324-MLX
     repository  mlx-community/DeepSeek-V3-0324-4bit
     engine      MLX
     stored as   4-bit
     family      deepseek_v3
     parameters  671.0 billion, 37.0 billion of them for each token
     context     163840 tokens
     can         chat, tools
     licence     MIT
     checked     never compared with the hub; it may be wrong in parts
     runs here   no: MLX does not compute this family yet; as GGUF it runs in llama-server

    memory for one answer
     weights          ~351.5 GiB  estimated from parameters and quantisation
     keys and values   not known
     to compute with    81.9 GiB
     together          433.4 GiB  of 819.2 GiB that models may take
    this machine of 1.0 TiB: the weights fit; what a context takes is not known before they are there
    ");
    let nothing = Memory { total_bytes: None, free_bytes: None };
    let text = show(&cards(&["Qwen3-8B-MLX"], nothing), nothing);
    assert!(text.ends_with("this machine's memory is not"), "{text}");
}

#[test]
fn what_was_compared_with_the_hub_is_told_with_its_day() {
    let seen =
        Entry { bytes: Some(5 << 30), verified: Some("2026-11-21".into()), ..entry("Qwen3-8B-GGUF").unwrap().clone() };
    let engines = Engines { mlx_families: Vec::new(), llama_server: false };
    let memory = memory(16, 12);
    let card = Beside { memory, engines: &engines }.entry(&seen);
    let text = show(std::slice::from_ref(&card), memory);
    for said in ["compared with the hub on 2026-11-21", " 5.0 GiB", "no: no llama-server"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert!(!text.contains('~') && !text.contains("estimated"), "{text}");
    let text = list(&[card], memory);
    assert!(text.contains("no llama-server") && !text.contains('~'), "{text}");
}

#[test]
fn the_account_on_the_screen_adds_up() {
    for card in cards(&["Qwen3-8B-MLX", "Qwen3-8B-GGUF", "gemma-3-27b-it-GGUF"], memory(32, 32)) {
        let fit = card.fit.unwrap();
        let sum = fit.weight_bytes + fit.kv_bytes.unwrap() + fit.reserve_bytes + fit.workspace_bytes;
        assert_eq!(fit.total_bytes, sum);
        assert!(fit.total_bytes <= fit.usable_bytes, "{}", card.id);
    }
}

#[test]
fn mlx_needs_more_for_the_same_context_than_llama_server() {
    let needs = catalog::fit::Needs {
        weights: Weights { bytes: GIB, estimated: false },
        kv: Some(Kv { whole: 1 << 17, ..Kv::default() }),
        context_tokens: 8192,
    };
    let total = |format| catalog::fit::account(needs, engines::rules(format), 16 * GIB).total();
    assert!(total(Format::Mlx) > total(Format::Gguf));
}

#[test]
fn json_has_what_a_script_asks_for() {
    let memory = memory(16, 12);
    let models = cards(&["Qwen3-32B-GGUF"], memory);
    let json = serde_json::to_value(Answer { memory, models: &models }).unwrap();
    insta::assert_json_snapshot!(json, @r#"
    {
      "memory": {
        "total_bytes": 17179869184,
        "free_bytes": 12884901888
      },
      "models": [
        {
          "id": "Qwen3-32B-GGUF",
          "source": "catalog",
          "engine": "gguf",
          "repository": "unsloth/Qwen3-32B-GGUF",
          "family": "qwen3",
          "quantization": "Q4_K_M",
          "parameters": 32800000000,
          "context_tokens": 40960,
          "licence": "Apache-2.0",
          "capabilities": [
            "chat",
            "tools",
            "reasoning"
          ],
          "drafter": "Qwen3-0.6B-GGUF",
          "weight_bytes": 20049000000,
          "weight_bytes_estimated": true,
          "verified": null,
          "served": true,
          "runs_here": false,
          "fit": {
            "verdict": "too_large",
            "missing_bytes": 7813711915,
            "now": {
              "verdict": "too_large",
              "missing_bytes": 10906088369
            },
            "account_tokens": 512,
            "weight_bytes": 20049000000,
            "kv_bytes": 134217728,
            "kv_bytes_per_token": 262144,
            "reserve_bytes": 0,
            "workspace_bytes": 1374389534,
            "total_bytes": 21557607262,
            "usable_bytes": 13743895347
          }
        }
      ]
    }
    "#);
}

//! Tiny embedding models and rerankers in a real llama-server, against what it answers itself. Needs
//! `MESH_LLM_TEST_LLAMA_SERVER`, as `tests/child.rs` does.
#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test's helpers may fail loudly, and say what they skip"
)]

mod pool_support;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use engine::{Engine, pool::Skills};
use mesh_proto::{
    GenerateError, GenerateRequest, ModelId, PoolInputs, PoolRequest, PoolTask, Prompt, RequestId, TokenId,
};
use pool_support::{CONTEXT, Pooled, WIDTH, with_numbers, write_bert};
use runtime_gguf_bridge::{
    GgufEngine, GgufOptions, start,
    testing::{Server, ServerOptions},
};
use serde_json::{Value, json};
use tokio::time::timeout;

fn binary() -> Option<PathBuf> {
    let found = std::env::var_os("MESH_LLM_TEST_LLAMA_SERVER").map(PathBuf::from);
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "MESH_LLM_TEST_LLAMA_SERVER is not set");
        eprintln!("skipped: MESH_LLM_TEST_LLAMA_SERVER is not set");
    }
    found
}

async fn serve(binary: &Path, file: &Path) -> GgufEngine {
    let options = GgufOptions {
        files: catalog::open_gguf(file, None).unwrap(),
        llama_server: Some(binary.into()),
        guard: vec![env!("CARGO_BIN_EXE_gguf-guard").into()],
        context_tokens: None,
        parallel: 4,
        max_waiting: 100,
        max_memory: Some(1 << 30),
        sharers: 1,
        kv_bits: None,
        gpu_layers: None,
        draft: None,
        extra: vec!["-t".into(), "1".into()],
    };
    start(options, &mut |_| {}).await.unwrap().engine
}

/// llama-server as a person would start it.
async fn direct(binary: &Path, file: &Path, words: &str) -> Server {
    let args = words.split_whitespace().map(Into::into).chain(["-m".into(), file.into()]);
    let options = ServerOptions {
        binary: binary.to_owned(),
        guard: vec![env!("CARGO_BIN_EXE_gguf-guard").into()],
        args: args.collect(),
        name: "direct".to_owned(),
    };
    Server::start(options, &mut |_| {}).await.unwrap()
}

fn asked(task: PoolTask) -> PoolRequest {
    PoolRequest { id: RequestId("r".into()), model: ModelId::new("tiny"), task }
}

fn texts(texts: &[String]) -> PoolRequest {
    asked(PoolTask::Embed { inputs: PoolInputs::Texts(texts.to_vec()), dimensions: None })
}

fn field(error: GenerateError) -> String {
    match error {
        GenerateError::Invalid { field, .. } => field,
        other => panic!("{other:?}"),
    }
}

fn near(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4)
}

async fn directly(server: &Server, input: &Value) -> Vec<f32> {
    let answer = server.call("/v1/embeddings", &json!({ "input": input }), Duration::from_secs(60)).await.unwrap();
    answer["data"][0]["embedding"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedding_model_is_known_by_its_header_and_gives_what_llama_server_gives() {
    let Some(binary) = binary() else { return };
    let dir = tempfile::tempdir().unwrap();
    let sentences: Vec<String> = (0..20).map(|at| format!("{} sea {at}", "so ".repeat(at))).collect();
    for (pooled, words) in [(Pooled::Mean, ""), (Pooled::Cls, ""), (Pooled::Unsaid, "--pooling mean")] {
        let file = dir.path().join("tiny.gguf");
        write_bert(&file, pooled);
        let engine = serve(&binary, &file).await;
        assert_eq!(engine.skills(), Skills { generates: false, embeds: true, reranks: false });
        assert_eq!(engine.descriptor().context_tokens, CONTEXT);
        let server = direct(&binary, &file, &format!("--embeddings -t 1 -np 1 --no-warmup {words}")).await;
        let made = engine.pool(texts(&sentences[..12])).await.unwrap();
        for (row, text) in made.rows.iter().zip(&sentences) {
            assert!(near(row, &directly(&server, &json!(text)).await), "{text}");
            let length: f32 = row.iter().map(|value| value * value).sum();
            assert!(row.len() == WIDTH as usize && (length - 1.0).abs() < 1e-3, "{length}");
        }
        assert!(!near(&made.rows[0], &made.rows[1]));
        assert_eq!(engine.pool(texts(&sentences[3..4])).await.unwrap().rows.len(), 1);
        // Tokens are taken as they are; a text's are those, with a mark before and behind.
        let tokens = engine.tokenize(sentences[2].clone(), true).await.unwrap();
        let same = asked(PoolTask::Embed { inputs: PoolInputs::Tokens(vec![tokens.clone()]), dimensions: None });
        let same = engine.pool(same).await.unwrap();
        assert!(near(&same.rows[0], &made.rows[2]));
        assert_eq!(same.prompt_tokens as usize, tokens.len());
        let cut = PoolTask::Embed { inputs: PoolInputs::Texts(sentences[2..3].to_vec()), dimensions: Some(4) };
        let cut = engine.pool(asked(cut)).await.unwrap().rows.remove(0);
        let length = made.rows[2][..4].iter().map(|value| value * value).sum::<f32>().sqrt();
        let wanted: Vec<f32> = made.rows[2][..4].iter().map(|value| value / length).collect();
        assert!(near(&cut, &wanted));
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_embedding_model_cannot_do_is_refused_by_name() {
    let Some(binary) = binary() else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tiny.gguf");
    write_bert(&file, Pooled::Mean);
    let engine = serve(&binary, &file).await;
    let prompt = GenerateRequest::new(ModelId::new("tiny"), Prompt::Text("hello".into()));
    assert_eq!(field(engine.generate(prompt).await.map(drop).unwrap_err()), "model");
    let rerank = PoolTask::Rerank { query: "q".into(), documents: vec!["d".into()] };
    assert_eq!(field(engine.pool(asked(rerank)).await.unwrap_err()), "model");
    let embed = |inputs, dimensions| asked(PoolTask::Embed { inputs, dimensions });
    let wide = embed(PoolInputs::Texts(vec!["a".into()]), Some(WIDTH + 1));
    assert_eq!(field(engine.pool(wide).await.unwrap_err()), "dimensions");
    let strange = embed(PoolInputs::Tokens(vec![vec![TokenId(100_000)]]), None);
    assert_eq!(field(engine.pool(strange).await.unwrap_err()), "input");
    // As long as its context is taken, and longer is not: between its two marks there is room for two less.
    let letters = |count: usize| vec!["a ".repeat(count).trim().to_owned()];
    let whole = engine.pool(texts(&letters(CONTEXT as usize - 2))).await.unwrap();
    assert_eq!(whole.prompt_tokens, CONTEXT);
    let long = engine.pool(texts(&letters(CONTEXT as usize - 1))).await.unwrap_err();
    assert_eq!(long, GenerateError::ContextOverflow { prompt_tokens: CONTEXT + 1, context_tokens: CONTEXT });
    assert_eq!(engine.pool(texts(&letters(3))).await.unwrap().rows.len(), 1, "and it works on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reranker_gives_llama_servers_scores_between_0_and_1() {
    let Some(binary) = binary() else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tiny.gguf");
    write_bert(&file, Pooled::Rank);
    let engine = serve(&binary, &file).await;
    assert_eq!(engine.skills(), Skills { generates: false, embeds: false, reranks: true });
    let server = direct(&binary, &file, "--reranking -t 1 -np 1 --no-warmup").await;
    let documents: Vec<String> = ["blue sky", "red sea", "a", "no 1 knows"].map(String::from).to_vec();
    let body = json!({ "query": "sky?", "documents": documents });
    let told = server.call("/v1/rerank", &body, Duration::from_secs(60)).await.unwrap();
    let made = engine.pool(asked(PoolTask::Rerank { query: "sky?".into(), documents })).await.unwrap();
    assert_eq!(u64::from(made.prompt_tokens), told["usage"]["prompt_tokens"].as_u64().unwrap());
    for result in told["results"].as_array().unwrap() {
        let raw = result["relevance_score"].as_f64().unwrap() as f32;
        let row = &made.rows[result["index"].as_u64().unwrap() as usize];
        assert!(near(row, &[1.0 / (1.0 + (-raw).exp())]), "{raw} {row:?}");
    }
    assert_ne!(made.rows[0], made.rows[1]);
    let long = PoolTask::Rerank { query: "a ".repeat(40), documents: vec!["b ".repeat(40)] };
    let error = engine.pool(asked(long)).await.unwrap_err();
    assert!(matches!(error, GenerateError::ContextOverflow { context_tokens: CONTEXT, .. }), "{error:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decoder_that_pools_its_last_token_takes_texts_longer_than_a_batch() {
    let Some(binary) = binary() else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tiny.gguf");
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/mesh-tiny/mesh-tiny.Q4_1.gguf");
    let header = catalog::gguf::read(&tiny).unwrap();
    with_numbers(&tiny, &file, &BTreeMap::from([(header.own_key("pooling_type").as_str(), 3)]));
    let engine = serve(&binary, &file).await;
    assert_eq!(engine.skills(), Skills { generates: false, embeds: true, reranks: false });
    let server = direct(&binary, &file, "--embeddings -t 1 -np 1 --no-warmup -c 2048").await;
    for count in [1, 900] {
        let input = vec!["hello ".repeat(count)];
        let made = engine.pool(texts(&input)).await.unwrap();
        assert!(made.prompt_tokens as usize >= count);
        assert!(near(&made.rows[0], &directly(&server, &json!(input[0])).await), "{count}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_takes_along_what_waits_and_a_draining_engine_ends() {
    let Some(binary) = binary() else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tiny.gguf");
    write_bert(&file, Pooled::Mean);
    let engine = Arc::new(serve(&binary, &file).await);
    let many: Vec<String> = (0..2000).map(|at| format!("text {at}")).collect();
    let asking = {
        let (engine, many) = (engine.clone(), many.clone());
        tokio::spawn(async move { engine.pool(texts(&many)).await })
    };
    let running = async {
        while engine.load().running == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(60), running).await.unwrap();
    asking.abort();
    let free = async {
        while engine.load().running > 0 || engine.load().waiting > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(60), free).await.expect("nothing runs for who left");
    let made = timeout(Duration::from_secs(120), engine.pool(texts(&many[..100]))).await.unwrap().unwrap();
    assert_eq!(made.rows.len(), 100);
    timeout(Duration::from_secs(60), engine.drain()).await.expect("it drains");
    assert_eq!(engine.pool(texts(&many[..1])).await, Err(GenerateError::ShuttingDown));
}

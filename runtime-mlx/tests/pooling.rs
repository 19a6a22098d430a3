//! Models made for embeddings and for reranking, out of the bundled one: how they are told, and what they give.
#![allow(clippy::unwrap_used, reason = "a test's helpers may fail loudly")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use engine::{Engine, LocalEngine, pool::Skills};
use mesh_proto::{
    Event, GenerateError, GenerateRequest, LogitBias, ModelId, PoolInputs, PoolRequest, PoolTask, Prompt, RequestId,
    Sampling,
};
use runtime_mlx::{MlxOptions, start};
use safetensors::{SafeTensors, serialize_to_file};
use serde_json::{Value, json};

/// The bundled model under a name of the test's, to be changed.
fn copy(dir: &Path, name: &str) -> PathBuf {
    let to = dir.join(name);
    fs::create_dir(&to).unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/mesh-tiny");
    for entry in fs::read_dir(from).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    to
}

fn serve(dir: &Path) -> LocalEngine {
    start(MlxOptions::new(dir.to_owned(), ModelId::new("tiny")), &mut |_| {}).unwrap()
}

fn asked(task: PoolTask) -> PoolRequest {
    PoolRequest { id: RequestId("r".into()), model: ModelId::new("tiny"), task }
}

async fn embed(engine: &LocalEngine, texts: &[&str]) -> Vec<Vec<f32>> {
    let inputs = PoolInputs::Texts(texts.iter().map(|&text| text.into()).collect());
    engine.pool(asked(PoolTask::Embed { inputs, dimensions: None })).await.unwrap().rows
}

fn near(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5)
}

/// How likely the model finds this word next, as a natural logarithm.
async fn likelihood(engine: &LocalEngine, prompt: &str, word: &str) -> f32 {
    // It is made to say it; what is told of it is from before that.
    let bias = LogitBias { token: engine.text().encode(word, false).unwrap()[0], bias: 1000.0 };
    let request = GenerateRequest {
        sampling: Sampling { logit_bias: vec![bias], ..Sampling::default() },
        logprobs: Some(0),
        max_tokens: Some(1),
        ..GenerateRequest::new(ModelId::new("tiny"), Prompt::Text(prompt.into()))
    };
    let mut generation = engine.generate(request).await.unwrap();
    let mut told = Vec::new();
    while let Some(event) = generation.next().await {
        match event {
            Event::Text { logprobs, .. } => told.extend(logprobs),
            Event::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
    assert_eq!((told.len(), told[0].chosen.bytes.as_slice()), (1, word.as_bytes()));
    told[0].chosen.logprob
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reranker_scores_by_yes_and_no_behind_its_makers_words() {
    let dir = tempfile::tempdir().unwrap();
    let ranker = serve(&copy(dir.path(), "Qwen3-Reranker-tiny"));
    assert_eq!(ranker.skills(), Skills { generates: false, embeds: false, reranks: true });
    let chat = serve(&copy(dir.path(), "chat"));
    let (query, documents) = ("capital of France", ["Paris is the capital.", "3 + 4 = 7.", "The sky is blue."]);
    let task = PoolTask::Rerank { query: query.into(), documents: documents.map(String::from).to_vec() };
    let scores = ranker.pool(asked(task.clone())).await.unwrap();
    for (document, score) in documents.iter().zip(&scores.rows) {
        let prompt = format!(
            "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct \
             provided. Note that the answer can only be \"yes\" or \"no\".<|im_end|>\n<|im_start|>user\n<Instruct>: Given a \
             web search query, retrieve relevant passages that answer the query\n<Query>: {query}\n<Document>: \
             {document}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
        );
        let (yes, no) = (likelihood(&chat, &prompt, "yes").await, likelihood(&chat, &prompt, "no").await);
        let wanted = yes.exp() / (yes.exp() + no.exp());
        assert!((score[0] - wanted).abs() < 1e-3, "{document}: {} and not {wanted}", score[0]);
    }
    assert_ne!(scores.rows[0], scores.rows[1]);
    let again = ranker.pool(asked(task)).await.unwrap();
    assert!(again.rows.iter().zip(&scores.rows).all(|(a, b)| near(a, b)), "with the query's keys and values reused");
    assert!(ranker.load().prefix_bytes > 0, "they are kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedding_model_is_told_by_its_files_or_by_having_no_head() {
    let dir = tempfile::tempdir().unwrap();
    let chat = serve(&copy(dir.path(), "chat"));
    assert_eq!(chat.skills(), Skills { generates: true, embeds: true, reranks: false });
    let texts = ["What is the capital of France?", "3 + 4"];
    let mean = embed(&chat, &texts).await;
    assert!(!near(&mean[0], &mean[1]));

    let folder = copy(dir.path(), "modules");
    let module = |path: &str, kind: &str| json!({"path": path, "type": format!("sentence_transformers.models.{kind}")});
    let modules =
        json!([module("", "Transformer"), module("1_Pooling", "Pooling"), module("2_Normalize", "Normalize")]);
    fs::write(folder.join("modules.json"), modules.to_string()).unwrap();
    fs::create_dir(folder.join("1_Pooling")).unwrap();
    fs::write(folder.join("1_Pooling/config.json"), json!({"pooling_mode_mean_tokens": true}).to_string()).unwrap();
    let made_for = serve(&folder);
    assert_eq!(made_for.skills(), Skills { generates: false, embeds: true, reranks: false });
    for (a, b) in embed(&made_for, &texts).await.iter().zip(&mean) {
        assert!(near(a, b));
    }
    let prompt = GenerateRequest::new(ModelId::new("tiny"), Prompt::Text("hello".into()));
    let refused = made_for.generate(prompt).await.map(drop).unwrap_err();
    assert!(matches!(&refused, GenerateError::Invalid { field, .. } if field == "model"), "{refused:?}");

    // As it is saved without its head: no `model.` before the names.
    let folder = copy(dir.path(), "bare");
    let mut config: Value = serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap();
    config["architectures"] = json!(["Qwen3Model"]);
    config["tie_word_embeddings"] = json!(false);
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let file = folder.join("model.safetensors");
    let bytes = fs::read(&file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let bare =
        tensors.tensors().into_iter().filter_map(|(name, view)| Some((name.strip_prefix("model.")?.to_owned(), view)));
    serialize_to_file(bare, None, &file).unwrap();
    let bare = serve(&folder);
    assert_eq!(bare.skills(), Skills { generates: false, embeds: true, reranks: false });
    for (a, b) in embed(&bare, &texts).await.iter().zip(&mean) {
        assert!(near(a, b));
    }
}

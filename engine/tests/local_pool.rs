//! Vectors and scores from the local engine: sequences among the answers', that leave nothing behind.
#![allow(clippy::unwrap_used)]

mod local_support;

use std::{sync::Arc, time::Duration};

use engine::{
    Engine, LocalOptions,
    pool::{self, Embedding, Judge, Pooling, Pools},
    script::{self, ScriptOptions, VECTOR, byte_tokens},
};
use local_support::{Bench, echo, read, request, small, start, text};
use mesh_proto::{GenerateError, ModelId, PoolInputs, PoolRequest, PoolTask, Pooled, RequestId, TokenId};
use tokio::time::timeout;

fn embeds(pooling: Pooling, alone: bool) -> Pools {
    Pools::Embeds { embedding: Embedding { pooling, normalise: true, width: VECTOR as u32 }, alone }
}

fn bench(local: LocalOptions, pools: Pools) -> Bench {
    let Bench { engine, probe } = start(echo(), local, ScriptOptions::default());
    Bench { engine: engine.with_pools(pools), probe }
}

fn asked(task: PoolTask) -> PoolRequest {
    PoolRequest { id: RequestId("r".into()), model: ModelId::new("script"), task }
}

fn embed(texts: &[String]) -> PoolRequest {
    asked(PoolTask::Embed { inputs: PoolInputs::Texts(texts.to_vec()), dimensions: None })
}

/// What must come of a text.
fn right(text: &str, pooling: &Pooling) -> Vec<f32> {
    pool::finish(script::vector(&byte_tokens(text), pooling), None, true)
}

async fn made(bench: &Bench, request: PoolRequest) -> Result<Pooled, GenerateError> {
    timeout(Duration::from_secs(30), bench.engine.pool(request)).await.expect("an answer in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_what_its_texts_are_alone_and_answers_go_on_beside_it() {
    let texts: Vec<String> = (0..200).map(|at| format!("{} text {at}", "long ".repeat(at % 30))).collect();
    for pooling in [Pooling::Last, Pooling::Mean, Pooling::First] {
        let bench = bench(small(), embeds(pooling.clone(), false));
        let (all, said) = tokio::join!(made(&bench, embed(&texts)), bench.ask(request("an answer beside it!")));
        let all = all.unwrap();
        assert_eq!(said.text, "an answer beside it");
        assert_eq!(all.rows, texts.iter().map(|text| right(text, &pooling)).collect::<Vec<_>>(), "{pooling:?}");
        assert_eq!(all.prompt_tokens as usize, texts.concat().len());
        let one = made(&bench, embed(&texts[7..8])).await.unwrap();
        assert_eq!(one.rows, [all.rows[7].clone()]);
        // Tokens generated are the answer's alone.
        assert_eq!(u64::from(said.usage().completion_tokens), bench.engine.load().tokens);
        bench.is_empty().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn however_much_is_pooled_half_of_the_places_are_left_to_answers() {
    let bench = Arc::new(bench(small(), embeds(Pooling::Last, false)));
    let hold = bench.probe.hold();
    let texts: Vec<String> = (0..50).map(|at| format!("text {at}")).collect();
    let pooling: Vec<_> = (0..3)
        .map(|_| {
            let (bench, texts) = (bench.clone(), texts.clone());
            tokio::spawn(async move { made(&bench, embed(&texts)).await })
        })
        .collect();
    // Two of four places are for texts. The one request has both, and the others count as one each, not as fifty.
    bench.until(|load| (load.running, load.waiting) == (2, 2)).await;
    let answer = bench.generate(request("me too!")).await;
    bench.until(|load| (load.running, load.waiting) == (2, 3)).await;
    drop(hold);
    assert_eq!(read(answer).await.text, "me too");
    for pooled in pooling {
        assert_eq!(pooled.await.unwrap().unwrap().rows.len(), 50);
    }
    bench.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_takes_all_sequences_along_and_who_is_too_many_is_told() {
    let bench = Arc::new(bench(small(), embeds(Pooling::Last, false)));
    let hold = bench.probe.hold();
    let texts: Vec<String> = (0..50).map(|at| format!("text {at}")).collect();
    let mut waiting = Vec::new();
    for _ in 0..8 {
        let (bench, texts) = (bench.clone(), texts.clone());
        waiting.push(tokio::spawn(async move { bench.engine.pool(embed(&texts)).await }));
    }
    bench.until(|load| load.running + load.waiting >= 8).await;
    let busy = made(&bench, embed(&texts[..1])).await.unwrap_err();
    assert!(matches!(busy, GenerateError::Busy { .. }), "{busy:?}");
    waiting.iter().for_each(|request| request.abort());
    drop(hold);
    bench.is_empty().await;
    assert_eq!(made(&bench, embed(&texts)).await.unwrap().rows.len(), 50);
    bench.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_engine_ends_what_it_began_and_takes_no_more() {
    let bench = Arc::new(bench(small(), embeds(Pooling::Mean, false)));
    let texts: Vec<String> = (0..50).map(|at| format!("text {at}")).collect();
    let hold = bench.probe.hold();
    let running = {
        let (bench, texts) = (bench.clone(), texts.clone());
        tokio::spawn(async move { made(&bench, embed(&texts)).await })
    };
    bench.until(|load| load.running > 0).await;
    let drained = bench.engine.drain();
    assert_eq!(made(&bench, embed(&texts)).await, Err(GenerateError::ShuttingDown));
    drop(hold);
    timeout(Duration::from_secs(30), drained).await.expect("it drains");
    assert_eq!(running.await.unwrap().unwrap().rows.len(), 50);
    bench.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_by_name() {
    let invalid = |error: GenerateError| match error {
        GenerateError::Invalid { field, .. } => field,
        other => panic!("{other:?}"),
    };
    let chat = start(echo(), small(), ScriptOptions::default());
    let text = vec!["a".to_owned()];
    assert_eq!(invalid(made(&chat, embed(&text)).await.unwrap_err()), "model");
    let alone = bench(small(), embeds(Pooling::Last, true));
    let error = alone.engine.generate(request("hello!")).await.map(drop).unwrap_err();
    assert_eq!(invalid(error), "model");
    let rerank = || PoolTask::Rerank { query: "q".into(), documents: vec!["d".into()] };
    assert_eq!(invalid(made(&alone, asked(rerank())).await.unwrap_err()), "model");
    let with = |inputs, dimensions| asked(PoolTask::Embed { inputs, dimensions });
    let wide = with(PoolInputs::Texts(text.clone()), Some(VECTOR as u32 + 1));
    assert_eq!(invalid(made(&alone, wide).await.unwrap_err()), "dimensions");
    let cut = made(&alone, with(PoolInputs::Texts(text.clone()), Some(3))).await.unwrap();
    assert_eq!(cut.rows[0].len(), 3);
    let strange = with(PoolInputs::Tokens(vec![vec![TokenId(script::VOCAB_SIZE)]]), None);
    assert_eq!(invalid(made(&alone, strange).await.unwrap_err()), "input");
    let context_tokens = ScriptOptions::default().limits.context_tokens - 1;
    let long = |length: u32| with(PoolInputs::Tokens(vec![vec![TokenId(1); length as usize]]), None);
    let overflow = GenerateError::ContextOverflow { prompt_tokens: context_tokens + 1, context_tokens };
    assert_eq!(made(&alone, long(context_tokens + 1)).await, Err(overflow));
    assert_eq!(made(&alone, long(context_tokens)).await.unwrap().prompt_tokens, context_tokens);
    alone.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_device_fails_the_request_and_the_next_one_works() {
    let bench = bench(small(), embeds(Pooling::Last, false));
    let texts: Vec<String> = (0..20).map(|at| format!("text {at}")).collect();
    for fault in [script::Fault::CollectDevice, script::Fault::Open, script::Fault::SubmitSequence] {
        bench.probe.fail_next(fault);
        let error = made(&bench, embed(&texts)).await.unwrap_err();
        assert!(matches!(error, GenerateError::Engine(_)), "{fault:?}: {error:?}");
        bench.is_empty().await;
    }
    assert_eq!(made(&bench, embed(&texts)).await.unwrap().rows.len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_says_yes_or_no_scores_documents() {
    // A tokenizer of bytes makes three tokens of "yes", and such a model is refused where it is loaded.
    let refused = Judge::new(&text()).unwrap_err();
    assert!(refused.contains("\"yes\""), "{refused}");
}

//! Answers that come in portions from a real llama-server: a least length, and reasoning that is cut short. Needs
//! `MESH_LLM_TEST_LLAMA_SERVER`, as `tests/child.rs` does.
#![allow(clippy::unwrap_used, reason = "a test's helpers may fail loudly")]

mod common;

use common::{Answer, answer, ask, idle, options, serve};
use mesh_proto::{Constraint, FinishReason, GenerateError, GenerateRequest, Prompt, Sampling};
use runtime_gguf_bridge::GgufEngine;

fn thinking(text: &str, reasoning_budget: Option<u32>) -> GenerateRequest {
    let mut request = ask(text);
    let Prompt::Chat(chat) = &mut request.prompt else { unreachable!() };
    (chat.enable_thinking, chat.reasoning_budget) = (Some(true), reasoning_budget);
    request
}

fn seeded(request: GenerateRequest, seed: Option<u64>) -> GenerateRequest {
    let sampling = seed.map(|seed| Sampling { temperature: 1.0, top_k: 50, seed: Some(seed), ..Sampling::default() });
    GenerateRequest { sampling: sampling.unwrap_or_default(), ..request }
}

/// Every answer's rest, cut anywhere, is what came behind the cut.
async fn goes_on_anywhere(engine: &GgufEngine, request: &GenerateRequest, whole: &Answer) {
    for cut in 1..whole.tokens.len() {
        let resume = whole.tokens[..cut].to_vec();
        let rest = answer(engine, GenerateRequest { resume, ..request.clone() }).await.unwrap();
        assert_eq!(rest.tokens, whole.tokens[cut..], "cut at {cut} of {request:?}");
        assert_eq!((rest.usage.completion_tokens, rest.reason), (whole.usage.completion_tokens, whole.reason));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_does_not_end_by_itself_before_its_least_length() {
    let Some(options) = options() else { return };
    let engine = serve(options).await;
    let plain = answer(&engine, ask("What is 7 + 5?")).await.unwrap();
    let least = plain.usage.completion_tokens + 20;
    for seed in [None, Some(7)] {
        let asked = seeded(GenerateRequest { min_tokens: least, max_tokens: Some(60), ..ask("What is 7 + 5?") }, seed);
        let longer = answer(&engine, asked.clone()).await.unwrap();
        assert!(longer.usage.completion_tokens >= least, "{longer:?}");
        assert!(seed.is_some() || longer.content.starts_with(&plain.content), "{longer:?}");
        assert_eq!(answer(&engine, asked.clone()).await.unwrap().tokens, longer.tokens, "seed {seed:?}");
        goes_on_anywhere(&engine, &asked, &longer).await;
    }
    // One that is met anyway changes nothing, also where it falls within a character: these have two tokens each.
    let letters = ask("Repeat after me: Привет, мир!");
    let whole = answer(&engine, letters.clone()).await.unwrap();
    assert_eq!(whole.content, "Привет, мир!");
    for min_tokens in 1..whole.usage.completion_tokens {
        let same = answer(&engine, GenerateRequest { min_tokens, ..letters.clone() }).await.unwrap();
        assert_eq!(
            (same.content, same.tokens, same.reason),
            (whole.content.clone(), whole.tokens.clone(), whole.reason)
        );
    }
    let cut = GenerateRequest { min_tokens: 3, max_tokens: Some(3), ..letters.clone() };
    let cut = answer(&engine, cut).await.unwrap();
    assert_eq!((cut.usage.completion_tokens, cut.reason), (3, Some(FinishReason::Length)));
    let form = Some(Constraint::Regex("[0-9]+".to_owned()));
    let refused = answer(&engine, GenerateRequest { min_tokens: 3, constraint: form, ..letters }).await.unwrap_err();
    assert!(matches!(&refused, GenerateError::Invalid { field, .. } if field == "min_tokens"), "{refused}");
    idle(&engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reasoning_is_closed_at_its_budget_and_the_content_goes_on() {
    let Some(options) = options() else { return };
    let engine = serve(options).await;
    let free = answer(&engine, thinking("What is the capital of France?", None)).await.unwrap();
    assert!(free.usage.reasoning_tokens > 12, "{free:?}");
    for budget in [0, 1, 4, 7] {
        for seed in [None, Some(7)] {
            let asked = thinking("What is the capital of France?", Some(budget));
            let asked = seeded(GenerateRequest { max_tokens: Some(40), ..asked }, seed);
            let closed = answer(&engine, asked.clone()).await.unwrap();
            // The tags count: the opening one is the first of the budget, the closing one comes behind it.
            assert_eq!(closed.usage.reasoning_tokens, budget.max(1) + 1, "{closed:?}");
            assert!(seed.is_some() || free.reasoning.starts_with(closed.reasoning.trim_end()), "{closed:?}");
            assert!(!closed.content.is_empty(), "{closed:?}");
            goes_on_anywhere(&engine, &asked, &closed).await;
        }
    }
    let far = answer(&engine, thinking("What is the capital of France?", Some(1000))).await.unwrap();
    assert_eq!((far.reasoning, far.content), (free.reasoning, free.content));
    let form = Some(Constraint::Regex("[0-9]+".to_owned()));
    let asked = GenerateRequest { constraint: form, ..thinking("What is 7 + 5?", Some(4)) };
    let refused = answer(&engine, asked).await.unwrap_err();
    assert!(matches!(&refused, GenerateError::Invalid { field, .. } if field == "reasoning_budget"), "{refused}");
    idle(&engine).await;
}

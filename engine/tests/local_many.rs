//! The local engine under many requests at once: nothing leaks, and no answer depends on its neighbours.
#![allow(clippy::unwrap_used)]

mod local_support;

use std::{sync::Arc, time::Duration};

use engine::{
    Engine, LocalOptions,
    script::{self, END, Script, ScriptOptions},
};
use local_support::{Bench, next, read, request, start};
use mesh_proto::{Event, FinishReason, GenerateRequest, Prompt, Sampling, TokenId};

/// A small seeded generator (splitmix64): a failing seed is a test.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % below
    }

    fn request(&mut self) -> GenerateRequest {
        // Many begin alike, so that prefixes are reused.
        let mut prompt: Vec<TokenId> = (0..self.roll(40)).map(|i| TokenId(i as u32)).collect();
        prompt.extend((0..1 + self.roll(150)).map(|_| TokenId(self.roll(128) as u32)));
        let sampling = Sampling { seed: Some(self.roll(3)), ..Sampling::default() };
        let max_tokens = Some(1 + self.roll(120) as u32);
        GenerateRequest { prompt: Prompt::Tokens(prompt), sampling, max_tokens, ..request("") }
    }
}

fn noise() -> Script {
    Script::noise(128, END, 100)
}

/// What the answer must be.
fn right(request: &GenerateRequest) -> Vec<TokenId> {
    let Prompt::Tokens(prompt) = &request.prompt else { unreachable!() };
    noise().answer(prompt, &request.sampling, END, request.max_tokens.unwrap() as usize)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_500_of_which_half_are_dropped_in_mid_stream_leave_no_sequence_and_no_growth_in_kv_bytes() {
    let local = LocalOptions { max_running: 16, max_waiting: 500, step_tokens: 64, event_buffer: 8 };
    let options = ScriptOptions::default();
    let bench = Arc::new(start(noise(), local, options));
    let mut clients = Vec::new();
    for index in 0..500u64 {
        let bench = bench.clone();
        clients.push(tokio::spawn(async move {
            let mut dice = Dice(index);
            let request = dice.request();
            let right = right(&request);
            let mut generation = bench.generate(request).await;
            if index % 2 == 0 {
                let said = read(generation).await;
                assert_eq!(said.usage().completion_tokens as usize, right.len());
                assert!(right.starts_with(&said.tokens));
                return;
            }
            for _ in 0..dice.roll(30) {
                if next(&mut generation).await.is_none() {
                    break;
                }
            }
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
    // Nothing is open, and no byte is held but what is kept for reuse, within its own budget.
    bench.is_empty().await;
    let counts = bench.probe.counts();
    assert!(counts.peak_kv_bytes <= options.limits.kv_budget_bytes);
    assert_eq!(bench.engine.load().prefix_bytes, counts.prefix_bytes);
    assert!(counts.prefix_bytes <= options.prefix_budget_bytes);
    bench.engine.drain().await;
}

/// Random arrivals, slow and leaving clients, and memory for a few rows only: each answer is what it would be alone.
async fn everybody_gets_the_right_answer(seed: u64) -> u64 {
    let mut dice = Dice(seed);
    let mut options = ScriptOptions::default();
    options.limits.kv_budget_bytes = (400 + dice.roll(400)) * options.limits.kv_bytes_per_token;
    options.prefix_budget_bytes = dice.roll(2) << 20;
    let local = LocalOptions {
        max_running: 1 + dice.roll(8) as u32,
        max_waiting: 100,
        step_tokens: 1 + dice.roll(100) as u32,
        event_buffer: 1 + dice.roll(20) as usize,
    };
    let bench: Arc<Bench> = Arc::new(start(noise(), local, options));
    let mut clients = Vec::new();
    for _ in 0..40 {
        let (bench, request) = (bench.clone(), dice.request());
        let (arrives, slow, leaves) = (dice.roll(20), dice.roll(4) == 0, dice.roll(6) == 0);
        clients.push(tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(arrives)).await;
            let right = right(&request);
            let most = request.max_tokens;
            let mut generation = bench.generate(request).await;
            let mut tokens = Vec::new();
            while let Some(event) = next(&mut generation).await {
                if slow && tokens.len() % 16 == 0 {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                match event {
                    Event::Text { tokens: more, .. } => tokens.extend(more),
                    Event::Finished { reason, usage, .. } => {
                        assert_eq!(usage.completion_tokens as usize, right.len());
                        let length = right.last() != Some(&END) && Some(usage.completion_tokens) == most;
                        assert_eq!(reason == FinishReason::Length, length);
                        assert!(right.len() - tokens.len() <= usize::from(!length));
                    }
                    Event::Failed(error) => panic!("{error}"),
                    _ => {}
                }
                assert!(right.starts_with(&tokens));
                if leaves && tokens.len() > 20 {
                    return;
                }
            }
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
    bench.is_empty().await;
    let counts = bench.probe.counts();
    assert!(counts.peak_kv_bytes <= options.limits.kv_budget_bytes);
    assert!(counts.prefill_peak <= local.step_tokens);
    counts.opened - 40.min(counts.opened)
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_answers_equal_single_ones_under_random_arrival() {
    let mut reopened = 0;
    for seed in 0..30 {
        reopened += everybody_gets_the_right_answer(seed).await;
    }
    assert!(reopened > 0, "no seed made the engine send anybody back to the line");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_outgrow_the_memory_are_sent_back_and_still_answer_right() {
    let mut options = ScriptOptions::default();
    options.limits.kv_budget_bytes = 1400 * options.limits.kv_bytes_per_token;
    let local = LocalOptions { max_running: 4, max_waiting: 8, ..LocalOptions::default() };
    let bench = start(Script::noise(128, END, 0), local, options);
    let ask = |prompt: &str| GenerateRequest { max_tokens: Some(900), ..request(prompt) };
    let prompts = ["first", "second one", "third, and longer", "fourth"];
    let mut generations = Vec::new();
    for prompt in prompts {
        generations.push(bench.generate(ask(prompt)).await);
    }
    let reads = generations.into_iter().map(|generation| tokio::spawn(read(generation)));
    for (prompt, said) in prompts.into_iter().zip(reads.collect::<Vec<_>>()) {
        let said = said.await.unwrap();
        let alone = Script::noise(128, END, 0);
        let right = alone.answer(&script::byte_tokens(prompt), &ask(prompt).sampling, END, 900);
        assert_eq!((said.usage().completion_tokens, said.usage().cached_tokens), (900, 0));
        // Half a character at the end is given out without its tokens.
        assert!(right.starts_with(&said.tokens) && said.tokens.len() >= 890);
    }
    assert!(bench.probe.counts().opened > 4, "nobody was sent back");
    bench.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_to_one_prompt_compute_it_once() {
    let local = LocalOptions { max_running: 8, max_waiting: 8, step_tokens: 64, ..LocalOptions::default() };
    let bench = start(Script::noise(128, END, 0), local, ScriptOptions::default());
    let prompt = "x".repeat(1000);
    let ask = |seed| {
        let sampling = Sampling { seed: Some(seed), ..Sampling::default() };
        GenerateRequest { sampling, max_tokens: Some(8), ..request(&prompt) }
    };
    let hold = bench.probe.hold();
    let mut generations = Vec::new();
    for seed in 0..5 {
        generations.push(bench.generate(ask(seed)).await);
    }
    // Nobody waits behind them who has another prompt.
    let other = bench.generate(GenerateRequest { max_tokens: Some(2), ..request("another prompt") }).await;
    drop(hold);
    assert_eq!(read(other).await.usage().cached_tokens, 0);
    let mut cached = Vec::new();
    for (seed, generation) in (0..).zip(generations) {
        let said = read(generation).await;
        let right = Script::noise(128, END, 0).answer(&script::byte_tokens(&prompt), &ask(seed).sampling, END, 8);
        assert!(right.starts_with(&said.tokens) && !said.tokens.is_empty());
        cached.push(said.usage().cached_tokens);
    }
    cached.sort();
    assert_eq!(cached, [0, 999, 999, 999, 999]);
    // All of the first one's, and the last token of each other, which nobody else has computed for it.
    assert_eq!(bench.probe.counts().prefill_tokens, 1000 + 4 + "another prompt".len() as u64);
    bench.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_in_the_middle_of_a_prompt_that_others_wait_for_keeps_nobody() {
    let local = LocalOptions { max_running: 8, max_waiting: 8, step_tokens: 16, ..LocalOptions::default() };
    let bench = start(Script::noise(128, END, 0), local, ScriptOptions::default());
    let ask = || GenerateRequest { max_tokens: Some(4), ..request(&"x".repeat(1600)) };
    let hold = bench.probe.hold();
    let first = bench.generate(ask()).await;
    bench.until(|load| load.running == 1).await;
    let second = bench.generate(ask()).await;
    let third = bench.generate(ask()).await;
    drop(first);
    drop(hold);
    for generation in [second, third] {
        assert_eq!(read(generation).await.usage().completion_tokens, 4);
    }
    let prefilled = bench.probe.counts().prefill_tokens;
    assert!(prefilled <= 1600 + 2, "what the first one left is used, and the rest computed once: {prefilled}");
    bench.is_empty().await;
}

//! The local engine over a scripted decoder: answers, ends, clients that are slow or leave.
#![allow(clippy::unwrap_used)]

mod local_support;

use std::{collections::BTreeMap, time::Duration};

use engine::{
    Engine, LocalOptions,
    script::{END, Script, ScriptOptions, byte_tokens},
};
use local_support::{Said, echo, next, read, request, small, start};
use mesh_proto::{
    ChatPrompt, Event, FinishReason, GenerateError, GenerateRequest, Message, Prompt, Role, Sampling, TokenId,
    ToolDefinition,
};

fn limit(prompt: &str, max_tokens: u32) -> GenerateRequest {
    GenerateRequest { max_tokens: Some(max_tokens), ..request(prompt) }
}

/// A script that never ends.
fn endless() -> Script {
    Script::always(TokenId(b'a'.into()))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_started_then_text_with_its_tokens_then_finished() {
    let bench = start(echo(), small(), ScriptOptions::default());
    let said = bench.ask(request("Grüße, 世界!")).await;
    assert_eq!(said.text, "Grüße, 世界");
    assert_eq!(said.tokens, byte_tokens("Grüße, 世界"), "all tokens but the one that ends it");
    let (reason, stop, usage) = said.end.unwrap();
    assert_eq!((reason, stop), (FinishReason::Stop, None));
    assert_eq!(usage.prompt_tokens, said.prompt_tokens);
    assert_eq!(usage.completion_tokens as usize, said.tokens.len() + 1, "the end token counts");
    bench.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_told_and_read_without_a_generation() {
    let bench = start(echo(), small(), ScriptOptions::default());
    let tokens = bench.engine.tokenize("Grüße".into(), false).await.unwrap();
    assert_eq!(tokens, byte_tokens("Grüße"));
    assert_eq!(bench.engine.detokenize(tokens).await.unwrap(), "Grüße");
    assert_eq!(bench.engine.text_model().unwrap().token_bytes(TokenId(b'a'.into())), Some(&b"a"[..]));
    bench.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_token_is_passed_over_if_asked_for() {
    let bench = start(echo(), small(), ScriptOptions::default());
    let said = bench.ask(GenerateRequest { ignore_eos: true, ..limit("ab!", 5) }).await;
    assert_eq!((said.reason(), said.usage().completion_tokens), (FinishReason::Length, 5));
    assert!(said.text.starts_with("ab"));
    bench.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn look_ahead_never_computes_a_token_past_max_tokens() {
    for most in 1..8 {
        let bench = start(endless(), small(), ScriptOptions::default());
        let said = bench.ask(limit("prompt", most)).await;
        assert_eq!(said.text.len() as u32, most);
        assert_eq!((said.reason(), said.usage().completion_tokens), (FinishReason::Length, most));
        bench.is_empty().await;
        assert_eq!(bench.probe.counts().decode_rows, u64::from(most - 1), "the prompt gives the first");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_tokens_asked_for_is_an_empty_answer() {
    let bench = start(endless(), small(), ScriptOptions::default());
    let said = bench.ask(limit("prompt", 0)).await;
    assert_eq!((said.text.as_str(), said.reason()), ("", FinishReason::Length));
    assert_eq!((said.usage().prompt_tokens, said.usage().completion_tokens), (6, 0));
    bench.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_context_ends_an_answer_and_refuses_a_prompt() {
    let mut options = ScriptOptions::default();
    options.limits.context_tokens = 20;
    let bench = start(endless(), small(), options);
    let said = bench.ask(limit("0123456789", 1000)).await;
    assert_eq!((said.text.len(), said.reason()), (10, FinishReason::Length));
    let overflow = |prompt_tokens| GenerateError::ContextOverflow { prompt_tokens, context_tokens: 20 };
    assert_eq!(bench.engine.generate(request(&"x".repeat(20))).await.err(), Some(overflow(20)));
    let said = bench.ask(request(&"x".repeat(19))).await;
    assert_eq!(said.text.len(), 1);
    bench.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_for_less_than_the_context_is_the_context() {
    let mut options = ScriptOptions::default();
    options.limits.kv_budget_bytes = 30 * options.limits.kv_bytes_per_token;
    let bench = start(endless(), small(), options);
    assert_eq!(bench.engine.descriptor().context_tokens, 30);
    assert_eq!(bench.ask(request("0123456789")).await.text.len(), 20);
    bench.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_string_ends_the_answer_across_tokens_and_is_not_part_of_it() {
    let bench = start(echo(), small(), ScriptOptions::default());
    let stop = vec!["STOP".to_owned(), "never".to_owned()];
    let said = bench.ask(GenerateRequest { stop, ..request("one two STOP three!") }).await;
    assert_eq!(said.text, "one two ");
    let (reason, stop, usage) = said.end.unwrap();
    assert_eq!((reason, stop.as_deref()), (FinishReason::Stop, Some("STOP")));
    assert_eq!(usage.completion_tokens, 12, "a token computed past the end is not counted");
    bench.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_end_in_the_same_step_all_end() {
    let bench = start(echo(), small(), ScriptOptions { step_delay: Duration::from_millis(1), ..Default::default() });
    let hold = bench.probe.hold();
    let mut generations = Vec::new();
    for prompt in ["abc!", "xyz!", "123!"] {
        generations.push(bench.generate(request(prompt)).await);
    }
    generations.push(bench.generate(limit("longer!", 4)).await);
    drop(hold);
    let mut answers = Vec::new();
    for generation in generations {
        answers.push(read(generation).await);
    }
    let texts: Vec<_> = answers.iter().map(|said| (said.text.as_str(), said.reason())).collect();
    let stop = FinishReason::Stop;
    assert_eq!(texts, [("abc", stop), ("xyz", stop), ("123", stop), ("long", FinishReason::Length)]);
    bench.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_that_calls_a_tool_finishes_with_tool_calls() {
    let call = "<tool_call>\n{\"name\": \"look\", \"arguments\": {\"at\": \"sky\"}}\n</tool_call>";
    let (open, close) = ("<tool_call>", "</tool_call>");
    // The call's tags are tokens of their own, as in real vocabularies.
    let mut answer = vec![TokenId(260)];
    answer.extend(byte_tokens(&call[open.len()..call.len() - close.len()]));
    answer.push(TokenId(261));
    let say = Script::chat(move |_| answer.clone());
    let bench = start(say, LocalOptions::default(), ScriptOptions::default());
    let json = r#"{"type":"function","function":{"name":"look","parameters":{"type":"object"}}}"#;
    let chat = ChatPrompt {
        messages: vec![Message::text(Role::User, "What is above?")],
        tools: vec![ToolDefinition { name: "look".to_owned(), json: json.to_owned() }],
        enable_thinking: None,
        ..ChatPrompt::default()
    };
    let mut generation = bench.generate(GenerateRequest { prompt: Prompt::Chat(chat), ..request("") }).await;
    let (mut name, mut arguments, mut reason) = (None, String::new(), None);
    while let Some(event) = next(&mut generation).await {
        match event {
            Event::ToolCall { delta, .. } => {
                name = name.or(delta.name);
                arguments += &delta.arguments;
            }
            Event::Finished { reason: why, .. } => reason = Some(why),
            _ => {}
        }
    }
    assert_eq!((name.as_deref(), reason), (Some("look"), Some(FinishReason::ToolCalls)));
    assert!(arguments.contains("sky"), "{arguments}");
    bench.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_was_seen_is_reused_and_counted() {
    let bench = start(echo(), small(), ScriptOptions::default());
    let first = bench.ask(request("a common beginning!")).await;
    assert_eq!(first.usage().cached_tokens, 0);
    let before = bench.probe.counts().prefill_tokens;
    let again = bench.ask(request("a common beginning!")).await;
    assert_eq!((&again.text, again.usage().cached_tokens), (&first.text, 18), "all but the last");
    assert_eq!(bench.probe.counts().prefill_tokens - before, 1);
    bench.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_seed_gets_one_of_its_own() {
    let bench = start(Script::noise(128, END, 0), small(), ScriptOptions::default());
    let ask = |seed| {
        let request = limit("same", 16);
        GenerateRequest { sampling: Sampling { seed, ..request.sampling.clone() }, ..request }
    };
    assert_ne!(bench.ask(ask(None)).await.tokens, bench.ask(ask(None)).await.tokens);
    assert_eq!(bench.ask(ask(Some(3))).await.tokens, bench.ask(ask(Some(3))).await.tokens);
    bench.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_queue_a_request_is_refused_at_once_with_numbers() {
    let bench = start(echo(), LocalOptions { max_running: 2, max_waiting: 3, ..small() }, ScriptOptions::default());
    let hold = bench.probe.hold();
    let mut generations = Vec::new();
    for _ in 0..5 {
        generations.push(bench.generate(request("abc!")).await);
    }
    // The decoder holds in its second step: whether the second request was taken in before, or waits, is chance.
    bench.until(|load| load.running > 0).await;
    let waiting = 5 - bench.engine.load().running;
    assert_eq!(bench.engine.load().waiting, waiting);
    let refused = bench.engine.generate(request("abc!")).await.err();
    assert_eq!(refused, Some(GenerateError::Busy { waiting, retry_after_s: 1 }));
    drop(generations.pop());
    drop(hold);
    bench.until(|load| load.waiting + load.running < 5).await;
    generations.push(bench.generate(request("abc!")).await);
    for generation in generations {
        assert_eq!(read(generation).await.text, "abc");
    }
    bench.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_again_at_once_finds_the_place_free() {
    let bench = start(echo(), LocalOptions { max_running: 1, max_waiting: 0, ..small() }, ScriptOptions::default());
    for _ in 0..200 {
        assert_eq!(bench.ask(request("ab!")).await.text, "ab");
    }
    bench.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_stalls_itself_and_nobody_else() {
    let bench = start(endless(), LocalOptions { event_buffer: 8, ..small() }, ScriptOptions::default());
    let slow = bench.generate(limit("slow", 500)).await;
    for _ in 0..3 {
        assert_eq!(bench.ask(limit("fast", 400)).await.text.len(), 400);
    }
    // It got its buffer and what was in flight, and then no more was computed.
    bench.until(|load| load.running == 1).await;
    let held = bench.engine.load().kv_bytes / 1024;
    assert!((4..4 + 8 + 8).contains(&held), "{held} tokens");
    let steps = bench.probe.counts().steps;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(bench.probe.counts().steps, steps, "it waits without turning");
    let said = read(slow).await;
    assert_eq!((said.text.len(), said.reason()), (500, FinishReason::Length));
    bench.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_in_all_places_keep_nobody_out() {
    let local = LocalOptions { max_running: 2, max_waiting: 4, event_buffer: 4, ..small() };
    let bench = start(endless(), local, ScriptOptions::default());
    let mut slow = Vec::new();
    for prompt in ["1 slow", "2 slow", "3 slow"] {
        slow.push(bench.generate(limit(prompt, 100)).await);
    }
    assert_eq!(bench.ask(limit("fast", 300)).await.text.len(), 300);
    for generation in slow {
        let said = read(generation).await;
        assert_eq!((said.text.len(), said.usage().completion_tokens), (100, 100));
        assert_eq!(said.usage().cached_tokens, 0, "to come back is no reuse");
    }
    bench.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_frees_its_memory_within_a_step() {
    let bench = start(endless(), small(), ScriptOptions::default());
    let mut generation = bench.generate(limit("prompt", 1000)).await;
    for _ in 0..5 {
        next(&mut generation).await;
    }
    let hold = bench.probe.hold();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let steps = bench.probe.counts().steps;
    drop(generation);
    drop(hold);
    bench.is_empty().await;
    assert!(bench.probe.counts().steps <= steps + 1, "at most the step that was being planned");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_while_queued_never_runs() {
    let bench = start(echo(), LocalOptions { max_running: 1, ..small() }, ScriptOptions::default());
    let hold = bench.probe.hold();
    let first = bench.generate(request("first!")).await;
    bench.until(|load| load.running == 1).await;
    let queued = bench.generate(request("queued!")).await;
    assert_eq!(bench.engine.load().waiting, 1);
    drop(queued);
    drop(hold);
    assert_eq!(read(first).await.text, "first");
    bench.is_empty().await;
    assert_eq!(bench.probe.counts().opened, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_in_the_middle_of_its_prompt_stops_it() {
    let bench = start(echo(), small(), ScriptOptions::default());
    let hold = bench.probe.hold();
    let generation = bench.generate(request(&"x".repeat(1600))).await;
    bench.until(|load| load.running == 1).await;
    drop(generation);
    drop(hold);
    bench.is_empty().await;
    let counts = bench.probe.counts();
    assert!(counts.prefill_tokens <= 3 * 16, "{counts:?}");
    assert_eq!(counts.prefix_bytes, counts.prefill_tokens * 1024, "what was computed is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_while_stalled_frees_its_memory() {
    let bench = start(endless(), LocalOptions { event_buffer: 2, ..small() }, ScriptOptions::default());
    let stalled = bench.generate(limit("prompt", 1000)).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(bench.engine.load().running, 1);
    drop(stalled);
    bench.is_empty().await;
    // One that ended, and whose end is not read, too.
    let ended = bench.generate(limit("prompt", 3)).await;
    bench.until(|load| load.running == 0).await;
    drop(ended);
    bench.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_takes_no_more_and_ends_when_all_have_ended() {
    let bench = start(echo(), LocalOptions { max_running: 1, ..small() }, ScriptOptions::default());
    let hold = bench.probe.hold();
    let running = bench.generate(request("running!")).await;
    let waiting = bench.generate(request("waiting!")).await;
    let drained = bench.engine.drain();
    assert_eq!(bench.engine.generate(request("late!")).await.err(), Some(GenerateError::ShuttingDown));
    let mut drained = std::pin::pin!(drained);
    assert!(tokio::time::timeout(Duration::from_millis(30), &mut drained).await.is_err(), "two are left");
    drop(hold);
    let (running, waiting) = tokio::join!(read(running), read(waiting));
    assert_eq!((running.text.as_str(), waiting.text.as_str()), ("running", "waiting"));
    tokio::time::timeout(Duration::from_secs(10), drained).await.unwrap();
    bench.engine.drain().await;
    bench.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_engine_stops_its_thread_and_tells_everybody() {
    let bench = start(endless(), LocalOptions { max_running: 1, event_buffer: 2, ..small() }, ScriptOptions::default());
    let running = bench.generate(limit("running", 1000)).await;
    let waiting = bench.generate(limit("waiting", 1000)).await;
    let probe = bench.probe.clone();
    drop(bench);
    let down = Err(GenerateError::ShuttingDown);
    assert_eq!(read(running).await.end, down);
    assert_eq!(read(waiting).await.end, down);
    let steps = probe.counts().steps;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(probe.counts().steps, steps);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_script_says_what_it_was_given() {
    let answers =
        BTreeMap::from([(byte_tokens("a"), byte_tokens("short")), (byte_tokens("ab"), byte_tokens("longer"))]);
    let bench = start(Script::replay(answers, END), small(), ScriptOptions::default());
    let texts = [("a", "short"), ("ab", "longer"), ("abc", ""), ("x", "")];
    for (prompt, text) in texts {
        let said: Said = bench.ask(request(prompt)).await;
        assert_eq!((said.text.as_str(), said.reason()), (text, FinishReason::Stop));
    }
    bench.is_empty().await;
}

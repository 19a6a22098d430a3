//! The bundled model in a real llama-server: what it says, how it goes on, and what is left when clients go. Needs
//! `MESH_LLM_TEST_LLAMA_SERVER`, as `tests/child.rs` does.
#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test's helpers may fail loudly, and say what they skip"
)]

mod common;

use std::time::Duration;

use common::{answer, ask, folder, idle, options, serve};
use engine::Engine;
use futures_util::{StreamExt, stream};
use mesh_proto::{
    Constraint, Event, FinishReason, GenerateError, GenerateRequest, ModelId, Prompt, Sampling, TokenId, ToolChoice,
    ToolDefinition,
};
use runtime_gguf_bridge::{GgufEngine, GgufOptions, KvBits, start};
use serde_json::Value;
use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, Signal, UpdateKind};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_prompts_are_answered_as_documented() {
    let Some(options) = options() else { return };
    let engine = serve(options).await;
    let text = std::fs::read_to_string(folder().join("prompts.json")).unwrap();
    let prompts: Value = serde_json::from_str(&text).unwrap();
    let plain = prompts["prompts"].as_array().unwrap().iter().filter(|prompt| {
        let messages = prompt["messages"].as_array().unwrap();
        prompt["expect"]["content"].is_string() && prompt.get("tools").is_none() && messages.len() == 1
    });
    // All of them: scripts/gguf/prompts.
    let some: Vec<(String, String)> = plain
        .step_by(4)
        .map(|prompt| {
            let said = |value: &Value| value.as_str().unwrap().to_owned();
            (said(&prompt["messages"][0]["content"]), said(&prompt["expect"]["content"]))
        })
        .collect();
    assert!(some.len() > 100, "{}", some.len());
    let engine = &engine;
    let wrong: Vec<String> = stream::iter(some)
        .map(|(prompt, expected)| async move {
            let said = answer(engine, ask(&prompt)).await.unwrap().content;
            (said != expected).then(|| format!("{prompt}: {said:?}, not {expected:?}"))
        })
        .buffer_unordered(8)
        .filter_map(|wrong| async { wrong })
        .collect()
        .await;
    assert!(wrong.is_empty(), "{wrong:#?}");
    idle(engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_keep_to_their_grammar() {
    let Some(options) = options() else { return };
    let engine = serve(options).await;
    let schema = r#"{"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}, "n": {"type": "integer", "minimum": 3,
        "maximum": 9}}, "required": ["city", "n"], "additionalProperties": false}"#;
    for enable_thinking in [Some(true), Some(false)] {
        let mut request = ask("What is the capital of France?");
        let Prompt::Chat(chat) = &mut request.prompt else { unreachable!() };
        chat.enable_thinking = enable_thinking;
        request.constraint = Some(Constraint::JsonSchema(schema.to_owned()));
        let said = answer(&engine, request).await.unwrap();
        let json: Value = serde_json::from_str(&said.content).unwrap_or_else(|error| panic!("{said:?}: {error}"));
        assert!(["Paris", "Rome"].contains(&json["city"].as_str().unwrap()), "{json}");
        assert!((3..=9).contains(&json["n"].as_u64().unwrap()), "{json}");
        assert_eq!(said.reason, Some(FinishReason::Stop));
    }
    let regex = Constraint::Regex("[A-F]{3}-(\\d{2}|x)/".to_owned());
    let request = GenerateRequest { constraint: Some(regex), ..ask("Hello") };
    let said = answer(&engine, request).await.unwrap().content;
    let (letters, rest) = said.split_at(3);
    assert!(letters.bytes().all(|letter| (b'A'..=b'F').contains(&letter)), "{said}");
    let rest = rest.strip_prefix('-').and_then(|rest| rest.strip_suffix('/')).unwrap();
    assert!(rest == "x" || (rest.len() == 2 && rest.bytes().all(|digit| digit.is_ascii_digit())), "{said}");
    for (constraint, field) in [
        (Constraint::JsonSchema(r#"{"type": "whatever"}"#.to_owned()), "response_format"),
        (Constraint::Lark("start: /a/\n%ignore / /".to_owned()), "lark"),
    ] {
        let request = GenerateRequest { constraint: Some(constraint), ..ask("Hello") };
        let Err(GenerateError::Invalid { field: named, .. }) = answer(&engine, request).await else {
            panic!("{field}")
        };
        assert!(named.starts_with(field), "{named}");
    }
    idle(&engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_required_are_made() {
    let Some(options) = options() else { return };
    let engine = serve(options).await;
    let tool = |name: &str| ToolDefinition {
        name: name.to_owned(),
        json: format!(
            r#"{{"type":"function","function":{{"name":"{name}","parameters":{{"type":"object","properties":{{"unit":{{"enum":["C","F"]}}}},"required":["unit"]}}}}}}"#
        ),
    };
    for (choice, names) in
        [(ToolChoice::Required, ["weather", "clock"].as_slice()), (ToolChoice::Named("clock".into()), &["clock"])]
    {
        let mut request = ask("What is the capital of France?");
        let Prompt::Chat(chat) = &mut request.prompt else { unreachable!() };
        chat.tools = vec![tool("weather"), tool("clock")];
        request.parallel_tool_calls = false;
        request.tool_choice = choice;
        let mut generation = engine.generate(request).await.unwrap();
        let (mut name, mut arguments, mut calls) = (String::new(), String::new(), 0);
        let mut reason = None;
        while let Some(event) = generation.next().await {
            match event {
                Event::ToolCall { delta, .. } => {
                    calls += u32::from(delta.name.is_some());
                    name += &delta.name.unwrap_or_default();
                    arguments += &delta.arguments;
                }
                Event::Finished { reason: end, .. } => reason = Some(end),
                Event::Failed(error) => panic!("{error}"),
                _ => {}
            }
        }
        assert_eq!((calls, reason), (1, Some(FinishReason::ToolCalls)));
        assert!(names.contains(&name.as_str()), "{name}");
        let arguments: Value = serde_json::from_str(&arguments).unwrap();
        assert!(["C", "F"].contains(&arguments["unit"].as_str().unwrap()), "{arguments}");
    }
    idle(&engine).await;
}

/// Long enough to be cut, and different for each seed.
fn story(seed: Option<u64>) -> GenerateRequest {
    let sampling = match seed {
        Some(seed) => Sampling { temperature: 1.0, top_k: 50, seed: Some(seed), ..Sampling::default() },
        None => Sampling::default(),
    };
    GenerateRequest { sampling, max_tokens: Some(80), ignore_eos: true, ..ask("Tell me a story about a fox.") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_goes_on_from_any_of_its_tokens() {
    let Some(options) = options() else { return };
    let engine = serve(options).await;
    for seed in [None, Some(7), Some(u64::from(u32::MAX))] {
        let whole = answer(&engine, story(seed)).await.unwrap();
        assert_eq!((whole.usage.completion_tokens, whole.reason), (80, Some(FinishReason::Length)));
        let again = answer(&engine, story(seed)).await.unwrap();
        assert_eq!((&again.content, &again.tokens), (&whole.content, &whole.tokens), "seed {seed:?}");
        for cut in [1, 2, 13, 40, whole.tokens.len() - 1] {
            let resume = whole.tokens[..cut].to_vec();
            let rest = answer(&engine, GenerateRequest { resume, ..story(seed) }).await.unwrap();
            assert_eq!(rest.tokens, whole.tokens[cut..], "cut at {cut}, seed {seed:?}");
            assert!(whole.content.ends_with(&rest.content), "cut at {cut}: {:?}", rest.content);
            assert_eq!(rest.usage.completion_tokens, 80);
        }
    }
    let sampled = answer(&engine, story(Some(7))).await.unwrap();
    assert_ne!(sampled.content, answer(&engine, story(None)).await.unwrap().content);
    let others: Vec<TokenId> = answer(&engine, story(Some(8))).await.unwrap().tokens[..20].to_vec();
    let error = answer(&engine, GenerateRequest { resume: others, ..story(Some(7)) }).await.unwrap_err();
    assert!(error.to_string().contains("other tokens"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounds_stops_and_mistakes_are_as_with_any_engine() {
    let Some(options) = options() else { return };
    let engine = serve(GgufOptions { context_tokens: Some(512), ..options }).await;
    assert_eq!(engine.descriptor().context_tokens, 512);
    let whole = answer(&engine, ask("What is 7 + 5?")).await.unwrap();
    assert_eq!((whole.content.as_str(), whole.reason), ("7 + 5 = 12.", Some(FinishReason::Stop)));
    let short = answer(&engine, GenerateRequest { max_tokens: Some(2), ..ask("What is 7 + 5?") }).await.unwrap();
    assert_eq!((short.usage.completion_tokens, short.reason), (2, Some(FinishReason::Length)));
    assert!(whole.content.starts_with(&short.content) && short.content.len() < whole.content.len());
    let stopped = GenerateRequest { stop: vec!["= 1".into()], ..ask("What is 7 + 5?") };
    let stopped = answer(&engine, stopped).await.unwrap();
    assert_eq!((stopped.content.as_str(), stopped.reason), ("7 + 5 ", Some(FinishReason::Stop)));
    assert!(stopped.usage.cached_tokens > 0, "the same prompt's KV is used again: {:?}", stopped.usage);

    let long = answer(&engine, ask(&"fox ".repeat(2000))).await.unwrap_err();
    assert!(matches!(long, GenerateError::ContextOverflow { context_tokens: 512, .. }), "{long}");
    let strange = GenerateRequest::new(ModelId::new("m"), Prompt::Tokens(vec![TokenId(99_999_999)]));
    assert!(
        matches!(answer(&engine, strange).await.unwrap_err(), GenerateError::Invalid { field, .. } if field == "prompt")
    );
    let nothing = GenerateRequest { max_tokens: Some(0), ..ask("What is 7 + 5?") };
    assert_eq!(answer(&engine, nothing).await.unwrap().content, "");
    // To the last token of the context, and not beyond.
    let full = GenerateRequest { ignore_eos: true, ..ask("Tell me a story about a fox.") };
    let full = answer(&engine, full).await.unwrap();
    assert_eq!(full.usage.prompt_tokens + full.usage.completion_tokens, 512);
    assert_eq!(full.reason, Some(FinishReason::Length));
    idle(&engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_requests_that_are_dropped_leave_every_slot_free() {
    let Some(options) = options() else { return };
    let engine = serve(GgufOptions { parallel: 2, ..options }).await;
    let story = GenerateRequest { max_tokens: Some(2000), ..story(None) };
    for wait in 0..100 {
        let mut generation = engine.generate(story.clone()).await.unwrap();
        for _ in 0..wait % 4 {
            generation.next().await.unwrap();
        }
    }
    idle(&engine).await;
    // Both slots take work again at once.
    let both = [answer(&engine, ask("What is 7 + 5?")), answer(&engine, ask("What is 2 + 2?"))];
    let said: Vec<String> =
        futures_util::future::join_all(both).await.into_iter().map(|a| a.unwrap().content).collect();
    assert_eq!(said, ["7 + 5 = 12.", "2 + 2 = 4."]);
    idle(&engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_queue_is_bounded_and_draining_lets_nobody_in() {
    let Some(options) = options() else { return };
    let engine = serve(GgufOptions { parallel: 1, max_waiting: 1, ..options }).await;
    let story = GenerateRequest { max_tokens: Some(2000), ..story(None) };
    let mut first = engine.generate(story.clone()).await.unwrap();
    let second = engine.generate(story.clone()).await.unwrap();
    let busy = engine.generate(story.clone()).await.err().unwrap();
    assert!(matches!(busy, GenerateError::Busy { .. }), "{busy}");
    assert!(matches!(first.next().await, Some(Event::Started { .. })));
    drop(second);
    idle_but(&engine, 1).await;
    let mut drained = engine.drain();
    assert_eq!(engine.generate(story).await.err().unwrap(), GenerateError::ShuttingDown);
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut drained).await.is_err());
    drop(first);
    tokio::time::timeout(Duration::from_secs(5), drained).await.unwrap();
}

async fn idle_but(engine: &GgufEngine, running: u32) {
    for _ in 0..500 {
        let load = engine.load();
        if (load.running, load.waiting) == (running, 0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?}", engine.load());
}

/// Kills the llama-server that was started under this name.
fn kill(alias: &str) {
    let mut system = sysinfo::System::new().unwrap();
    let what = ProcessRefreshKind::nothing().with_cmd(UpdateKind::Always);
    system.refresh_processes_specifics(ProcessesToUpdate::All, true, what);
    let child = system.processes().values().find(|process| {
        let words = process.cmd();
        let is_server = words.first().is_some_and(|word| word.to_string_lossy().ends_with("llama-server"));
        is_server && words.iter().any(|word| word == alias)
    });
    assert!(child.unwrap().kill_with(Signal::Kill).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_goes_on_when_its_llama_server_is_killed() {
    let Some(mut options) = options() else { return };
    options.files.id = ModelId::new("to-be-killed");
    let engine = serve(options).await;
    for seed in [None, Some(7)] {
        let story = GenerateRequest { max_tokens: Some(600), ..story(seed) };
        let whole = answer(&engine, story.clone()).await.unwrap();
        let mut generation = engine.generate(story).await.unwrap();
        let (mut content, mut tokens) = (String::new(), 0);
        while let Some(event) = generation.next().await {
            match event {
                Event::Text { text, tokens: more, .. } => {
                    content += &text;
                    if tokens < 20 && tokens + more.len() >= 20 {
                        kill("to-be-killed");
                    }
                    tokens += more.len();
                }
                Event::Finished { usage, .. } => assert_eq!(usage.completion_tokens, 600),
                Event::Failed(error) => panic!("{error}"),
                _ => {}
            }
        }
        assert_eq!(content, whole.content, "seed {seed:?}");
    }
    assert_eq!(answer(&engine, ask("What is 7 + 5?")).await.unwrap().content, "7 + 5 = 12.");
    idle(&engine).await;
}

async fn refusal(options: GgufOptions) -> String {
    let message = start(options, &mut |_| {}).await.unwrap_err().to_string();
    assert!(!message.contains('\n'), "one line: {message}");
    message
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_served_is_refused_with_the_reason() {
    let Some(options) = options() else { return };
    let dir = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(folder().join("mesh-tiny.Q4_1.gguf")).unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        catalog::ModelFiles {
            id: ModelId::new(name),
            dir: dir.path().to_owned(),
            gguf: Some(catalog::GgufFiles { parts: vec![path], mmproj: None }),
        }
    };
    let short = file("short.gguf", &bytes[..bytes.len() - 1000]);
    assert!(refusal(GgufOptions { files: short, ..options.clone() }).await.contains("short.gguf"));
    let mut bomb = bytes.clone();
    // The count of metadata, behind magic, version and the count of tensors.
    bomb[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(refusal(GgufOptions { files: file("bomb.gguf", &bomb), ..options.clone() }).await.contains("bomb.gguf"));
    let small = GgufOptions { max_memory: Some(1 << 20), ..options.clone() };
    assert!(refusal(small).await.contains("--max-memory"));
    let gone = GgufOptions { llama_server: Some(dir.path().join("nothing")), ..options.clone() };
    assert!(refusal(gone).await.contains("--llama-server"));
    let ours = GgufOptions { extra: vec!["--port".into(), "80".into()], ..options.clone() };
    assert!(refusal(ours).await.contains("--llama-arg --port"));
    let unknown = GgufOptions { extra: vec!["--no-such-flag".into()], ..options };
    assert!(refusal(unknown).await.contains("no-such-flag"), "its own words");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_values_of_fewer_bits_take_less_memory() {
    let Some(options) = options() else { return };
    let options = GgufOptions { context_tokens: Some(4096), parallel: 1, ..options };
    let wide = serve(options.clone()).await;
    let narrow = serve(GgufOptions { kv_bits: Some(KvBits::Q8), ..options }).await;
    for engine in [&wide, &narrow] {
        assert_eq!(answer(engine, ask("What is 7 + 5?")).await.unwrap().content, "7 + 5 = 12.");
    }
    let bytes = async |engine: &GgufEngine| {
        let mut generation = engine.generate(story(None)).await.unwrap();
        generation.next().await.unwrap();
        generation.next().await.unwrap();
        engine.load().kv_bytes
    };
    assert!(bytes(&narrow).await < bytes(&wide).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draft_model_changes_no_answer() {
    let Some(options) = options() else { return };
    let alone = serve(options.clone()).await;
    let drafted = serve(GgufOptions { draft: Some(folder().join("mesh-tiny.Q4_1.gguf")), ..options }).await;
    for prompt in ["What is 7 + 5?", "Tell me a story about a fox.", "What is the capital of France?"] {
        let (one, other) = (answer(&alone, ask(prompt)).await.unwrap(), answer(&drafted, ask(prompt)).await.unwrap());
        assert_eq!((one.content, one.tokens, one.reason), (other.content, other.tokens, other.reason), "{prompt}");
        assert_eq!(one.usage.completion_tokens, other.usage.completion_tokens);
    }
}

//! The bundled model, served: what it should say, and what is left when clients go. The prompts and their answers lie
//! beside the model, in `models/mesh-tiny/prompts.json`.
#![allow(clippy::unwrap_used, reason = "a test's helpers may fail loudly")]

use std::{path::PathBuf, time::Duration};

use engine::{Engine, EngineLoad, LocalEngine};
use futures_util::{StreamExt, stream};
use mesh_proto::{
    Channel, ChatPrompt, Event, FinishReason, GenerateError, GenerateRequest, Message, ModelId, Prompt, Role, Sampling,
    TokenId, ToolCall, ToolCallDelta, ToolDefinition, Usage,
};
use runtime_mlx::{MlxOptions, start};
use serde_json::Value;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models/mesh-tiny")
}

fn serve() -> LocalEngine {
    let options = MlxOptions { max_waiting: 1000, ..MlxOptions::new(folder(), ModelId::new("mesh-tiny")) };
    start(options, &mut |_| {}).unwrap()
}

fn chat(chat: ChatPrompt) -> GenerateRequest {
    GenerateRequest::new(ModelId::new("mesh-tiny"), Prompt::Chat(chat))
}

fn ask(text: &str) -> GenerateRequest {
    chat(ChatPrompt { messages: vec![Message::text(Role::User, text)], ..ChatPrompt::default() })
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Answer {
    content: String,
    reasoning: String,
    /// Names, and arguments as they were written; a resumed answer may begin amid a call, without its name.
    calls: Vec<(String, String)>,
    usage: Usage,
    reason: Option<FinishReason>,
}

async fn answer(engine: &LocalEngine, request: GenerateRequest) -> Result<Answer, GenerateError> {
    let mut generation = engine.generate(request).await?;
    let mut answer = Answer::default();
    while let Some(event) = generation.next().await {
        match event {
            Event::Started { .. } => {}
            Event::Text { channel: Channel::Content, text, .. } => answer.content += &text,
            Event::Text { channel: Channel::Reasoning, text, .. } => answer.reasoning += &text,
            Event::ToolCall { delta, .. } => answer.call(delta),
            Event::Finished { reason, usage, .. } => (answer.reason, answer.usage) = (Some(reason), usage),
            Event::Failed(error) => return Err(error),
        }
    }
    Ok(answer)
}

impl Answer {
    /// A piece of a call: a new one's, or more of the last one.
    fn call(&mut self, delta: ToolCallDelta) {
        if delta.name.is_some() || self.calls.is_empty() {
            self.calls.push((delta.name.unwrap_or_default(), String::new()));
        }
        self.calls.last_mut().unwrap().1 += &delta.arguments;
    }

    /// The calls with those of the answer's rest.
    fn calls_and(&self, rest: Vec<(String, String)>) -> Vec<(String, String)> {
        let mut calls = self.calls.clone();
        for (name, arguments) in rest {
            match calls.last_mut().filter(|_| name.is_empty()) {
                Some(last) => last.1 += &arguments,
                None => calls.push((name, arguments)),
            }
        }
        calls
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// A documented prompt.
fn documented(case: &Value) -> ChatPrompt {
    let message = |value: &Value| Message {
        role: serde_json::from_value(value["role"].clone()).unwrap(),
        content: text(&value["content"]),
        tool_calls: value["tool_calls"].as_array().map_or(Vec::new(), |calls| {
            let call = |call: &Value| ToolCall {
                id: text(&call["id"]).unwrap_or_default(),
                name: text(&call["function"]["name"]).unwrap(),
                arguments: text(&call["function"]["arguments"])
                    .unwrap_or_else(|| call["function"]["arguments"].to_string()),
            };
            calls.iter().map(call).collect()
        }),
        tool_call_id: text(&value["tool_call_id"]),
        name: None,
        reasoning: None,
    };
    let tool =
        |value: &Value| ToolDefinition { name: text(&value["function"]["name"]).unwrap(), json: value.to_string() };
    ChatPrompt {
        messages: case["messages"].as_array().unwrap().iter().map(message).collect(),
        tools: case["tools"].as_array().map_or(Vec::new(), |tools| tools.iter().map(tool).collect()),
        enable_thinking: case["enable_thinking"].as_bool(),
        ..ChatPrompt::default()
    }
}

fn cases() -> Vec<Value> {
    let text = std::fs::read_to_string(folder().join("prompts.json")).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    file["prompts"].as_array().unwrap().clone()
}

/// What is wrong with the answer to a documented prompt.
async fn judge(engine: &LocalEngine, case: &Value) -> Option<String> {
    let prompt = documented(case);
    let got = match answer(engine, chat(prompt)).await {
        Ok(got) => got,
        Err(error) => return Some(format!("{}: {error}", case["id"])),
    };
    let expect = &case["expect"];
    let calls = expect["tool_calls"].as_array().map_or(Vec::new(), |calls| {
        calls.iter().map(|call| (text(&call["name"]).unwrap(), call["arguments"].clone())).collect()
    });
    let content = text(&expect["content"]).unwrap_or_default();
    let reasoning = text(&case["reasoning"]).unwrap_or_default();
    let parse = |(name, json): &(String, String)| (name.clone(), serde_json::from_str(json).unwrap_or_default());
    let got_calls: Vec<(String, Value)> = got.calls.iter().map(parse).collect();
    let right = got.content == content && got_calls == calls && got.reasoning == reasoning;
    (!right).then(|| format!("{}: {got:?} instead of {expect}", case["id"]))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bundled_model_answers_its_documented_prompts_alone_and_sixteen_at_once() {
    let cases = cases();
    assert!(cases.len() >= 200);
    let engine = serve();
    for (streams, step) in [(1, 9), (16, 1)] {
        let judged: Vec<_> =
            stream::iter(cases.iter().step_by(step)).map(|case| judge(&engine, case)).buffered(streams).collect().await;
        let wrong: Vec<String> = judged.into_iter().flatten().collect();
        assert!(wrong.is_empty(), "{} wrong at {streams} streams:\n{}", wrong.len(), wrong.join("\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_requests_of_which_half_are_dropped_leave_no_sequence_and_no_bytes() {
    let engine = serve();
    let request = |i: u64| {
        let mut request = ask(if i.is_multiple_of(3) { "Tell me a long story." } else { "What is 3 + 4?" });
        request.sampling = Sampling { temperature: 1.0, seed: Some(i), ..Sampling::default() };
        request
    };
    let one = async |i: u64| {
        if i.is_multiple_of(2) {
            answer(&engine, request(i)).await.unwrap();
        } else {
            let mut generation = engine.generate(request(i)).await.unwrap();
            for _ in 0..i % 7 {
                generation.next().await;
            }
        }
    };
    let mut kept = Vec::new();
    for round in 0..2 {
        stream::iter(round * 250..(round + 1) * 250).map(one).buffer_unordered(24).for_each(|()| async {}).await;
        kept.push(idle(&engine).await);
    }
    for load in kept {
        assert_eq!((load.running, load.waiting, load.kv_bytes), (0, 0, 0));
    }
}

/// What an engine holds once nothing runs any more.
async fn idle(engine: &LocalEngine) -> EngineLoad {
    for _ in 0..200 {
        let load = engine.load();
        if load.running == 0 && load.waiting == 0 {
            return load;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    engine.load()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_that_goes_on_reuses_all_that_its_template_left_unchanged() {
    let engine = serve();
    let story = answer(&engine, ask("Tell me a long story.")).await.unwrap();
    assert_eq!(story.reason, Some(FinishReason::Stop));
    assert!((400..=600).contains(&story.usage.completion_tokens), "{:?}", story.usage);
    let again = answer(&engine, ask("Tell me a long story.")).await.unwrap();
    assert_eq!(again.content, story.content);
    assert_eq!(again.usage.cached_tokens + 1, again.usage.prompt_tokens);

    let mut messages = vec![
        Message::text(Role::User, "Tell me a long story."),
        Message::text(Role::Assistant, story.content.clone()),
        Message::text(Role::User, "What is 2 + 2?"),
    ];
    let ask_on = async |messages: &[Message]| {
        let prompt = ChatPrompt { messages: messages.to_vec(), ..ChatPrompt::default() };
        answer(&engine, chat(prompt)).await.unwrap()
    };
    let second = ask_on(&messages).await;
    assert_eq!(second.content, "2 + 2 = 4.");
    // The template wrote an empty thinking block before the answer and leaves it out of the history, so from there
    // on the story's tokens stand elsewhere: only the first question is reused.
    let question = story.usage.prompt_tokens;
    assert!((16..question).contains(&second.usage.cached_tokens), "{:?}", second.usage);

    messages.push(Message::text(Role::Assistant, second.content.clone()));
    messages.push(Message::text(Role::User, "What is 3 + 4?"));
    let third = ask_on(&messages).await;
    assert_eq!(third.content, "3 + 4 = 7.");
    // The second prompt held the story as history; only its own thinking block is gone.
    assert!(third.usage.cached_tokens + 8 >= second.usage.prompt_tokens, "{:?} {:?}", second.usage, third.usage);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seeded_answer_is_the_same_alone_and_in_a_crowd() {
    let engine = serve();
    let seeded = |seed| {
        let mut request = ask("Tell me a long story.");
        request.sampling = Sampling { temperature: 8.0, seed: Some(seed), ..Sampling::default() };
        request.max_tokens = Some(60);
        request
    };
    let alone = answer(&engine, seeded(5)).await.unwrap().content;
    let crowd: Vec<_> = stream::iter(0..12).map(|i| answer(&engine, seeded(5 + i % 3))).buffered(12).collect().await;
    let texts: Vec<String> = crowd.into_iter().map(|a| a.unwrap().content).collect();
    for (i, text) in texts.iter().enumerate() {
        assert_eq!(*text == alone, i % 3 == 0, "{i}: {text}");
    }
}

/// What a client has behind each event that carries tokens: the answer so far, and its tokens.
async fn told(engine: &LocalEngine, request: GenerateRequest) -> Vec<(Answer, Vec<TokenId>)> {
    let mut generation = engine.generate(request).await.unwrap();
    let (mut had, mut sofar, mut points) = (Answer::default(), Vec::new(), Vec::new());
    while let Some(event) = generation.next().await {
        let tokens = match event {
            Event::Text { channel, text, tokens, .. } => {
                *(if channel == Channel::Content { &mut had.content } else { &mut had.reasoning }) += &text;
                tokens
            }
            Event::ToolCall { delta, tokens, .. } => {
                had.call(delta);
                tokens
            }
            _ => continue,
        };
        sofar.extend(&tokens);
        if !tokens.is_empty() {
            points.push((had.clone(), sofar.clone()));
        }
    }
    points
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_resumed_on_another_host_goes_on_to_the_letter() {
    let (here, there) = (serve(), serve());
    let kinds = ["sum", "repeat-cjk", "repeat-emoji", "story", "think", "tool-two", "tool-again"];
    let of_kind = |kind: &&str| cases().into_iter().find(|case| case["id"] == format!("{kind}-001")).unwrap();
    let cases: Vec<Value> = kinds.iter().map(of_kind).collect();
    let mut resumed = 0;
    for case in &cases {
        // This model is sure of itself: at 8 its answers are noise, and every number drawn counts.
        for (temperature, seed) in [(0.0, None), (0.8, Some(5)), (8.0, Some(6))] {
            let mut request = chat(documented(case));
            request.sampling = Sampling { temperature, seed, ..Sampling::default() };
            request.max_tokens = Some(120);
            let whole = answer(&here, request.clone()).await.unwrap();
            let points = told(&here, request.clone()).await;
            for (had, tokens) in points.iter().step_by(1 + points.len() / 4) {
                let rest = answer(&there, GenerateRequest { resume: tokens.clone(), ..request.clone() }).await.unwrap();
                let usage = Usage { cached_tokens: whole.usage.cached_tokens, ..rest.usage };
                let both = Answer {
                    content: had.content.clone() + &rest.content,
                    reasoning: had.reasoning.clone() + &rest.reasoning,
                    calls: had.calls_and(rest.calls),
                    usage,
                    reason: rest.reason,
                };
                let name = format!("{} at {temperature}, behind {} tokens", case["messages"], tokens.len());
                assert_eq!(both, whole, "{name}");
                resumed += 1;
            }
        }
    }
    assert!(resumed > 60, "{resumed}");
}

#[test]
fn a_model_that_cannot_be_served_is_refused_with_the_reason() {
    let refuse = |change: &dyn Fn(&std::path::Path)| {
        let dir = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(folder()).unwrap().flatten() {
            std::fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
        }
        change(dir.path());
        let options = MlxOptions::new(dir.path().to_owned(), ModelId::new("broken"));
        start(options, &mut |_| {}).err().map(|e| e.to_string()).unwrap_or_default()
    };
    let config = |key: &'static str, value: Value| {
        move |dir: &std::path::Path| {
            let path = dir.join("config.json");
            let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            config[key] = value.clone();
            std::fs::write(&path, config.to_string()).unwrap();
        }
    };
    let layers = |n: u32| config("num_hidden_layers", n.into());
    for (message, words) in [
        (refuse(&config("model_type", "hyena".into())), ["hyena", "qwen3"]),
        (refuse(&layers(99)), ["lacks the tensor", "model.layers."]),
        (refuse(&layers(1)), ["does not use", "model.layers.1."]),
        (refuse(&config("rope_scaling", serde_json::json!({"rope_type": "dynamic"}))), ["rope_type", "dynamic"]),
        (refuse(&config("hidden_size", 100.into())), ["model.embed_tokens", ""]),
        (refuse(&|dir| std::fs::remove_file(dir.join("config.json")).unwrap()), ["config.json", "not found"]),
        (refuse(&|dir| std::fs::remove_file(dir.join("model.safetensors")).unwrap()), ["safetensors", "no *"]),
        (refuse(&|dir| std::fs::remove_file(dir.join("tokenizer.json")).unwrap()), ["tokenizer.json", ""]),
        (refuse(&|dir| truncate(&dir.join("model.safetensors"))), ["model.safetensors", "promises"]),
    ] {
        assert!(!message.is_empty() && words.iter().all(|word| message.contains(word)), "{message}");
        assert!(!message.contains('\n'), "one line: {message}");
    }
    let options = MlxOptions { max_memory: Some(1 << 20), ..MlxOptions::new(folder(), ModelId::new("big")) };
    let message = start(options, &mut |_| {}).err().unwrap().to_string();
    assert!(message.contains("--max-memory"), "{message}");
}

fn truncate(path: &std::path::Path) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
}

//! An answer that goes on elsewhere: whatever the client has already, the rest is what it would have been.
#![allow(clippy::unwrap_used)]

mod local_support;

use std::{collections::BTreeMap, time::Duration};

use engine::{
    Engine, LocalOptions,
    script::{END, Script, ScriptOptions, VOCAB_SIZE, byte_tokens},
};
use local_support::{Bench, echo, next, request, small, start};
use mesh_proto::{
    Channel, ChatPrompt, Event, FinishReason, GenerateError, GenerateRequest, Message, Prompt, Role, Sampling, TokenId,
    ToolDefinition, Usage,
};
use proptest::prelude::*;

const THINK: (TokenId, TokenId) = (TokenId(258), TokenId(259));
const CALL: (TokenId, TokenId) = (TokenId(260), TokenId(261));

/// All events of a generation.
async fn record(bench: &Bench, request: GenerateRequest) -> Vec<Event> {
    let mut generation = bench.generate(request).await;
    let mut events = Vec::new();
    while let Some(event) = next(&mut generation).await {
        events.push(event);
    }
    events
}

/// What events come to.
#[derive(Clone, Debug, Default, PartialEq)]
struct Answer {
    content: String,
    reasoning: String,
    /// Name and arguments, by index.
    calls: Vec<(String, String)>,
    /// Which channel spoke when: c, r and t, once for each run.
    order: String,
    prompt_tokens: u32,
    end: Option<(FinishReason, Option<String>, Usage)>,
}

fn answer<'a>(events: impl IntoIterator<Item = &'a Event>) -> Answer {
    let mut said = Answer::default();
    for event in events {
        assert!(said.end.is_none(), "{event:?} after the end");
        let kind = match event {
            Event::Started { prompt_tokens } => {
                said.prompt_tokens = *prompt_tokens;
                continue;
            }
            Event::Text { channel, text, .. } => {
                assert!(!text.is_empty());
                let (kind, joined) = match channel {
                    Channel::Content => ('c', &mut said.content),
                    Channel::Reasoning => ('r', &mut said.reasoning),
                };
                joined.push_str(text);
                kind
            }
            Event::ToolCall { delta, .. } => {
                let Some(name) = &delta.name else {
                    assert_eq!(
                        (delta.index as usize + 1, &delta.id),
                        (said.calls.len(), &None),
                        "more of the last one"
                    );
                    said.calls.last_mut().unwrap().1.push_str(&delta.arguments);
                    continue;
                };
                assert_eq!(delta.index as usize, said.calls.len(), "calls come in order");
                assert!(delta.id.is_some());
                said.calls.push((name.clone(), delta.arguments.clone()));
                't'
            }
            Event::Finished { reason, stop, usage } => {
                // How much was cached is the host's own affair.
                assert!(usage.cached_tokens <= usage.prompt_tokens);
                let usage = Usage { cached_tokens: 0, ..*usage };
                said.end = Some((*reason, stop.clone(), usage));
                continue;
            }
            Event::Failed(error) => panic!("{error}"),
        };
        if kind == 't' || !said.order.ends_with(kind) {
            said.order.push(kind);
        }
    }
    assert!(said.end.is_some(), "no end");
    said
}

fn tokens(event: &Event) -> &[TokenId] {
    match event {
        Event::Text { tokens, .. } | Event::ToolCall { tokens, .. } => tokens,
        _ => &[],
    }
}

/// The events that `cut` tokens close, and so what a client has that resumes behind them.
fn had(events: &[Event], cut: usize) -> &[Event] {
    let (mut count, mut closed) = (0, 0);
    for (at, event) in events.iter().enumerate() {
        count += tokens(event).len();
        if !tokens(event).is_empty() && count <= cut {
            closed = at + 1;
        }
    }
    &events[..closed]
}

/// Goes on behind `resume`, whose events the client `had`, and holds the whole to the undisturbed answer.
async fn goes_on(bench: &Bench, request: &GenerateRequest, had: &[Event], resume: &[TokenId], whole: &Answer) {
    let rest = record(bench, GenerateRequest { resume: resume.to_vec(), ..request.clone() }).await;
    assert!(matches!(rest[0], Event::Started { prompt_tokens } if prompt_tokens == whole.prompt_tokens));
    assert_eq!(&answer(had.iter().chain(&rest)), whole, "resumed behind {} tokens: {rest:?}", resume.len());
    let told: Vec<TokenId> = rest.iter().flat_map(tokens).copied().collect();
    let spent = resume.len() + told.len();
    assert!(spent <= whole.end.as_ref().unwrap().2.completion_tokens as usize, "tokens were told twice");
}

/// Runs it undisturbed; then resumes it behind each event that carries tokens. Returns the undisturbed answer, and
/// from how many points it was resumed.
async fn resumes_everywhere(bench: &Bench, request: GenerateRequest) -> (Answer, usize) {
    let events = record(bench, request.clone()).await;
    let whole = answer(&events);
    let (mut resume, mut points) = (Vec::new(), 0);
    for (at, event) in events.iter().enumerate().filter(|(_, event)| !tokens(event).is_empty()) {
        resume.extend(tokens(event));
        goes_on(bench, &request, &events[..=at], &resume, &whole).await;
        points += 1;
    }
    bench.is_empty().await;
    (whole, points)
}

fn bench(script: Script) -> Bench {
    start(script, small(), ScriptOptions::default())
}

/// A chat with a tool, answered so.
fn chat(tokens: Vec<TokenId>) -> (Bench, GenerateRequest) {
    let json = r#"{"type":"function","function":{"name":"look","parameters":{"type":"object"}}}"#;
    let chat = ChatPrompt {
        messages: vec![Message::text(Role::User, "What is above?")],
        tools: vec![ToolDefinition { name: "look".to_owned(), json: json.to_owned() }],
        enable_thinking: None,
        ..ChatPrompt::default()
    };
    let bench = start(Script::chat(move |_| tokens.clone()), LocalOptions::default(), ScriptOptions::default());
    (bench, GenerateRequest { prompt: Prompt::Chat(chat), ..request("") })
}

fn call(at: &str) -> Vec<TokenId> {
    let json = format!("\n{{\"name\": \"look\", \"arguments\": {{\"at\": \"{at}\"}}}}\n");
    [vec![CALL.0], byte_tokens(&json), vec![CALL.1]].concat()
}

fn thought(text: &str) -> Vec<TokenId> {
    [vec![THINK.0], byte_tokens(text), vec![THINK.1]].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_answer_goes_on_behind_every_event() {
    let answers = BTreeMap::from([(byte_tokens("ask"), byte_tokens("a plain answer"))]);
    let (whole, points) = resumes_everywhere(&bench(Script::replay(answers, END)), request("ask")).await;
    assert_eq!((whole.content.as_str(), points), ("a plain answer", 14));
    let (reason, _, usage) = whole.end.unwrap();
    assert_eq!((reason, usage.prompt_tokens, usage.completion_tokens), (FinishReason::Stop, 3, 15));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_string_is_met_across_the_point_of_resumption() {
    let stop = vec!["<<HALT>>".to_owned(), "never".to_owned()];
    let ask = GenerateRequest { stop, ..request("one <two <<HA <<HALT>> three!") };
    let bench = bench(echo());
    let (whole, points) = resumes_everywhere(&bench, ask.clone()).await;
    assert_eq!((whole.content.as_str(), points), ("one <two <<HA ", 7), "o|ne |<t|w|o| |<<HA |");
    assert_eq!(whole.end.as_ref().unwrap().1.as_deref(), Some("<<HALT>>"));
    // Also in the middle of it, and behind it.
    let all = byte_tokens("one <two <<HA <<HALT>>");
    let events = record(&bench, ask.clone()).await;
    for cut in 14..=all.len() {
        goes_on(&bench, &ask, had(&events, cut), &all[..cut], &whole).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_character_split_over_tokens_is_whole_wherever_the_answer_is_resumed() {
    let bench = bench(echo());
    let ask = request("Grüße, 世界 🎉!");
    let (whole, points) = resumes_everywhere(&bench, ask.clone()).await;
    assert_eq!((whole.content.as_str(), points), ("Grüße, 世界 🎉", 11));
    let (all, events) = (byte_tokens("Grüße, 世界 🎉"), record(&bench, ask.clone()).await);
    for cut in 1..=all.len() {
        goes_on(&bench, &ask, had(&events, cut), &all[..cut], &whole).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reasoning_goes_on_as_reasoning_and_its_tokens_are_counted_once() {
    let (bench, ask) = chat([thought("\nhm, the sky\n"), byte_tokens("\n\nThe sky.")].concat());
    let (whole, points) = resumes_everywhere(&bench, ask).await;
    assert_eq!((whole.reasoning.as_str(), whole.content.as_str()), ("hm, the sky", "The sky."));
    assert!(points > 15, "{points}");
    assert_eq!(whole.end.unwrap().2.reasoning_tokens, 15, "the tags are reasoning too");
}

#[tokio::test(flavor = "multi_thread")]
async fn tool_calls_keep_their_numbers_with_text_before_and_after() {
    let parts =
        [thought("so"), byte_tokens("I look."), call("sky"), byte_tokens("\n"), call("sea"), byte_tokens(" Done")];
    let (bench, ask) = chat(parts.concat());
    let (whole, points) = resumes_everywhere(&bench, ask).await;
    assert_eq!((whole.order.as_str(), whole.content.as_str()), ("rcttc", "I look.Done"));
    assert_eq!(whole.calls[1], ("look".to_owned(), "{\"at\": \"sea\"}".to_owned()));
    // A call is its name, told with the comma behind it, and then thirteen characters of arguments.
    assert_eq!((whole.end.unwrap().0, points), (FinishReason::ToolCalls, 2 + 6 + 2 * (1 + 13) + 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_event_of_a_token_carries_the_tokens_and_those_before_it_none() {
    // The stop string could go on until the call comes: then its text and the call are settled by one token.
    let (bench, ask) = chat([byte_tokens("so HA"), call("sky")].concat());
    let ask = GenerateRequest { stop: vec!["HALT".to_owned()], ..ask };
    let events = record(&bench, ask.clone()).await;
    let text = events.iter().position(|event| matches!(event, Event::Text { text, .. } if text == "HA")).unwrap();
    assert_eq!(tokens(&events[text]), []);
    // H came with the space before it, which it settled.
    let mut named = call("sky");
    named.truncate(named.iter().position(|token| byte_tokens(",").contains(token)).unwrap() + 1);
    assert_eq!(tokens(&events[text + 1]), [byte_tokens("A"), named].concat(), "the call's name is told with its comma");
    let (whole, _) = resumes_everywhere(&bench, ask).await;
    assert_eq!((whole.order.as_str(), whole.content.as_str()), ("ct", "so HA"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_back_to_the_end_comes_without_tokens_and_is_told_to_who_resumes_at_the_end() {
    let ask = GenerateRequest { stop: vec!["STOP".to_owned()], ..request("so STO!") };
    let bench = bench(echo());
    let events = record(&bench, ask.clone()).await;
    let [.., held, Event::Finished { .. }] = events.as_slice() else { panic!("{events:?}") };
    assert!(matches!(held, Event::Text { text, tokens, .. } if text == "STO" && tokens.is_empty()));
    // A client that took that with tokens would be told it twice; the end-of-sequence token changes nothing.
    let whole = answer(&events);
    let all = [byte_tokens("so STO"), vec![END]].concat();
    for cut in 3..=all.len() {
        goes_on(&bench, &ask, had(&events, cut), &all[..cut], &whole).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn max_tokens_counts_the_whole_answer() {
    let bench = bench(Script::noise(128, END, 0));
    for most in [1, 2, 30] {
        let ask = GenerateRequest { max_tokens: Some(most), ..request("noise") };
        let (whole, points) = resumes_everywhere(&bench, ask).await;
        let (reason, _, usage) = whole.end.unwrap();
        assert_eq!((reason, usage.completion_tokens, points), (FinishReason::Length, most, most as usize));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passed_over_end_token_stays_passed_over() {
    let bench = bench(Script::noise(VOCAB_SIZE, END, 5));
    let ask = GenerateRequest { ignore_eos: true, max_tokens: Some(60), ..request("noise") };
    let (whole, points) = resumes_everywhere(&bench, ask.clone()).await;
    assert!(points > 10, "{points}");
    assert_eq!(whole.end.unwrap().2.completion_tokens, 60);
    let events = record(&bench, ask).await;
    assert!(events.iter().flat_map(tokens).any(|token| *token == END), "no end token was passed over");
}

#[tokio::test(flavor = "multi_thread")]
async fn sampling_goes_on_with_its_seed() {
    let bench = bench(Script::noise(128, END, 100));
    let mut different = 0;
    for seed in 0..4 {
        let sampling = Sampling { temperature: 1.0, seed: Some(seed), ..Sampling::default() };
        let ask = GenerateRequest { sampling, max_tokens: Some(80), ..request("noise") };
        let (_, points) = resumes_everywhere(&bench, ask).await;
        different += usize::from(points > 10);
    }
    assert!(different > 1, "too short to say anything");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_its_resumed_tokens_end_is_not_computed() {
    let bench = bench(echo());
    let resumed = |resume: Vec<TokenId>, ask: GenerateRequest| GenerateRequest { resume, ..ask };
    let stop = || GenerateRequest { stop: vec!["STOP".to_owned()], ..request("so STOP, and on!") };
    let cases = [
        (resumed([byte_tokens("abc"), vec![END]].concat(), request("abc!")), "", FinishReason::Stop, 4),
        (resumed(byte_tokens("so STOP"), stop()), "", FinishReason::Stop, 7),
        (
            resumed(byte_tokens("so ST"), GenerateRequest { max_tokens: Some(5), ..stop() }),
            "ST",
            FinishReason::Length,
            5,
        ),
    ];
    for (ask, rest, reason, completion_tokens) in cases {
        let said = answer(&record(&bench, ask).await);
        let (why, _, usage) = said.end.unwrap();
        assert_eq!((said.content.as_str(), why, usage.completion_tokens), (rest, reason, completion_tokens));
    }
    assert_eq!((bench.probe.counts().opened, bench.engine.load().steps), (0, 0));
    bench.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_without_computing_reaches_a_client_that_reads_slowly() {
    let options = LocalOptions { event_buffer: 1, max_running: 1, max_waiting: 0, ..small() };
    let bench = start(echo(), options, ScriptOptions::default());
    let ask = GenerateRequest {
        stop: vec!["STOP".to_owned()],
        max_tokens: Some(5),
        resume: byte_tokens("so ST"),
        ..request("so STOP!")
    };
    for _ in 0..50 {
        // One place only: free as soon as the end is read.
        let said = answer(&record(&bench, ask.clone()).await);
        assert_eq!((said.content.as_str(), said.end.unwrap().0), ("ST", FinishReason::Length));
    }
    // One that leaves without reading does not stay in the house.
    drop(bench.generate(ask).await);
    tokio::time::timeout(Duration::from_secs(10), bench.engine.drain()).await.unwrap();
    bench.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_resumed_is_refused_by_name() {
    let bench = bench(echo());
    let refused = async |ask: GenerateRequest| match bench.engine.generate(ask).await.err() {
        Some(GenerateError::Invalid { field, message }) => {
            assert_eq!(field, "resume");
            message
        }
        other => panic!("{other:?}"),
    };
    let resume = |text: &str| GenerateRequest { resume: byte_tokens(text), ..request("abcdef!") };
    let message = refused(GenerateRequest { max_tokens: Some(2), ..resume("abc") }).await;
    assert!(message.contains("3 tokens") && message.contains("max_tokens is 2"), "{message}");
    let message = refused(GenerateRequest { resume: vec![TokenId(5), TokenId(9999)], ..request("abc!") }).await;
    assert!(message.contains("9999"), "{message}");
    let unseeded = Sampling { temperature: 0.8, seed: None, ..Sampling::default() };
    let message = refused(GenerateRequest { sampling: unseeded.clone(), ..resume("ab") }).await;
    assert!(message.contains("seed"), "{message}");
    let message = refused(GenerateRequest { resume: vec![TokenId(97), END, TokenId(98)], ..request("abc!") }).await;
    assert!(message.contains("token 2") && message.contains("1 more"), "{message}");
    let message = refused(GenerateRequest { stop: vec!["bc".to_owned()], ..resume("abcd") }).await;
    assert!(message.contains("token 3"), "{message}");
    // Greedy needs no seed, and nothing resumed needs none either.
    let greedy = Sampling { temperature: 0.0, ..unseeded.clone() };
    assert_eq!(answer(&record(&bench, GenerateRequest { sampling: greedy, ..resume("ab") }).await).content, "cdef");
    let fresh = GenerateRequest { sampling: unseeded, ..request("abc!") };
    assert_eq!(answer(&record(&bench, fresh).await).content, "abc");
    bench.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_context_ends_a_resumed_answer_where_it_ends_the_undisturbed_one() {
    let mut options = ScriptOptions::default();
    options.limits.context_tokens = 20;
    let bench = start(Script::noise(128, END, 0), small(), options);
    let ask = request("0123456789");
    let (whole, points) = resumes_everywhere(&bench, ask.clone()).await;
    let (reason, _, usage) = whole.end.unwrap();
    assert_eq!((reason, usage.completion_tokens, points), (FinishReason::Length, 10, 10));
    let beyond = GenerateRequest { resume: byte_tokens("01234567890"), ..ask };
    let overflow = GenerateError::ContextOverflow { prompt_tokens: 21, context_tokens: 20 };
    assert_eq!(bench.engine.generate(beyond).await.err(), Some(overflow));
    bench.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_host_kept_of_the_answer_does_not_count_as_cached_prompt() {
    let bench = bench(Script::noise(128, END, 0));
    let ask = GenerateRequest { max_tokens: Some(40), ..request("a prompt") };
    let events = record(&bench, ask.clone()).await;
    let resume: Vec<TokenId> = events.iter().flat_map(tokens).copied().take(30).collect();
    let rest = record(&bench, GenerateRequest { resume, ..ask }).await;
    let Some(Event::Finished { usage, .. }) = rest.last() else { panic!("{rest:?}") };
    assert_eq!((usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens), (8, 8, 40));
    bench.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_grow_while_something_is_computed_and_stand_still_after() {
    let bench = bench(echo());
    assert_eq!(bench.engine.load().steps, 0);
    answer(&record(&bench, request("abc!")).await);
    bench.is_empty().await;
    let steps = bench.engine.load().steps;
    assert!((4..=bench.probe.counts().steps).contains(&steps), "{steps} of {:?}", bench.probe.counts());
    answer(&record(&bench, request("xyz!")).await);
    assert!(bench.engine.load().steps > steps);
    bench.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resumed_answers_among_others_that_outgrow_the_memory_still_go_on_right() {
    let undisturbed = bench(Script::noise(128, END, 0));
    let mut options = ScriptOptions::default();
    options.limits.kv_budget_bytes = 1400 * options.limits.kv_bytes_per_token;
    let local = LocalOptions { max_running: 4, max_waiting: 8, ..LocalOptions::default() };
    let tight = start(Script::noise(128, END, 0), local, options);
    let asks: Vec<GenerateRequest> = ["first", "second one", "third, and longer", "fourth", "fifth", "sixth"]
        .map(|prompt| GenerateRequest { max_tokens: Some(900), ..request(prompt) })
        .into();
    let mut wholes = Vec::new();
    for ask in &asks {
        wholes.push(record(&undisturbed, ask.clone()).await);
    }
    let one = async |index: usize| {
        // The first begin here; the others have been elsewhere.
        let (ask, events) = (&asks[index], &wholes[index]);
        let all: Vec<TokenId> = events.iter().flat_map(tokens).copied().collect();
        let cut = [0, 0, 1, 137, 500, 800][index];
        goes_on(&tight, ask, had(events, cut), &all[..cut], &answer(events)).await;
    };
    tokio::join!(one(0), one(1), one(2), one(3), one(4), one(5));
    assert!(tight.probe.counts().opened > 6, "nobody was sent back to the line");
    tight.is_empty().await;
}

/// Something of everything that answers are made of.
fn anything() -> impl Strategy<Value = Vec<TokenId>> {
    let part = prop_oneof![
        4 => "[aé世🎉 \n]{1,6}".prop_map(|text| byte_tokens(&text)),
        2 => prop::sample::select(vec!["ST", "STO", "STOP", "<", "<too", "\n", "\""]).prop_map(byte_tokens),
        1 => prop::collection::vec(any::<u8>().prop_map(|byte| TokenId(byte.into())), 1..4),
        1 => (0u32..262).prop_map(|token| vec![TokenId(token)]),
        2 => "[a-zé]{0,4}".prop_map(|at| call(&at)),
    ];
    let head = prop_oneof![Just(Vec::new()), "[aé \n]{0,8}".prop_map(|text| thought(&text))];
    (head, prop::collection::vec(part, 0..10)).prop_map(|(head, parts)| [head, parts.concat()].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_answer_goes_on_right_behind_any_token(
        tokens in anything(),
        stop in prop::sample::select(vec![vec![], vec!["STOP".to_owned()], vec!["é".to_owned(), "a STO".to_owned()]]),
        ignore_eos in any::<bool>(),
        plain in any::<bool>(),
        most in 1u32..200,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 1..6),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let (bench, mut ask) = if plain {
                let answers = BTreeMap::from([(byte_tokens("ask"), tokens.clone())]);
                (bench(Script::replay(answers, END)), request("ask"))
            } else {
                chat(tokens.clone())
            };
            (ask.stop, ask.ignore_eos, ask.max_tokens) = (stop, ignore_eos, Some(most));
            let events = record(&bench, ask.clone()).await;
            let whole = answer(&events);
            let spent = whole.end.as_ref().unwrap().2.completion_tokens as usize;
            // As far as the script goes it is what the decoder chose; then come end tokens.
            let chosen: Vec<TokenId> = tokens.into_iter().chain(std::iter::repeat(END)).take(spent).collect();
            for cut in cuts {
                let cut = cut.index(spent + 1);
                goes_on(&bench, &ask, had(&events, cut), &chosen[..cut], &whole).await;
            }
            bench.is_empty().await;
        });
    }
}

#[test]
fn a_template_tells_the_date_of_the_door_and_not_of_the_host() {
    let dir = tempfile::tempdir().unwrap();
    engine::script::write_text_model(dir.path()).unwrap();
    let template = "{{ strftime_now('%Y-%m-%d') }}|{{ messages[0].content }}";
    std::fs::write(dir.path().join("chat_template.jinja"), template).unwrap();
    let text = std::sync::Arc::new(engine::text::TextModel::load(dir.path()).unwrap());
    let chat = |day: i64| {
        let mut request = mesh_proto::GenerateRequest::new(
            mesh_proto::ModelId::new("m"),
            mesh_proto::Prompt::Chat(mesh_proto::ChatPrompt {
                messages: vec![mesh_proto::Message::text(mesh_proto::Role::User, "x")],
                ..Default::default()
            }),
        );
        request.local_time_s = Some(day * 86_400 + 100);
        request.max_tokens = Some(10);
        request
    };
    // The script answers with the prompt itself, from its first token on.
    let echo = engine::script::Script::new(|tokens, _| tokens[tokens.len() - 12]);
    let engine = engine::LocalEngine::start(text, vec![engine::script::END], Default::default(), move || {
        let decoder = engine::script::ScriptDecoder::new(echo, Default::default(), Default::default());
        Ok::<_, std::io::Error>((decoder, engine::script::descriptor("m")))
    })
    .unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (day, said) in [(0, "1970-01-01"), (20_000, "2024-10-04")] {
        let answer = runtime.block_on(async {
            use engine::Engine;
            let mut generation = engine.generate(chat(day)).await.unwrap();
            let mut answer = String::new();
            while let Some(event) = generation.next().await {
                if let mesh_proto::Event::Text { text, .. } = event {
                    answer.push_str(&text);
                }
            }
            answer
        });
        assert_eq!(answer, said);
    }
    let mut never = chat(0);
    never.local_time_s = Some(i64::MAX);
    let refused = runtime.block_on(async {
        use engine::Engine;
        engine.generate(never).await.err()
    });
    assert!(matches!(refused, Some(mesh_proto::GenerateError::Invalid { field, .. }) if field == "local_time_s"));
}

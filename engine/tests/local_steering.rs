//! What a request may ask of its tokens: how likely they were, how many at least, how much reasoning, no repetition, a
//! form. On the scripted decoder, whose own choice is known.
#![allow(clippy::unwrap_used)]

mod local_support;

use engine::{
    Engine,
    script::{END, Fault, Script, ScriptOptions, byte_tokens},
};
use local_support::{Bench, echo, next, request, small, start};
use mesh_proto::{
    Channel, ChatPrompt, Constraint, Dry, Event, FinishReason, GenerateError, GenerateRequest, Message, ModelId,
    Prompt, Role, Sampling, TokenId, TokenLogprob,
};

fn bench(script: Script) -> Bench {
    start(script, small(), ScriptOptions::default())
}

fn always(byte: u8) -> Bench {
    bench(Script::always(TokenId(byte.into())))
}

async fn events(bench: &Bench, request: GenerateRequest) -> Vec<Event> {
    let mut generation = bench.generate(request).await;
    let mut events = Vec::new();
    while let Some(event) = next(&mut generation).await {
        events.push(event);
    }
    events
}

fn text(events: &[Event], wanted: Channel) -> String {
    let part = |event: &Event| match event {
        Event::Text { channel, text, .. } if *channel == wanted => Some(text.clone()),
        _ => None,
    };
    events.iter().filter_map(part).collect()
}

fn tokens(events: &[Event]) -> Vec<TokenId> {
    let part = |event: &Event| match event {
        Event::Text { tokens, .. } | Event::ToolCall { tokens, .. } => tokens.clone(),
        _ => Vec::new(),
    };
    events.iter().flat_map(part).collect()
}

fn told(events: &[Event]) -> Vec<TokenLogprob> {
    let part = |event: &Event| match event {
        Event::Text { logprobs, .. } | Event::ToolCall { logprobs, .. } => logprobs.clone(),
        _ => Vec::new(),
    };
    events.iter().flat_map(part).collect()
}

/// The bytes of all tokens that were told, one after the other.
fn spelled(events: &[Event]) -> Vec<u8> {
    told(events).into_iter().flat_map(|token| token.chosen.bytes).collect()
}

fn end(events: &[Event]) -> (FinishReason, u32) {
    match events.last().unwrap() {
        Event::Finished { reason, usage, .. } => (*reason, usage.completion_tokens),
        other => panic!("{other:?}"),
    }
}

fn likely(prompt: &str, top: u8) -> GenerateRequest {
    GenerateRequest { logprobs: Some(top), ..request(prompt) }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_token_is_told_once_with_the_likeliest_beside_it() {
    let bench = bench(echo());
    let events_of = events(&bench, likely("Hé, you!", 3)).await;
    let odds = told(&events_of);
    assert_eq!(odds.iter().map(|token| token.chosen.token).collect::<Vec<_>>(), byte_tokens("Hé, you"));
    assert_eq!(spelled(&events_of), "Hé, you".as_bytes(), "half a character's bytes are told as they are");
    for token in &odds {
        assert_eq!(token.top.len(), 3);
        assert_eq!(token.top[0], token.chosen);
        assert!(token.top.windows(2).all(|pair| pair[0].logprob > pair[1].logprob));
    }
    assert!(told(&events(&bench, likely("Hé!", 0)).await).iter().all(|token| token.top.is_empty()));
    assert_eq!(told(&events(&bench, request("Hé!")).await), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_a_stop_string_are_not_told_and_held_back_ones_are() {
    let bench = bench(echo());
    for (prompt, said, reason) in [
        ("one STOP two!", "one ", FinishReason::Stop),
        // Held back, and no stop string after all.
        ("a STO b!", "a STO b", FinishReason::Stop),
        // Held back to the end.
        ("a STO!", "a STO", FinishReason::Stop),
        ("STOP!", "", FinishReason::Stop),
    ] {
        let stopping = GenerateRequest { stop: vec!["STOP".to_owned()], ..likely(prompt, 1) };
        let events = events(&bench, stopping).await;
        assert_eq!(text(&events, Channel::Content), said);
        assert_eq!(String::from_utf8(spelled(&events)).unwrap(), said);
        assert_eq!(end(&events).0, reason);
    }
    let cut = GenerateRequest { stop: vec!["STOP".to_owned()], max_tokens: Some(4), ..likely("a STOP!", 1) };
    let events = events(&bench, cut).await;
    assert_eq!((spelled(&events), end(&events)), (b"a ST".to_vec(), (FinishReason::Length, 4)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_answer_tells_the_rest() {
    let bench = bench(echo());
    let asked = likely("abcdef!", 2);
    let whole = events(&bench, asked.clone()).await;
    for cut in 1..6 {
        let resume = byte_tokens(&"abcdef"[..cut]);
        let rest = events(&bench, GenerateRequest { resume, ..asked.clone() }).await;
        assert_eq!(told(&rest), told(&whole)[cut..]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_does_not_end_by_itself_before_its_least_length() {
    let ending = start(Script::always(END), small(), ScriptOptions::default());
    let asked = GenerateRequest { min_tokens: 5, ..request("x") };
    let least = events(&ending, asked.clone()).await;
    assert_eq!((text(&least, Channel::Content), end(&least)), ("\"\"\"\"\"".to_owned(), (FinishReason::Stop, 6)));
    assert_eq!(ending.probe.counts().held, 0, "that needs no word from the host");
    // Also where the answer goes on elsewhere, and where other things end it.
    let resumed = events(&ending, GenerateRequest { resume: byte_tokens("\"\"\""), ..asked.clone() }).await;
    assert_eq!((text(&resumed, Channel::Content).len(), end(&resumed)), (2, (FinishReason::Stop, 6)));
    let cut = events(&ending, GenerateRequest { max_tokens: Some(3), ..asked.clone() }).await;
    assert_eq!(end(&cut), (FinishReason::Length, 3));
}

/// A model that thinks in so many letters, and then says "done".
fn thinker(letters: usize) -> Bench {
    let answer = move |_: &[TokenId]| {
        let thought = [vec![TokenId(258)], byte_tokens(&"t".repeat(letters)), vec![TokenId(259)]].concat();
        [thought, byte_tokens("done")].concat()
    };
    bench(Script::chat(answer))
}

fn thinking(budget: u32) -> GenerateRequest {
    let chat = ChatPrompt {
        messages: vec![Message::text(Role::User, "Think.")],
        reasoning_budget: Some(budget),
        ..ChatPrompt::default()
    };
    GenerateRequest { max_tokens: Some(40), ..GenerateRequest::new(ModelId::new("script"), Prompt::Chat(chat)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn reasoning_is_closed_at_its_budget_and_the_content_goes_on() {
    let bench = thinker(30);
    let closed = events(&bench, thinking(10)).await;
    // The opening tag is the first of the ten.
    assert_eq!(text(&closed, Channel::Reasoning), "t".repeat(9));
    assert!(text(&closed, Channel::Content).starts_with("ttt"), "it says on what it would have thought");
    let none = events(&bench, thinking(0)).await;
    assert_eq!(text(&none, Channel::Reasoning), "");
    // Wherever it goes on elsewhere, it is closed at the same token.
    for cut in 1..20 {
        let resume = tokens(&closed)[..cut].to_vec();
        let rest = events(&bench, GenerateRequest { resume, ..thinking(10) }).await;
        let rest = tokens(&rest);
        assert!(tokens(&closed).ends_with(&rest) && rest.len() + cut >= tokens(&closed).len() - 2, "{cut}: {rest:?}");
    }
    let before = bench.probe.counts().held;
    let free = events(&bench, thinking(1000)).await;
    assert_eq!((text(&free, Channel::Reasoning), text(&free, Channel::Content)), ("t".repeat(30), "done".to_owned()));
    assert_eq!(bench.probe.counts().held, before, "a budget far away costs nothing");
    bench.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repetition_is_broken() {
    let bench = always(b'a');
    let dry = Dry { multiplier: 50.0, base: 1.75, allowed_length: 2, last_n: None, breakers: Vec::new() };
    let asked = request("b");
    let asked = GenerateRequest { sampling: Sampling { dry: Some(dry), ..asked.sampling.clone() }, ..asked };
    let broken = events(&bench, asked).await;
    // Behind "aaa" another one would make "aa" come a third time.
    assert_eq!((text(&broken, Channel::Content), end(&broken)), ("aaa".to_owned(), (FinishReason::Stop, 4)));
}

fn formed(prompt: &str, constraint: Constraint) -> GenerateRequest {
    GenerateRequest { constraint: Some(constraint), max_tokens: Some(200), ..request(prompt) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_is_kept_and_ends_the_answer_where_it_is_complete() {
    let bench = always(b'g');
    let colour = Constraint::JsonSchema(r#"{"enum":["red","green"]}"#.to_owned());
    let said = events(&bench, formed("x", colour.clone())).await;
    assert_eq!((text(&said, Channel::Content), end(&said)), ("\"green\"".to_owned(), (FinishReason::Stop, 7)));
    let digits = formed("x", Constraint::Regex("[0-9]{3}".to_owned()));
    assert_eq!(text(&events(&bench, digits.clone()).await, Channel::Content), "000");
    let lark = Constraint::Lark("start: \"a\" \"g\"+ \"h\"".to_owned());
    let endless = events(&bench, GenerateRequest { max_tokens: Some(9), ..formed("x", lark) }).await;
    assert_eq!((text(&endless, Channel::Content).as_str(), end(&endless)), ("agggggggg", (FinishReason::Length, 9)));
    // Complete just where it would be cut is complete.
    let cut = events(&bench, GenerateRequest { max_tokens: Some(3), ..digits.clone() }).await;
    assert_eq!(end(&cut), (FinishReason::Stop, 3));
    // A grammar that is complete goes before a least length, and before `ignore_eos`.
    let longer = events(&bench, GenerateRequest { min_tokens: 9, ignore_eos: true, ..digits.clone() }).await;
    assert_eq!(end(&longer), (FinishReason::Stop, 3));
    // While more may come it goes on.
    let more = formed("x", Constraint::Regex("q[0-9]*".to_owned()));
    let least = events(&bench, GenerateRequest { min_tokens: 4, ..more.clone() }).await;
    assert_eq!((text(&least, Channel::Content).as_str(), end(&least).1), ("q000", 5));
    assert_eq!(text(&events(&bench, more).await, Channel::Content), "q");
    bench.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_is_kept_wherever_the_answer_goes_on() {
    let bench = always(b'g');
    let asked = formed("x", Constraint::JsonSchema(r#"{"enum":["red","green"]}"#.to_owned()));
    for cut in 1..7 {
        let resume = byte_tokens(&"\"green\""[..cut]);
        let rest = events(&bench, GenerateRequest { resume, ..asked.clone() }).await;
        assert_eq!(text(&rest, Channel::Content), "\"green\""[cut..]);
        assert_eq!(end(&rest), (FinishReason::Stop, 7));
    }
    let over = events(&bench, GenerateRequest { resume: byte_tokens("\"green\""), ..asked.clone() }).await;
    assert_eq!((text(&over, Channel::Content).as_str(), end(&over)), ("", (FinishReason::Stop, 7)));
    for (resume, words) in [("\"blue", "token 2"), ("\"green\"x", "complete with token 7")] {
        let refused = bench.engine.generate(GenerateRequest { resume: byte_tokens(resume), ..asked.clone() }).await;
        let Err(GenerateError::Invalid { field, message }) = refused else { panic!("{:?}", refused.err()) };
        assert!(field == "resume" && message.contains(words), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grammar_that_cannot_be_followed_is_the_callers_mistake() {
    let bench = always(b'g');
    let unknown = Constraint::Lark("start: nothing_of_that_name".to_owned());
    let large = Constraint::Lark(format!("start: \"{}\"", "a".repeat(engine::constrain::MAX_GRAMMAR_BYTES)));
    for (constraint, word) in [(unknown, "nothing_of_that_name"), (large, "")] {
        let refused = bench.engine.generate(formed("x", constraint)).await;
        let Err(GenerateError::Invalid { field, message }) = refused else { panic!("{:?}", refused.err()) };
        assert!(field == "lark" && message.contains(word) && message.len() < 1200, "{message}");
    }
    bench.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_fails_at_a_choice_fails_what_runs_and_nothing_else() {
    let bench = always(b'g');
    let asked = formed("x", Constraint::Regex("g{50}".to_owned()));
    bench.probe.fail_next(Fault::ChooseDevice);
    let failed = events(&bench, asked.clone()).await;
    assert!(matches!(failed.last(), Some(Event::Failed(GenerateError::Engine(_)))), "{failed:?}");
    assert_eq!(text(&events(&bench, asked).await, Channel::Content), "g".repeat(50));
    bench.is_empty().await;
}

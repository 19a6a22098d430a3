//! The bundled model with all that a request may ask of its tokens: the same answer alone, in a crowd, and on another host.
#![allow(clippy::unwrap_used, reason = "a test's helpers may fail loudly")]

use std::path::PathBuf;

use engine::{Engine, LocalEngine};
use futures_util::{StreamExt, stream};
use mesh_proto::{
    Constraint, Dry, Event, FinishReason, GenerateRequest, LogitBias, ModelId, Prompt, Sampling, TokenId, TokenLogprob,
};
use runtime_mlx::{MlxOptions, start};
use serde_json::Value;

fn serve() -> LocalEngine {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models/mesh-tiny");
    let options = MlxOptions { max_waiting: 1000, ..MlxOptions::new(folder, ModelId::new("mesh-tiny")) };
    start(options, &mut |_| {}).unwrap()
}

/// This model is sure of itself: at 4 its answers are noise, and every number drawn counts.
fn noisy(seed: u64) -> GenerateRequest {
    let sampling = Sampling { temperature: 4.0, seed: Some(seed), ..Sampling::default() };
    let prompt = Prompt::Text("The cat and the dog and the cat and the dog went".to_owned());
    GenerateRequest { sampling, max_tokens: Some(40), ..GenerateRequest::new(ModelId::new("mesh-tiny"), prompt) }
}

fn schema() -> Constraint {
    let schema = r#"{"type":"object","properties":{"name":{"type":"string","maxLength":12},"age":{"type":"integer",
        "minimum":0,"maximum":120},"tags":{"type":"array","items":{"enum":["red","green"]},"maxItems":2}},
        "required":["name","age","tags"],"additionalProperties":false}"#;
    Constraint::JsonSchema(schema.to_owned())
}

/// One request for each thing that can be asked, and some that ask for several.
fn kinds() -> Vec<(&'static str, GenerateRequest)> {
    let with = |change: fn(&mut Sampling)| {
        let mut request = noisy(7);
        change(&mut request.sampling);
        request
    };
    let dry = || Dry { multiplier: 3.0, base: 1.75, allowed_length: 1, last_n: None, breakers: vec![".".to_owned()] };
    let mut kinds = vec![
        ("plain", noisy(7)),
        ("top_k", with(|s| s.top_k = 9)),
        ("top_p and min_p", with(|s| (s.top_p, s.min_p) = (0.8, 0.01))),
        ("typical_p", with(|s| s.typical_p = 0.6)),
        ("repetition", with(|s| (s.repetition_penalty, s.repeat_last_n) = (1.6, None))),
        ("presence", with(|s| (s.presence_penalty, s.repeat_last_n) = (6.0, Some(5)))),
        ("frequency", with(|s| (s.frequency_penalty, s.repeat_last_n) = (4.0, Some(1)))),
        ("xtc", with(|s| (s.xtc_probability, s.xtc_threshold) = (0.5, 0.02))),
        ("xtc at 0", with(|s| (s.xtc_probability, s.xtc_threshold, s.temperature) = (0.5, 0.02, 0.0))),
        ("bias", with(|s| s.logit_bias = vec![LogitBias { token: TokenId(300), bias: 9.0 }])),
        ("dry", noisy(7)),
        ("least", GenerateRequest { min_tokens: 30, ..noisy(7) }),
        ("odds", GenerateRequest { logprobs: Some(5), ..noisy(7) }),
        ("form", GenerateRequest { constraint: Some(schema()), max_tokens: Some(150), ..noisy(7) }),
        (
            "all",
            GenerateRequest { logprobs: Some(2), constraint: Some(schema()), ..with(|s| s.repetition_penalty = 1.2) },
        ),
    ];
    for (_, request) in kinds.iter_mut().filter(|(kind, _)| ["dry", "all"].contains(kind)) {
        request.sampling.dry = Some(dry());
    }
    kinds
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Told {
    text: String,
    tokens: Vec<TokenId>,
    odds: Vec<TokenLogprob>,
    reason: Option<FinishReason>,
}

async fn ask(engine: &LocalEngine, request: GenerateRequest) -> Told {
    let mut generation = engine.generate(request).await.unwrap();
    let mut told = Told::default();
    while let Some(event) = generation.next().await {
        match event {
            Event::Text { text, tokens, logprobs, .. } => {
                told.text += &text;
                told.tokens.extend(tokens);
                told.odds.extend(logprobs);
            }
            Event::Finished { reason, .. } => told.reason = Some(reason),
            Event::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_asked_the_answer_is_the_same_alone_in_a_crowd_and_on_another_host() {
    let (here, there) = (serve(), serve());
    let kinds = kinds();
    let mut alone = Vec::new();
    for (_, request) in &kinds {
        alone.push(ask(&here, request.clone()).await);
    }
    for (i, (kind, _)) in kinds.iter().enumerate().skip(1).filter(|(_, (kind, _))| !["odds", "least"].contains(kind)) {
        assert_ne!(alone[i].text, alone[0].text, "{kind} changes nothing");
    }
    // Two of each at once, in an order that mixes them.
    let crowd: Vec<usize> = (0..2 * kinds.len()).map(|i| i * 7 % kinds.len()).collect();
    let answers = stream::iter(&crowd).map(|i| ask(&here, kinds[*i].1.clone())).buffered(crowd.len());
    let answers: Vec<Told> = answers.collect().await;
    for (i, told) in crowd.iter().zip(&answers) {
        assert_eq!((&told.text, &told.tokens, told.reason), (&alone[*i].text, &alone[*i].tokens, alone[*i].reason));
        assert_eq!(told.odds.len(), alone[*i].odds.len(), "{}", kinds[*i].0);
    }
    for ((kind, request), whole) in kinds.iter().zip(&alone) {
        let cut = whole.tokens.len() / 2;
        let rest = ask(&there, GenerateRequest { resume: whole.tokens[..cut].to_vec(), ..request.clone() }).await;
        assert!(whole.text.ends_with(&rest.text), "{kind}: {:?} of {:?}", rest.text, whole.text);
        assert_eq!(
            (rest.reason, &rest.tokens[..]),
            (whole.reason, &whole.tokens[whole.tokens.len() - rest.tokens.len()..]),
            "{kind}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_is_kept_by_a_model_that_has_never_seen_it() {
    let engine = serve();
    let asked = |seed| {
        let mut request = GenerateRequest { constraint: Some(schema()), max_tokens: Some(200), ..noisy(seed) };
        request.sampling.temperature = 1.0;
        request
    };
    let answers: Vec<Told> = stream::iter(0..12).map(|seed| ask(&engine, asked(seed))).buffered(12).collect().await;
    // JSON allows white space without end, and noise likes it: not every answer is complete.
    let complete: Vec<&Told> = answers.iter().filter(|told| told.reason == Some(FinishReason::Stop)).collect();
    assert!(complete.len() >= 6, "{answers:?}");
    for told in complete {
        let value: Value = serde_json::from_str(&told.text).unwrap();
        assert!(value["name"].as_str().is_some_and(|name| name.chars().count() <= 12), "{value}");
        assert!(value["age"].as_u64().is_some_and(|age| age <= 120), "{value}");
        let tags = value["tags"].as_array().unwrap();
        assert!(tags.len() <= 2 && tags.iter().all(|tag| tag == "red" || tag == "green"), "{value}");
    }
    assert!(answers.iter().any(|told| told.text != answers[0].text));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_waits_for_its_choice_chooses_as_one_that_does_not() {
    let engine = serve();
    for (kind, request) in kinds().into_iter().filter(|(_, request)| request.constraint.is_none()) {
        // Repetitions of this length there are none: the row waits for the host's word, and it has nothing to say.
        let silent = Dry { multiplier: 1.0, base: 1.75, allowed_length: 1000, last_n: None, breakers: Vec::new() };
        let mut held = request.clone();
        held.sampling.dry.get_or_insert(silent);
        assert_eq!(ask(&engine, held).await.tokens, ask(&engine, request).await.tokens, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn likelihoods_are_the_models_own() {
    let engine = serve();
    let greedy = GenerateRequest { sampling: Sampling::default(), logprobs: Some(20), ..noisy(1) };
    let told = ask(&engine, greedy).await;
    assert!(!told.odds.is_empty());
    for token in &told.odds {
        assert_eq!(token.top.len(), 20);
        assert_eq!(token.top[0].token, token.chosen.token, "the likeliest is taken");
        assert!((token.top[0].logprob - token.chosen.logprob).abs() < 1e-4);
        let sum: f64 = token.top.iter().map(|other| f64::from(other.logprob).exp()).sum();
        assert!(sum <= 1.0 + 1e-4 && token.top.iter().all(|other| other.logprob <= 1e-5), "{sum}");
        assert!(token.top.windows(2).all(|pair| pair[0].logprob >= pair[1].logprob));
    }
    let spelled: Vec<u8> = told.odds.iter().flat_map(|token| token.chosen.bytes.clone()).collect();
    assert_eq!(String::from_utf8_lossy(&spelled), told.text);
}

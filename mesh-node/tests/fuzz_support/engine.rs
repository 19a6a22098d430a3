//! An engine that answers at once, and holds each request against what a peer would take.

use std::sync::Arc;

use engine::{Engine, EngineLoad, Generation, arrival};
use futures_util::future::{BoxFuture, FutureExt};
use mesh_proto::{
    Channel, Event, FinishReason, GenerateError, GenerateRequest, Likelihood, ModelDescriptor, ModelId, Prompt,
    TokenId, TokenLogprob, ToolCallDelta, Usage, codec, infer::Ask, placement::ModelKey,
};
use tokio::sync::mpsc;

/// What it goes by.
pub const MODEL: &str = "m";

/// See the module's page.
pub struct Prompter(ModelDescriptor);

impl Prompter {
    pub fn new() -> Self {
        Self(ModelDescriptor {
            id: ModelId::new(MODEL),
            engine: "fuzz".into(),
            family: "fuzz".into(),
            quantization: "none".into(),
            context_tokens: 4096,
            vocab_size: 2000,
            created: 1,
        })
    }
}

/// Panics where the API lowered to what its own types do not allow.
fn is_sound(request: &GenerateRequest) {
    let ask = Ask::new(request.clone(), ModelKey([7; 32]));
    let bytes = codec::encode(&ask).unwrap_or_else(|error| panic!("a peer would not be asked: {error}"));
    let read: Ask = codec::decode(&bytes).unwrap_or_else(|error| panic!("a peer would not take it: {error}"));
    assert_eq!(&read.into_request(), request, "what arrives is not what was sent");
    arrival::check(request, 2000).unwrap_or_else(|error| panic!("no range was checked: {error}"));
    let Prompt::Chat(chat) = &request.prompt else { return };
    for tool in &chat.tools {
        let json: serde_json::Value = serde_json::from_str(&tool.json).unwrap();
        assert_eq!(json["function"]["name"], tool.name, "{}", tool.json);
    }
    for (_, value) in &chat.variables {
        serde_json::from_str::<serde_json::Value>(value).unwrap();
    }
}

impl Engine for Prompter {
    fn descriptor(&self) -> &ModelDescriptor {
        &self.0
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<Generation, GenerateError>> {
        is_sound(&request);
        let likely = request.logprobs.map(|_| {
            let chosen = Likelihood { token: TokenId(5), bytes: b"\xf0\x9f".to_vec(), logprob: -0.5 };
            TokenLogprob { top: vec![chosen.clone()], chosen }
        });
        let text = |channel, text: &str| Event::Text {
            channel,
            text: text.into(),
            tokens: vec![TokenId(5)],
            logprobs: likely.clone().into_iter().collect(),
        };
        let mut events = vec![Event::Started { prompt_tokens: 3 }, text(Channel::Reasoning, "hm")];
        events.push(text(Channel::Content, "{\"a\": \"\u{1F980}\"}"));
        let mut reason = FinishReason::Stop;
        if let Prompt::Chat(chat) = &request.prompt
            && let Some(tool) = chat.tools.first()
        {
            reason = FinishReason::ToolCalls;
            for arguments in ["", "{\"input\": \"x\"}"] {
                let first = arguments.is_empty();
                let (id, name) = (first.then(|| "call_1".to_owned()), first.then(|| tool.name.clone()));
                let delta = ToolCallDelta { index: 0, id, name, arguments: arguments.into() };
                events.push(Event::ToolCall { delta, tokens: vec![TokenId(6)], logprobs: Vec::new() });
            }
        }
        let usage = Usage { prompt_tokens: 3, completion_tokens: 4, ..Usage::default() };
        events.push(Event::Finished { reason, stop: None, usage });
        let (sender, received) = mpsc::channel(events.len());
        for event in events {
            sender.try_send(event).unwrap();
        }
        async { Ok(Generation::new(received, None)) }.boxed()
    }

    /// A token a byte.
    fn tokenize(&self, text: String, _: bool) -> BoxFuture<'_, Result<Vec<TokenId>, GenerateError>> {
        async move { Ok(text.bytes().map(|byte| TokenId(byte.into())).collect()) }.boxed()
    }

    fn detokenize(&self, tokens: Vec<TokenId>) -> BoxFuture<'_, Result<String, GenerateError>> {
        let bytes: Vec<u8> = tokens.iter().map(|token| token.0 as u8).collect();
        async move { Ok(String::from_utf8_lossy(&bytes).into_owned()) }.boxed()
    }

    fn load(&self) -> EngineLoad {
        EngineLoad::default()
    }

    fn drain(&self) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
}

/// It, for whoever holds engines.
pub fn prompter() -> Arc<dyn Engine> {
    Arc::new(Prompter::new())
}

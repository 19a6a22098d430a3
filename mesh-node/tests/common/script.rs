//! An engine that says what the prompt's words tell it to, as the model of make_script_model.py does.

#[path = "script_pool.rs"]
pub mod script_pool;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use engine::{Engine, EngineLoad, Generation, pool::Skills};
use futures_util::future::{BoxFuture, FutureExt};
use mesh_proto::{
    Channel, Constraint, Event, FinishReason, GenerateError, GenerateRequest, Likelihood, ModelDescriptor, ModelId,
    PoolRequest, Pooled, Prompt, Role, TokenId, TokenLogprob, ToolCallDelta, ToolChoice, Usage,
};
use tokio::sync::mpsc;

/// See the module's page.
pub struct ScriptEngine {
    descriptor: ModelDescriptor,
    running: Arc<AtomicU32>,
    cancelled: Arc<AtomicU32>,
    /// What was asked, for tests that look at what arrives.
    asked: Arc<Mutex<Vec<GenerateRequest>>>,
    /// Whether it is for prompts alone.
    plain: bool,
}

impl ScriptEngine {
    pub fn new(id: &str) -> Self {
        let descriptor = ModelDescriptor {
            id: ModelId::new(id),
            engine: "script".into(),
            family: "script".into(),
            quantization: "none".into(),
            context_tokens: 4096,
            vocab_size: 2000,
            created: 1,
        };
        Self { descriptor, running: Arc::default(), cancelled: Arc::default(), asked: Arc::default(), plain: false }
    }

    /// One that makes no vectors or scores.
    pub fn plain(id: &str) -> Self {
        Self { plain: true, ..Self::new(id) }
    }

    /// Requests being answered.
    pub fn running(&self) -> u32 {
        self.running.load(Ordering::SeqCst)
    }

    /// The requests so far.
    pub fn asked(&self) -> Vec<GenerateRequest> {
        self.asked.lock().unwrap().clone()
    }

    /// Generations that were dropped before their end.
    pub fn cancelled(&self) -> u32 {
        self.cancelled.load(Ordering::SeqCst)
    }
}

/// What is said, piece by piece; `#LONG` and the like never end.
fn script(words: &str) -> (Vec<&'static str>, bool) {
    let fox = ["The", " quick", " brown", " fox", " jumps", " over", " the", " lazy", " dog", "."];
    let count = [" one", " two", " three", " four", " five", " six", " seven", " eight", " nine", " ten"];
    if words.contains("#LONG") || words.ends_with(':') {
        (count.into(), true)
    } else if words.contains("#RANDOM") {
        (vec![" heads", " tails"], true)
    } else if words.contains("#EMOJI") {
        (vec!["Party ", "🎉", " fam ", "👩\u{200d}👩\u{200d}👧", " ja ", "日", "本", "語", " fin"], false)
    } else if words.contains("#STOP") {
        (vec!["alpha", " be", "ta<", "<HA", "LT>", ">gam", "ma ", "delta"], false)
    } else if words.contains("#JSON") {
        (vec!["{\"answer\"", ": 42", ", \"ok\"", ": true", "}"], false)
    } else {
        (fox.into(), false)
    }
}

impl Engine for ScriptEngine {
    fn descriptor(&self) -> &ModelDescriptor {
        &self.descriptor
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<Generation, GenerateError>> {
        self.asked.lock().unwrap().push(request.clone());
        let (words, asks_tool) = match &request.prompt {
            Prompt::Chat(chat) => {
                let user = chat.messages.iter().rfind(|m| m.role == Role::User);
                let words = user.and_then(|m| m.content.clone()).unwrap_or_default();
                let answered = chat.messages.last().is_some_and(|m| m.role == Role::Tool);
                (words, !chat.tools.is_empty() && request.tool_choice != ToolChoice::None && !answered)
            }
            Prompt::Text(text) => (text.clone(), false),
            Prompt::Tokens(_) => (String::new(), false),
        };
        let prompt_tokens = format!("{:?}", request.prompt).split_whitespace().count() as u32;
        let refusal = match words.as_str() {
            "#BUSY" => Some(GenerateError::Busy { waiting: 9, retry_after_s: 2 }),
            _ if prompt_tokens > 4096 => Some(GenerateError::ContextOverflow { prompt_tokens, context_tokens: 4096 }),
            _ => None,
        };
        if let Some(refusal) = refusal {
            return async { Err(refusal) }.boxed();
        }
        let (events, received) = mpsc::channel(8);
        self.running.fetch_add(1, Ordering::SeqCst);
        let (running, cancelled) = (self.running.clone(), self.cancelled.clone());
        tokio::spawn(async move {
            let usage = Usage { prompt_tokens, ..Usage::default() };
            let speaker = Speaker { events, request, usage, since: Vec::new(), likely: Vec::new() };
            if speaker.say(&words, asks_tool).await.is_none() {
                cancelled.fetch_add(1, Ordering::SeqCst);
            }
            running.fetch_sub(1, Ordering::SeqCst);
        });
        async { Ok(Generation::new(received, None)) }.boxed()
    }

    fn skills(&self) -> Skills {
        Skills { generates: true, embeds: !self.plain, reranks: !self.plain }
    }

    fn pool(&self, request: PoolRequest) -> BoxFuture<'_, Result<Pooled, GenerateError>> {
        let refused = self.skills().check(&request.task, request.model.as_str());
        let (running, cancelled) = (self.running.clone(), self.cancelled.clone());
        async move {
            refused?;
            script_pool::make(request, running, cancelled).await
        }
        .boxed()
    }

    /// A token a byte.
    fn tokenize(&self, text: String, specials: bool) -> BoxFuture<'_, Result<Vec<TokenId>, GenerateError>> {
        let first = specials.then_some(TokenId(1));
        async move { Ok(first.into_iter().chain(text.bytes().map(|byte| TokenId(byte.into()))).collect()) }.boxed()
    }

    fn detokenize(&self, tokens: Vec<TokenId>) -> BoxFuture<'_, Result<String, GenerateError>> {
        let bytes: Vec<u8> = tokens.iter().map(|token| token.0 as u8).collect();
        async move { Ok(String::from_utf8_lossy(&bytes).into_owned()) }.boxed()
    }

    fn load(&self) -> EngineLoad {
        EngineLoad { running: self.running.load(Ordering::SeqCst), ..EngineLoad::default() }
    }

    fn drain(&self) -> BoxFuture<'_, ()> {
        async {
            while self.load().running > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        .boxed()
    }
}

/// Says one answer. Its tokens are 0, 1, 2, …, one a piece of the script; a resumed answer leaves out what its first
/// tokens settle, so `resume` skips as many pieces as it has tokens.
struct Speaker {
    events: mpsc::Sender<Event>,
    request: GenerateRequest,
    usage: Usage,
    /// Tokens since the last ones that were told.
    since: Vec<TokenId>,
    /// How likely they were, where the request asks for it.
    likely: Vec<TokenLogprob>,
}

impl Speaker {
    /// `None`: nobody listens any more.
    async fn say(mut self, words: &str, asks_tool: bool) -> Option<()> {
        self.send(Event::Started { prompt_tokens: self.usage.prompt_tokens }).await?;
        match words {
            "#FAILFIRST" => return self.send(Event::Failed(GenerateError::Engine("at once".into()))).await,
            "#HANG" => {
                self.events.closed().await;
                return None;
            }
            "#VANISH" => return Some(()),
            _ => {}
        }
        if words.contains("#THINK") {
            self.text(Channel::Reasoning, "I should ponder").await?;
        }
        let must = matches!(self.request.tool_choice, ToolChoice::Required | ToolChoice::Named(_));
        let cities: &[&str] = match (asks_tool, words.contains("#TOOL") || must, words.contains("#PARALLEL")) {
            (true, true, _) => &["Paris"],
            (true, _, true) if !self.request.parallel_tool_calls => &["Paris"],
            (true, _, true) => &["Paris", "Tokyo"],
            _ => &[],
        };
        let name = match &self.request.tool_choice {
            ToolChoice::Named(name) => name.clone(),
            _ => "get_weather".to_owned(),
        };
        for (index, city) in (0..).zip(cities) {
            self.call(index, &name, city).await?;
        }
        if !cities.is_empty() {
            return self.finish(FinishReason::ToolCalls).await;
        }
        self.script(words).await
    }

    async fn script(mut self, words: &str) -> Option<()> {
        let json = matches!(self.request.constraint, Some(Constraint::JsonObject | Constraint::JsonSchema(_)));
        let (pieces, endless) = script(if json { "#JSON" } else { words });
        let forced = self.request.logit_bias();
        let limit = self.request.max_tokens.unwrap_or(u32::MAX);
        let mut dice = self.request.sampling.seed.unwrap_or_else(|| u64::from(uuid::Uuid::now_v7().as_fields().1) << 9);
        let mut held = String::new();
        for turn in 0.. {
            // Who takes over goes on.
            if turn == 3 && words == "#FAILMID" && self.request.resume.is_empty() {
                return self.send(Event::Failed(GenerateError::Engine("in the middle".into()))).await;
            }
            if self.usage.completion_tokens == limit {
                self.rest(held).await?;
                return self.finish(FinishReason::Length).await;
            }
            if !endless && turn == pieces.len() {
                self.rest(held).await?;
                return self.finish(FinishReason::Stop).await;
            }
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let pick =
                if words.contains("#RANDOM") && self.request.sampling.draws() { (dice >> 60) as usize } else { turn };
            let piece = if forced { "x" } else { pieces[pick % pieces.len()] };
            held.push_str(piece);
            self.count(piece);
            let stops = &self.request.stop;
            let met = stops.iter().filter_map(|stop| Some((held.find(stop)?, stop.clone()))).min();
            if let Some((at, stop)) = met {
                held.truncate(at);
                self.flush(&mut held).await?;
                let (reason, usage) = (FinishReason::Stop, self.usage);
                return self.send(Event::Finished { reason, stop: Some(stop), usage }).await;
            }
            let keeps =
                |n: &usize| stops.iter().any(|stop| stop.as_bytes().starts_with(&held.as_bytes()[held.len() - n..]));
            let kept = (1..=held.len()).rev().find(keeps).unwrap_or(0);
            let mut said = held.drain(..held.len() - kept).collect();
            self.flush(&mut said).await?;
            if !self.is_known() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        None
    }

    /// One more token, that stands for this text.
    fn count(&mut self, piece: &str) {
        let token = TokenId(self.usage.completion_tokens);
        self.usage.completion_tokens += 1;
        if self.is_known() {
            return;
        }
        self.since.push(token);
        let Some(top) = self.request.logprobs else { return };
        let likely = |token, text: String, logprob| Likelihood { token, bytes: text.into_bytes(), logprob };
        let chosen = likely(token, piece.to_owned(), -0.125);
        let others = (1..top).map(|at| likely(TokenId(1000 + u32::from(at)), format!("?{at}"), -3.0 - f32::from(at)));
        let top = (top > 0).then(|| chosen.clone()).into_iter().chain(others).collect();
        self.likely.push(TokenLogprob { chosen, top });
    }

    /// Whether the client has all tokens so far.
    fn is_known(&self) -> bool {
        self.usage.completion_tokens as usize <= self.request.resume.len()
    }

    async fn flush(&mut self, held: &mut String) -> Option<()> {
        let text = std::mem::take(held);
        if text.is_empty() { Some(()) } else { self.text_event(Channel::Content, text).await }
    }

    /// What was held back to the end: `Finished` closes it, so it is said to who resumes too.
    async fn rest(&mut self, text: String) -> Option<()> {
        let (channel, tokens) = (Channel::Content, Vec::new());
        if text.is_empty() {
            Some(())
        } else {
            let logprobs = std::mem::take(&mut self.likely);
            self.send(Event::Text { channel, text, tokens, logprobs }).await
        }
    }

    async fn text(&mut self, channel: Channel, text: &str) -> Option<()> {
        self.count(text);
        self.text_event(channel, text.into()).await
    }

    async fn text_event(&mut self, channel: Channel, text: String) -> Option<()> {
        let tokens = std::mem::take(&mut self.since);
        let logprobs = std::mem::take(&mut self.likely);
        if self.is_known() { Some(()) } else { self.send(Event::Text { channel, text, tokens, logprobs }).await }
    }

    async fn call(&mut self, index: u32, name: &str, city: &str) -> Option<()> {
        self.count(city);
        let tokens = std::mem::take(&mut self.since);
        let logprobs = std::mem::take(&mut self.likely);
        if self.is_known() {
            return Some(());
        }
        let first = ToolCallDelta {
            index,
            id: Some(format!("call_{index}")),
            name: Some(name.to_owned()),
            arguments: "{\"city\": ".into(),
        };
        self.send(Event::ToolCall { delta: first, tokens: Vec::new(), logprobs: Vec::new() }).await?;
        let rest = ToolCallDelta { index, id: None, name: None, arguments: format!("\"{city}\"}}") };
        self.send(Event::ToolCall { delta: rest, tokens, logprobs }).await
    }

    async fn finish(self, reason: FinishReason) -> Option<()> {
        self.send(Event::Finished { reason, stop: None, usage: self.usage }).await
    }

    async fn send(&self, event: Event) -> Option<()> {
        self.events.send(event).await.ok()
    }
}

trait Forced {
    fn logit_bias(&self) -> bool;
}

impl Forced for GenerateRequest {
    fn logit_bias(&self) -> bool {
        self.sampling.logit_bias.iter().any(|bias| bias.bias >= 100.0)
    }
}

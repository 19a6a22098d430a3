//! `Engine` and `Generation`: the outer seam; must not know how tokens are made.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::{Stream, future::BoxFuture};
use mesh_proto::{Event, GenerateError, GenerateRequest, ModelDescriptor, PoolRequest, Pooled, TokenId};
use tokio::sync::mpsc;

use crate::{pool::Skills, text::TextModel};

/// What an engine has to do right now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineLoad {
    /// Sequences being computed.
    pub running: u32,
    /// Requests waiting for a place.
    pub waiting: u32,
    /// Bytes of KV cache held by running sequences.
    pub kv_bytes: u64,
    /// Bytes of KV cache kept for reuse by later prompts.
    pub prefix_bytes: u64,
    /// Steps computed since the start: what does not grow while something runs is hung.
    pub steps: u64,
    /// Tokens generated since the start.
    pub tokens: u64,
    /// Time to the first token of late, milliseconds, a decaying mean; 0: none yet.
    pub ttft_ms: u32,
    /// Bytes of KV cache that sequences may take together; 0: not known.
    pub kv_budget_bytes: u64,
}

/// Something that serves one model. Local, remote and scripted ones look the same from here.
pub trait Engine: Send + Sync + 'static {
    /// What it serves.
    fn descriptor(&self) -> &ModelDescriptor;

    /// Starts a generation. The future ends when the request is accepted (queued) or refused; the
    /// answer's events come from the [`Generation`].
    ///
    /// # Errors
    /// The caller's mistakes (a bad field, too long a prompt), `Busy` beyond the queue's bound, or the
    /// engine's failure. Nothing runs on after an error.
    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<Generation, GenerateError>>;

    /// What can be asked of it.
    fn skills(&self) -> Skills {
        Skills::default()
    }

    /// Makes vectors or scores of texts. Dropping the future cancels.
    ///
    /// # Errors
    /// As those of a generation; `Invalid`, naming `model`, where that is not among its skills.
    fn pool(&self, request: PoolRequest) -> BoxFuture<'_, Result<Pooled, GenerateError>> {
        let refused = self.skills().check(&request.task, request.model.as_str());
        let lacking = || GenerateError::Engine("it says that it can do what it cannot".to_owned());
        Box::pin(async move { Err(refused.err().unwrap_or_else(lacking)) })
    }

    /// The model's text pipeline, for who counts, cuts or spells tokens; `None` where it is not in this process.
    fn text_model(&self) -> Option<&Arc<TextModel>> {
        None
    }

    /// Text in tokens; with `specials`, those that the tokenizer adds by itself.
    fn tokenize(&self, text: String, specials: bool) -> BoxFuture<'_, Result<Vec<TokenId>, GenerateError>> {
        let model = self.text_model().cloned();
        Box::pin(in_the_background(model, move |model| model.encode(&text, specials)))
    }

    /// Tokens as text, special ones shown.
    fn detokenize(&self, tokens: Vec<TokenId>) -> BoxFuture<'_, Result<String, GenerateError>> {
        let model = self.text_model().cloned();
        Box::pin(in_the_background(model, move |model| model.decode(&tokens, true)))
    }

    /// What it has to do right now.
    fn load(&self) -> EngineLoad;

    /// Takes no more requests; the future ends when all running ones have ended.
    fn drain(&self) -> BoxFuture<'_, ()>;
}

/// On a blocking thread: long texts take seconds.
async fn in_the_background<T: Send + 'static>(
    model: Option<Arc<TextModel>>,
    work: impl FnOnce(&TextModel) -> Result<T, GenerateError> + Send + 'static,
) -> Result<T, GenerateError> {
    let Some(model) = model else {
        return Err(GenerateError::Unavailable("this engine does not tell its tokens".to_owned()));
    };
    let worked = tokio::task::spawn_blocking(move || work(&model)).await;
    worked.map_err(|error| GenerateError::Engine(format!("the text pipeline failed: {error}")))?
}

/// Called when the receiving side has taken an event or is gone, so that a worker that waits for room, or that
/// computes for nobody, looks again.
pub type Nudge = Arc<dyn Fn() + Send + Sync>;

/// The events of one generation. Dropping it cancels: within one step its sequence and KV are free.
pub struct Generation {
    events: mpsc::Receiver<Event>,
    nudge: Option<Nudge>,
}

impl Generation {
    /// Wraps the receiving end of a bounded channel; `nudge` is called after each event taken and on drop.
    pub fn new(events: mpsc::Receiver<Event>, nudge: Option<Nudge>) -> Self {
        Self { events, nudge }
    }

    /// The next event; `None` after the last.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for Generation {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let event = self.events.poll_recv(cx);
        if let (Poll::Ready(Some(_)), Some(nudge)) = (&event, &self.nudge) {
            nudge();
        }
        event
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.events.close();
        if let Some(nudge) = &self.nudge {
            nudge();
        }
    }
}

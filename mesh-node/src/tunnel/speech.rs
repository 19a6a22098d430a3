//! One local generation as reply frames, with heartbeats; must not know who listens.

use std::{sync::Arc, time::Duration};

use engine::{Engine, Generation};
use mesh_proto::{
    Event, GenerateError, GenerateRequest, TokenId, TokenLogprob,
    codec::Ext,
    infer::{Piece, Reply},
    routing::HEARTBEAT,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

/// Frames that the listener may leave unread. Small: what lies here is neither with the client nor in the engine, where
/// it would be counted.
const ROOM: usize = 4;

/// Starts a generation, and says what comes of it. Dropping the receiver cancels.
pub(crate) fn speak(engine: Arc<dyn Engine>, request: GenerateRequest) -> mpsc::Receiver<Reply> {
    let (replies, received) = mpsc::channel(ROOM);
    tokio::spawn(async move {
        let speech = Speech {
            at: u32::try_from(request.resume.len()).unwrap_or(u32::MAX),
            pieces: Vec::new(),
            logprobs: Vec::new(),
            quiet_until: Instant::now() + beat(),
            engine,
            replies,
        };
        // Nobody listens any more: what was begun is dropped with this task.
        let _ = speech.run(request).await;
    });
    received
}

fn beat() -> Duration {
    Duration::from_millis(HEARTBEAT.0)
}

struct Speech {
    engine: Arc<dyn Engine>,
    replies: mpsc::Sender<Reply>,
    /// Tokens of the answer so far, the resumed ones included.
    at: u32,
    /// Of a token that is not closed yet.
    pieces: Vec<Piece>,
    logprobs: Vec<TokenLogprob>,
    quiet_until: Instant,
}

/// The listener is gone.
struct Gone;

impl Speech {
    async fn run(mut self, request: GenerateRequest) -> Result<(), Gone> {
        let engine = self.engine.clone();
        let mut accepting = engine.generate(request);
        let accepted = loop {
            tokio::select! {
                accepted = &mut accepting => break accepted,
                () = sleep_until(self.quiet_until) => self.beat().await?,
                () = self.replies.closed() => return Err(Gone),
            }
        };
        match accepted {
            Ok(generation) => self.relay(generation).await,
            Err(error) => self.say(Reply::Failed(error)).await,
        }
    }

    async fn relay(&mut self, mut generation: Generation) -> Result<(), Gone> {
        loop {
            let event = tokio::select! {
                event = generation.next() => event,
                () = sleep_until(self.quiet_until) => {
                    self.beat().await?;
                    continue;
                }
                () = self.replies.closed() => return Err(Gone),
            };
            match event {
                Some(Event::Started { prompt_tokens }) => {
                    self.say(Reply::Accepted { prompt_tokens, ext: Ext::default() }).await?;
                }
                Some(Event::Text { channel, text, tokens, logprobs }) => {
                    // No peer takes a piece of nothing, even if an engine says one.
                    if !text.is_empty() {
                        self.pieces.push(Piece::Text { channel, text });
                    }
                    self.close(tokens, logprobs).await?;
                }
                Some(Event::ToolCall { delta, tokens, logprobs }) => {
                    self.pieces.push(Piece::ToolCall(delta));
                    self.close(tokens, logprobs).await?;
                }
                Some(Event::Finished { reason, stop, usage }) => {
                    let pieces = std::mem::take(&mut self.pieces);
                    let logprobs = std::mem::take(&mut self.logprobs);
                    let ext = Ext::default();
                    return self.say(Reply::Finished { pieces, logprobs, reason, stop, usage, ext }).await;
                }
                Some(Event::Failed(error)) => return self.say(Reply::Failed(error)).await,
                None => {
                    let error = GenerateError::Engine("it stopped without finishing the answer".into());
                    return self.say(Reply::Failed(error)).await;
                }
            }
        }
    }

    /// The tokens that close the pieces so far; without any, more of the same token follows.
    async fn close(&mut self, tokens: Vec<TokenId>, logprobs: Vec<TokenLogprob>) -> Result<(), Gone> {
        self.logprobs.extend(logprobs);
        if tokens.is_empty() {
            return Ok(());
        }
        let (at, count) = (self.at, u32::try_from(tokens.len()).unwrap_or(u32::MAX));
        self.at = at.saturating_add(count);
        let pieces = std::mem::take(&mut self.pieces);
        let logprobs = std::mem::take(&mut self.logprobs);
        self.say(Reply::Tokens { at, tokens, pieces, logprobs }).await
    }

    async fn beat(&mut self) -> Result<(), Gone> {
        let load = self.engine.load();
        let progress = load.steps;
        self.say(Reply::Beat { progress }).await
    }

    async fn say(&mut self, reply: Reply) -> Result<(), Gone> {
        self.replies.send(reply).await.map_err(|_| Gone)?;
        self.quiet_until = Instant::now() + beat();
        Ok(())
    }
}

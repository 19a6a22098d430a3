//! One generation's way through the hosts: the one place that knows about failover and resumption; must not know HTTP.
//!
//! `mesh_proto::routing::Attempt` decides; this drives it. The client's events are made of reply frames only when the
//! machine says to deliver them, so what a client has and what the next host is told to go on from are the same tokens.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_proto::{
    Event, GenerateError, GenerateRequest, TokenId, TokenLogprob,
    identity::NodeId,
    infer::{Piece, Reply},
    routing::{Attempt, Choice, Failure, GiveUp, Heard, Step, TryNumber, Wish},
    time::Millis,
};
use tokio::{sync::mpsc, time::sleep};

use super::{Router, Trace};
use crate::{
    mesh::{Mesh, local_time},
    tunnel::{Asking, Said},
};

/// The try that is going on.
struct Current {
    number: TryNumber,
    node: NodeId,
    reason: String,
    asking: Option<Asking>,
    asked_at: Millis,
    answered: bool,
}

/// Who is told.
pub(super) struct Client {
    pub(super) events: mpsc::Sender<Event>,
    pub(super) trace: Arc<Trace>,
}

/// Drives one generation.
pub(super) struct Pump {
    router: Router,
    mesh: Arc<Mesh>,
    wish: Wish,
    request: GenerateRequest,
    events: mpsc::Sender<Event>,
    trace: Arc<Trace>,
    current: Option<Current>,
    /// What came last, until the machine says what is to be done with it.
    pending: Option<Reply>,
    started: bool,
    /// Tokens of the prompt, once a host has said so and until the client is told.
    accepted: Option<u32>,
    /// In the host's own words, for the client.
    error: Option<GenerateError>,
    began: Instant,
    /// Time in which the client did not read: nobody's silence.
    blocked: Duration,
    lost: Option<Instant>,
}

/// Nobody listens any more.
struct Gone;

impl Pump {
    pub(super) fn new(router: Router, mesh: Arc<Mesh>, wish: Wish, request: GenerateRequest, client: Client) -> Self {
        Self {
            router,
            mesh,
            wish,
            request,
            events: client.events,
            trace: client.trace,
            current: None,
            pending: None,
            started: false,
            accepted: None,
            error: None,
            began: Instant::now(),
            blocked: Duration::ZERO,
            lost: None,
        }
    }

    fn now(&self) -> Millis {
        Millis(self.began.elapsed().saturating_sub(self.blocked).as_millis() as u64)
    }

    /// Until the answer is whole, nobody is left, or the client is gone.
    pub(super) async fn run(mut self, choices: Vec<Choice>) {
        let mut attempt = Attempt::new(self.router.0.config, choices, self.now());
        let mut view = self.mesh.subscribe();
        let gone = loop {
            match self.steps(&mut attempt).await {
                Ok(true) => {}
                Ok(false) => break false,
                Err(Gone) => break true,
            }
            let Some(due) = attempt.next_wakeup() else { break false };
            let wait = Duration::from_millis(due.since(self.now()).0 + 1);
            let events = self.events.clone();
            tokio::select! {
                said = next(self.current.as_mut()) => self.heard(said, &mut attempt),
                () = sleep(wait) => attempt.wake(self.now()),
                () = events.closed() => break true,
                // A host's death shows in the view, often before its streams break.
                changed = view.changed(), if self.lost.is_some() => {
                    if changed.is_ok() {
                        attempt.choices(self.router.choices(&self.wish), self.now());
                    }
                }
            }
        };
        if gone {
            attempt.cancel();
            while let Some(step) = attempt.poll_step() {
                if let Step::Abandon { node, failure, .. } = step {
                    self.abandon(node, failure);
                }
            }
        }
    }

    /// Does what the machine says; `false`: it is over.
    async fn steps(&mut self, attempt: &mut Attempt) -> Result<bool, Gone> {
        if let Some(prompt_tokens) = self.accepted.take() {
            self.start(prompt_tokens).await?;
        }
        while let Some(step) = attempt.poll_step() {
            match step {
                Step::Try { number, choice, resume_from } => self.attempt(number, *choice, resume_from, attempt),
                Step::Deliver { count } => self.deliver(count).await?,
                Step::Abandon { node, failure, .. } => self.abandon(node, failure),
                Step::Refresh => attempt.choices(self.router.choices(&self.wish), self.now()),
                Step::Done { node } => {
                    self.router.targets().done(node);
                    return self.finish().await.map(|()| false);
                }
                Step::GiveUp(why) => {
                    let error = error_of(why, self.error.take());
                    self.tell(Event::Failed(error)).await?;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn attempt(&mut self, number: TryNumber, choice: Choice, resume_from: u32, attempt: &mut Attempt) {
        let node = choice.candidate.node;
        let reason = choice.reason.to_string();
        let resumed = self.request.resume.len();
        debug_assert_eq!(resumed, resume_from as usize);
        if resumed > 0 || number.0 > 1 {
            let after_ms = self.lost.map(|lost| lost.elapsed().as_millis() as u64);
            tracing::info!(request = %self.request.id, node = %node.short(), resumed, after_ms, %reason, "takes over");
        } else {
            tracing::debug!(request = %self.request.id, node = %node.short(), %reason, "routed");
        }
        let asking = self.router.ask(&self.mesh, &choice, &self.wish, self.request.clone());
        let asked_at = local_time();
        self.router.targets().sent(node, asked_at);
        let begun = asking.is_some();
        self.current = Some(Current { number, node, reason, asking, asked_at, answered: false });
        if !begun {
            attempt.heard(number, Heard::Failed(Failure::Unserved), self.now());
        }
    }

    fn heard(&mut self, said: Said, attempt: &mut Attempt) {
        let Some(current) = &mut self.current else { return };
        let (number, node) = (current.number, current.node);
        let first = matches!(said, Said::Reply(Reply::Accepted { .. } | Reply::Tokens { .. } | Reply::Finished { .. }));
        if first && !current.answered {
            current.answered = true;
            let latency = local_time().since(current.asked_at);
            self.trace.set(node, current.reason.clone());
            self.router.targets().answered(node, latency, local_time());
        }
        let heard = match said {
            Said::Connected => Heard::Connected,
            Said::Failed(failure) => Heard::Failed(failure),
            Said::Reply(reply) => {
                let heard = match &reply {
                    Reply::Accepted { prompt_tokens, .. } => {
                        self.wish.context_tokens = prompt_tokens.saturating_add(1);
                        self.accepted = Some(*prompt_tokens);
                        Heard::Heartbeat { progress: u64::MAX }
                    }
                    Reply::Beat { progress } => Heard::Heartbeat { progress: *progress },
                    Reply::Tokens { at, tokens, .. } => {
                        Heard::Tokens { at: *at, count: u32::try_from(tokens.len()).unwrap_or(u32::MAX) }
                    }
                    Reply::Finished { .. } => Heard::Finished,
                    // Rows answer another question.
                    Reply::Rows { .. } => Heard::Failed(Failure::OutOfStep),
                    Reply::Failed(error) => Heard::Failed(self.failure_of(error.clone())),
                };
                self.pending = Some(reply);
                heard
            }
        };
        attempt.heard(number, heard, self.now());
    }

    /// What a host's error means for the next try.
    fn failure_of(&mut self, error: GenerateError) -> Failure {
        let here = self.current.as_ref().map(|current| current.node);
        let failure = failure_of(&error, |prompt_tokens| {
            self.wish.context_tokens = self.wish.context_tokens.max(prompt_tokens.saturating_add(1));
            let others = self.router.choices(&self.wish);
            others.iter().any(|choice| Some(choice.candidate.node) != here)
        });
        self.error = Some(error);
        failure
    }

    async fn deliver(&mut self, count: u32) -> Result<(), Gone> {
        let Some(Reply::Tokens { tokens, pieces, logprobs, .. }) = self.pending.take() else { return Ok(()) };
        debug_assert_eq!(tokens.len(), count as usize);
        if let Some(lost) = self.lost.take() {
            tracing::info!(request = %self.request.id, pause_ms = lost.elapsed().as_millis() as u64, "goes on");
        }
        self.error = None;
        self.request.resume.extend_from_slice(&tokens);
        self.pieces(pieces, tokens, logprobs).await
    }

    async fn finish(&mut self) -> Result<(), Gone> {
        let Some(Reply::Finished { pieces, logprobs, reason, stop, usage, .. }) = self.pending.take() else {
            return Ok(());
        };
        self.start(usage.prompt_tokens).await?;
        self.pieces(pieces, Vec::new(), logprobs).await?;
        self.tell(Event::Finished { reason, stop, usage }).await
    }

    /// Pieces as events, the tokens with the last.
    async fn pieces(
        &mut self,
        pieces: Vec<Piece>,
        mut tokens: Vec<TokenId>,
        mut logprobs: Vec<TokenLogprob>,
    ) -> Result<(), Gone> {
        self.start(self.wish.context_tokens.saturating_sub(1)).await?;
        let last = pieces.len().saturating_sub(1);
        for (at, piece) in pieces.into_iter().enumerate() {
            let (tokens, logprobs) = match at == last {
                true => (std::mem::take(&mut tokens), std::mem::take(&mut logprobs)),
                false => (Vec::new(), Vec::new()),
            };
            self.tell(match piece {
                Piece::Text { channel, text } => Event::Text { channel, text, tokens, logprobs },
                Piece::ToolCall(delta) => Event::ToolCall { delta, tokens, logprobs },
            })
            .await?;
        }
        Ok(())
    }

    async fn start(&mut self, prompt_tokens: u32) -> Result<(), Gone> {
        if std::mem::replace(&mut self.started, true) {
            return Ok(());
        }
        self.tell(Event::Started { prompt_tokens }).await
    }

    async fn tell(&mut self, event: Event) -> Result<(), Gone> {
        let event = match self.events.try_send(event) {
            Ok(()) => return Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(Gone),
            Err(mpsc::error::TrySendError::Full(event)) => event,
        };
        let since = Instant::now();
        let sent = self.events.send(event).await.map_err(|_| Gone);
        self.blocked += since.elapsed();
        sent
    }

    /// Ends the current try, and remembers of its node what there is to learn.
    fn abandon(&mut self, node: NodeId, failure: Option<Failure>) {
        self.current = None;
        self.pending = None;
        match failure {
            None => self.router.targets().ended(node),
            Some(failure) => {
                tracing::info!(request = %self.request.id, node = %node.short(), %failure, "a try failed");
                self.lost.get_or_insert_with(Instant::now);
                if failure.node_is_well() {
                    self.router.targets().refused(node);
                } else {
                    self.router.targets().failed(node, local_time());
                }
            }
        }
    }
}

/// What a client is told. `said`: the last host's own words.
pub(super) fn error_of(why: GiveUp, said: Option<GenerateError>) -> GenerateError {
    match (why, said) {
        (GiveUp::Caller, Some(error)) => error,
        (GiveUp::Busy { .. }, Some(busy @ GenerateError::Busy { .. })) => busy,
        (GiveUp::Busy { retry_after }, _) => {
            GenerateError::Busy { waiting: 0, retry_after_s: u32::try_from(retry_after.0 / 1000).unwrap_or(1).max(1) }
        }
        (why @ GiveUp::TooManyTries { .. }, Some(GenerateError::Engine(error))) => {
            GenerateError::Engine(format!("{error} ({why})"))
        }
        (why, _) => GenerateError::Unavailable(why.to_string()),
    }
}

/// What a host's error means for the next try, `larger` host or not for what is too long for this one.
pub(super) fn failure_of(error: &GenerateError, larger: impl FnOnce(u32) -> bool) -> Failure {
    match error {
        GenerateError::Invalid { .. } => Failure::Caller,
        // Another host may have more memory for it.
        GenerateError::ContextOverflow { prompt_tokens, .. } => {
            if larger(*prompt_tokens) {
                Failure::Unserved
            } else {
                Failure::Caller
            }
        }
        GenerateError::Busy { retry_after_s, .. } => {
            Failure::Busy { retry_after: Millis::secs((*retry_after_s).into()) }
        }
        GenerateError::ShuttingDown => Failure::Draining,
        GenerateError::NotServed { .. } | GenerateError::Unavailable(_) => Failure::Unserved,
        GenerateError::Engine(_) => Failure::Engine,
    }
}

async fn next(current: Option<&mut Current>) -> Said {
    match current.and_then(|current| current.asking.as_mut()) {
        Some(asking) => asking.next().await,
        None => std::future::pending().await,
    }
}

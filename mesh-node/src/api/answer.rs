//! One generation on its way to a client: begun, read to its end, or dropped; must not know any API's JSON.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, HeaderName};
use engine::Generation;
use mesh_proto::{Event, GenerateError, GenerateRequest, Usage};
use tokio::time::timeout;
use tracing::{Span, info, warn};

use crate::{
    metrics::Metrics,
    router::{Begun, Router, Target, Trace},
};

/// How long an answer's head waits for its first token, so that what fails before it is an HTTP error and not an
/// event in a stream that claimed 200. The cost: the client sees its headers that much later. (guess)
const FIRST_TOKEN_GRACE: Duration = Duration::from_secs(3);

/// The header that names the node that generated.
pub(super) const NODE: HeaderName = HeaderName::from_static("x-mesh-node");
/// The header that says why it was that one.
pub(super) const ROUTE: HeaderName = HeaderName::from_static("x-mesh-route");

/// A generation that was accepted. Its events end with exactly one `Finished` or `Failed`; dropped before that,
/// the generation is cancelled.
pub(super) struct Answer {
    generation: Generation,
    trace: Arc<Trace>,
    seen: VecDeque<Event>,
    record: Record,
}

impl Answer {
    /// Asks, and waits until the prompt is accepted and, within [`FIRST_TOKEN_GRACE`], the first token is there.
    /// `session`: the client's own name for the conversation.
    pub(super) async fn begin(
        router: &Router,
        target: &Target,
        request: GenerateRequest,
        session: Option<&str>,
    ) -> Result<Self, GenerateError> {
        super::observe::asks_for(request.model.as_str());
        let mut record = Record::new(&request, router.metrics().clone());
        let accepted = async {
            let Begun { generation, trace } = router.begin(target, request, session).await?;
            let (generation, seen) = Self::accepted(generation, &mut record).await?;
            Ok((generation, trace, seen))
        };
        match accepted.await {
            Ok((generation, trace, seen)) => Ok(Self { generation, trace, seen, record }),
            Err(error) => {
                record.failed(&error);
                Err(error)
            }
        }
    }

    /// The headers that tell which node works on it now, and why; none outside a mesh.
    pub(super) fn origin(&self) -> HeaderMap {
        origin(&self.trace)
    }

    /// Tokens of the prompt.
    pub(super) fn prompt_tokens(&self) -> u32 {
        self.record.usage.prompt_tokens
    }

    async fn accepted(
        mut generation: Generation,
        record: &mut Record,
    ) -> Result<(Generation, VecDeque<Event>), GenerateError> {
        match generation.next().await {
            Some(Event::Started { prompt_tokens }) => record.usage.prompt_tokens = prompt_tokens,
            Some(Event::Failed(error)) => return Err(error),
            Some(_) => return Err(GenerateError::Engine("it answered before it started".into())),
            None => return Err(broken_off()),
        }
        let mut seen = VecDeque::new();
        if let Ok(first) = timeout(FIRST_TOKEN_GRACE, generation.next()).await {
            match first {
                Some(Event::Failed(error)) => return Err(error),
                Some(event) => seen.push_back(event),
                None => return Err(broken_off()),
            }
        }
        Ok((generation, seen))
    }

    /// The next event after `Started`; `None` after the last. An engine that stops without a word has failed.
    pub(super) async fn next(&mut self) -> Option<Event> {
        if self.record.ended {
            return None;
        }
        let next = match self.seen.pop_front() {
            Some(event) => Some(event),
            None => self.generation.next().await,
        };
        let event = next.unwrap_or_else(|| Event::Failed(broken_off()));
        self.record.note(&event);
        Some(event)
    }
}

/// The headers that tell which node works on something, and why; none outside a mesh.
pub(super) fn origin(trace: &Trace) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some((node, reason)) = trace.now() {
        let values = [(NODE, node.to_string()), (ROUTE, reason)];
        headers.extend(values.into_iter().filter_map(|(name, value)| Some((name, value.try_into().ok()?))));
    }
    headers
}

fn broken_off() -> GenerateError {
    GenerateError::Engine("it stopped without finishing the answer".into())
}

/// What the log says of a generation when it is over, however that comes.
struct Record {
    metrics: Arc<Metrics>,
    span: Span,
    model: String,
    began: Instant,
    first: Option<Duration>,
    /// When its last token came.
    last: Option<Instant>,
    usage: Usage,
    ended: bool,
}

impl Record {
    fn new(request: &GenerateRequest, metrics: Arc<Metrics>) -> Self {
        metrics.began();
        Self {
            metrics,
            span: Span::current(),
            model: request.model.to_string(),
            began: Instant::now(),
            first: None,
            last: None,
            usage: Usage::default(),
            ended: false,
        }
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::Started { .. } => {}
            Event::Text { tokens, .. } | Event::ToolCall { tokens, .. } => self.came(tokens.len()),
            Event::Finished { reason, usage, .. } => {
                self.usage = *usage;
                self.ended = true;
                self.metrics.finished(&self.model, *reason, *usage);
                self.span.in_scope(|| {
                    info!(
                        model = self.model,
                        prompt_tokens = usage.prompt_tokens,
                        cached_tokens = usage.cached_tokens,
                        completion_tokens = usage.completion_tokens,
                        first_ms = self.first.unwrap_or_default().as_millis() as u64,
                        ms = self.began.elapsed().as_millis() as u64,
                        ?reason,
                        "generated"
                    );
                });
            }
            Event::Failed(error) => self.failed(error),
        }
    }

    /// So many tokens came; none where an event goes on with the last one's.
    fn came(&mut self, tokens: usize) {
        let now = Instant::now();
        if self.first.is_none() {
            let after = now.duration_since(self.began);
            self.first = Some(after);
            self.metrics.first_token(&self.model, after);
        }
        let Ok(tokens @ 1..) = u32::try_from(tokens) else { return };
        if let Some(last) = self.last.replace(now) {
            self.metrics.next_token(&self.model, now.duration_since(last) / tokens);
        }
    }

    fn failed(&mut self, error: &GenerateError) {
        self.ended = true;
        self.metrics.failed(&self.model, error);
        self.span.in_scope(|| match error {
            GenerateError::Engine(_) => warn!(model = self.model, %error, "failed"),
            _ => info!(model = self.model, %error, "refused"),
        });
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.ended {
            let ms = self.began.elapsed().as_millis() as u64;
            self.metrics.cancelled(&self.model);
            self.span.in_scope(|| info!(model = self.model, ms, "cancelled: the client is gone"));
        }
    }
}

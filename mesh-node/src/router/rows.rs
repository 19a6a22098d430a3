//! Vectors and scores, asked of one host after the other until one gives them all; must not know HTTP.
//!
//! `mesh_proto::routing::Attempt` decides, as it does for generations; nothing is delivered before all of it is here, so
//! the next host simply begins anew.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use engine::pool::Skills;
use mesh_proto::{
    GenerateError, PoolRequest, PoolTask, Pooled,
    identity::NodeId,
    infer::{Ask, Reply},
    record::Capabilities,
    routing::{Attempt, Choice, Failure, Heard, Step, TryNumber, Wish},
    time::Millis,
};
use tokio::time::sleep;

use super::{
    Made, Router, Target, Trace,
    attempt::{error_of, failure_of},
    wish,
};
use crate::{
    mesh::{Mesh, local_time},
    tunnel::{Asking, Rows, Said},
};

/// The try that is going on.
struct Current {
    number: TryNumber,
    node: NodeId,
    reason: String,
    asking: Option<Asking>,
    asked_at: Millis,
    rows: Rows,
}

struct Drive<'a> {
    router: &'a Router,
    mesh: &'a Mesh,
    wish: Wish,
    request: PoolRequest,
    trace: Arc<Trace>,
    current: Option<Current>,
    done: Option<Pooled>,
    /// In the last host's own words.
    error: Option<GenerateError>,
    began: Instant,
    lost: bool,
}

/// Until some host has given all rows, or nobody is left. Dropping it cancels.
pub(super) async fn run(
    router: &Router,
    mesh: &Mesh,
    target: &Target,
    request: PoolRequest,
) -> Result<Made, GenerateError> {
    let mut wish = wish(request.model.clone(), Some(target.key), Default::default(), None, 1);
    wish.salt = rand::random();
    let anybody = !router.choices(&wish).is_empty();
    wish.needs = match request.task {
        PoolTask::Embed { .. } => Capabilities::EMBEDDINGS,
        PoolTask::Rerank { .. } => Capabilities::RERANK,
    };
    let choices = router.choices(&wish);
    if choices.is_empty() && anybody {
        Skills::default().check(&request.task, request.model.as_str())?;
    }
    let mut drive = Drive {
        router,
        mesh,
        wish,
        request,
        trace: Arc::default(),
        current: None,
        done: None,
        error: None,
        began: Instant::now(),
        lost: false,
    };
    let pooled = drive.run(choices).await?;
    Ok(Made { pooled, trace: drive.trace.clone() })
}

impl Drive<'_> {
    fn now(&self) -> Millis {
        Millis(self.began.elapsed().as_millis() as u64)
    }

    async fn run(&mut self, choices: Vec<Choice>) -> Result<Pooled, GenerateError> {
        let mut attempt = Attempt::new(self.router.0.config, choices, self.now());
        let mut view = self.mesh.subscribe();
        let over = || GenerateError::Engine("it stopped before all texts were pooled".into());
        loop {
            if let Some(ended) = self.steps(&mut attempt) {
                return ended;
            }
            let due = attempt.next_wakeup().ok_or_else(over)?;
            let wait = Duration::from_millis(due.since(self.now()).0 + 1);
            tokio::select! {
                said = next(self.current.as_mut()) => self.heard(said, &mut attempt),
                () = sleep(wait) => attempt.wake(self.now()),
                // A host's death shows in the view, often before its streams break.
                changed = view.changed(), if self.lost => {
                    if changed.is_ok() {
                        attempt.choices(self.router.choices(&self.wish), self.now());
                    }
                }
            }
        }
    }

    /// Does what the machine says; what it ended with, if it did.
    fn steps(&mut self, attempt: &mut Attempt) -> Option<Result<Pooled, GenerateError>> {
        while let Some(step) = attempt.poll_step() {
            match step {
                Step::Try { number, choice, .. } => self.attempt(number, &choice, attempt),
                // Nothing is passed on in pieces.
                Step::Deliver { .. } => {}
                Step::Abandon { node, failure, .. } => self.abandon(node, failure),
                Step::Refresh => attempt.choices(self.router.choices(&self.wish), self.now()),
                Step::Done { node } => {
                    self.current = None;
                    self.router.targets().done(node);
                    return self.done.take().map(Ok);
                }
                Step::GiveUp(why) => return Some(Err(error_of(why, self.error.take()))),
            }
        }
        None
    }

    fn attempt(&mut self, number: TryNumber, choice: &Choice, attempt: &mut Attempt) {
        let node = choice.candidate.node;
        let reason = choice.reason.to_string();
        tracing::debug!(request = %self.request.id, node = %node.short(), try_number = number.0, %reason, "routed");
        let asking = self.ask(choice);
        let asked_at = local_time();
        self.router.targets().sent(node, asked_at);
        let begun = asking.is_some();
        self.current = Some(Current { number, node, reason, asking, asked_at, rows: Rows::default() });
        if !begun {
            attempt.heard(number, Heard::Failed(Failure::Unserved), self.now());
        }
    }

    /// A try at a choice; `None` where it cannot even be begun.
    fn ask(&self, choice: &Choice) -> Option<Asking> {
        let (node, model) = (choice.candidate.node, choice.candidate.model);
        let view = self.mesh.view();
        if node == view.me {
            let served = self.router.locals().find_key(model)?;
            return Some(Asking::local_rows(served.engine, self.request.clone()));
        }
        let contact = view.contact(&node)?.clone();
        let ask = Ask::pool(self.request.id.clone(), self.request.model.clone(), model);
        Some(Asking::remote_rows(self.mesh.pool().clone(), contact, ask, self.request.task.clone()))
    }

    fn heard(&mut self, said: Said, attempt: &mut Attempt) {
        let Some(current) = &mut self.current else { return };
        let number = current.number;
        let heard = match said {
            Said::Connected => Heard::Connected,
            Said::Failed(failure) => Heard::Failed(failure),
            Said::Reply(Reply::Beat { progress }) => Heard::Heartbeat { progress },
            Said::Reply(Reply::Accepted { .. }) => Heard::Heartbeat { progress: u64::MAX },
            Said::Reply(Reply::Rows { at, rows }) => match current.rows.take(at, rows) {
                true => Heard::Heartbeat { progress: u64::MAX - current.rows.len() as u64 },
                false => Heard::Failed(Failure::OutOfStep),
            },
            Said::Reply(Reply::Finished { usage, .. }) => {
                let rows = std::mem::take(&mut current.rows);
                match rows.whole(&self.request.task, usage.prompt_tokens) {
                    Some(pooled) => {
                        self.trace.set(current.node, current.reason.clone());
                        let latency = local_time().since(current.asked_at);
                        self.router.targets().answered(current.node, latency, local_time());
                        self.done = Some(pooled);
                        Heard::Finished
                    }
                    None => Heard::Failed(Failure::OutOfStep),
                }
            }
            // Tokens answer another question.
            Said::Reply(Reply::Tokens { .. }) => Heard::Failed(Failure::OutOfStep),
            Said::Reply(Reply::Failed(error)) => Heard::Failed(self.failed(error)),
        };
        attempt.heard(number, heard, self.now());
    }

    fn failed(&mut self, error: GenerateError) -> Failure {
        let here = self.current.as_ref().map(|current| current.node);
        let failure = failure_of(&error, |prompt_tokens| {
            self.wish.context_tokens = self.wish.context_tokens.max(prompt_tokens.saturating_add(1));
            let others = self.router.choices(&self.wish);
            others.iter().any(|choice| Some(choice.candidate.node) != here)
        });
        self.error = Some(error);
        failure
    }

    /// Ends the current try, and remembers of its node what there is to learn.
    fn abandon(&mut self, node: NodeId, failure: Option<Failure>) {
        self.current = None;
        let mut targets = self.router.targets();
        match failure {
            None => targets.ended(node),
            Some(failure) => {
                tracing::info!(request = %self.request.id, node = %node.short(), %failure, "a try failed");
                self.lost = true;
                if failure.node_is_well() { targets.refused(node) } else { targets.failed(node, local_time()) }
            }
        }
    }
}

impl Drop for Drive<'_> {
    /// The client went away amid a try.
    fn drop(&mut self) {
        if let Some(current) = self.current.take() {
            self.router.targets().ended(current.node);
        }
    }
}

async fn next(current: Option<&mut Current>) -> Said {
    match current.and_then(|current| current.asking.as_mut()) {
        Some(asking) => asking.next().await,
        None => std::future::pending().await,
    }
}

//! The thread that owns a decoder: schedule, step, read, tell; must not know how text or devices work.
//!
//! **Failures.** A row that fails ends alone. If the decoder gives nothing for a step in which one row failed, the
//! others are opened again with all their tokens so far: sampling is keyed by position, so their answers do not
//! change. A device that fails ends what runs; what waits is tried next. After [`DEVICE_STRIKES`] failures with no
//! step between them, the engine gives up: it frees the decoder, and reports the error to everybody who waits or
//! comes. A panic is the same at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use mesh_proto::{GenerateError, TokenId};

use crate::{
    decoder::{DecodeError, Decoder, DecoderMemory, SeqId, StepPlan},
    local::{mailbox::Mailbox, outbox::Delivery, request::Request},
    scheduler::{LOOKAHEAD, Scheduler, SchedulerLimits},
};

/// Device failures in a row after which an engine gives up. Unit: failures; default 3; a guess: one may be a passing
/// lack of memory. More of it: more requests fail one by one on a device that is gone.
const DEVICE_STRIKES: u32 = 3;

/// Runs until the engine is dropped or gives up; then everybody is told.
pub(super) fn run(decoder: impl Decoder, limits: SchedulerLimits, eos: Arc<BTreeSet<TokenId>>, mailbox: Arc<Mailbox>) {
    mailbox.house.publish_budget(limits.kv_budget_bytes);
    let mut worker = Worker {
        decoder,
        scheduler: Scheduler::new(limits),
        eos,
        live: BTreeMap::new(),
        leaving: Vec::new(),
        next_seq: 0,
        strikes: 0,
        mailbox: mailbox.clone(),
    };
    let end = catch_unwind(AssertUnwindSafe(|| worker.run()));
    let error = end.unwrap_or_else(|_| GenerateError::Engine("the decoder's thread panicked: see the log".to_owned()));
    if error != GenerateError::ShuttingDown {
        tracing::error!(%error, "the engine gives up");
    }
    let waiting = mailbox.close(error.clone());
    mailbox.house.publish_counts(0, 0);
    mailbox.house.publish_memory(0, 0);
    let live = std::mem::take(&mut worker.live).into_values();
    for mut request in live.chain(worker.leaving.drain(..)).chain(waiting) {
        request.fail(error.clone());
    }
}

struct Worker<D> {
    decoder: D,
    scheduler: Scheduler,
    eos: Arc<BTreeSet<TokenId>>,
    /// Requests with a sequence, waiting or open.
    live: BTreeMap<SeqId, Request>,
    /// Requests that ended, and whose client has not read it all.
    leaving: Vec<Request>,
    next_seq: u64,
    strikes: u32,
    mailbox: Arc<Mailbox>,
}

/// The engine gives up, because of this.
struct GivesUp(GenerateError);

impl<D: Decoder> Worker<D> {
    fn run(&mut self) -> GenerateError {
        let mut idle = true;
        loop {
            let delivery = self.mailbox.take(idle);
            if delivery.stop {
                return GenerateError::ShuttingDown;
            }
            for request in delivery.requests {
                self.accept(request);
            }
            idle = match self.turn() {
                Ok(busy) => !busy,
                Err(GivesUp(error)) => return error,
            };
        }
    }

    fn next_seq(&mut self) -> SeqId {
        self.next_seq += 1;
        SeqId(self.next_seq)
    }

    fn accept(&mut self, mut request: Request) {
        if request.over {
            // There is nothing to compute, and its client has not read that.
            self.leaving.push(request);
            return;
        }
        let seq = self.next_seq();
        match self.scheduler.add(seq, request.draft.len(), request.draft.left()) {
            Ok(()) => {
                self.live.insert(seq, request);
            }
            // Places and lengths were checked before: only a mistake of ours comes here.
            Err(refusal) => request.fail(GenerateError::Engine(refusal.to_string())),
        }
    }

    /// Does what can be done now; says whether there is more.
    fn turn(&mut self) -> Result<bool, GivesUp> {
        self.sweep();
        let changed = self.admit()?;
        let mut plan = self.scheduler.step();
        let steered = |seq| self.live.get(&seq).is_some_and(Request::is_steered);
        let held = plan.choosing().any(steered);
        plan.held = held;
        let submitted = !plan.is_empty() && self.submit(&plan)?;
        if self.scheduler.in_flight() == LOOKAHEAD || !submitted && self.scheduler.in_flight() > 0 {
            self.collect()?;
        }
        // Now all tokens before this step's are read; while they were, the device was computing it.
        if submitted && plan.held && self.scheduler.in_flight() > 0 {
            self.choose(&plan)?;
        }
        self.publish();
        let resumed = self.flush();
        Ok(resumed || changed || !plan.is_empty() || self.scheduler.in_flight() > 0)
    }

    /// Takes and gives places; says whether any changed hands.
    fn admit(&mut self) -> Result<bool, GivesUp> {
        let mut changed = false;
        loop {
            let tokens = |seq: SeqId| self.live.get(&seq).map_or(&[][..], |request| request.draft.tokens());
            let alike = |a, b| tokens(a).iter().zip(tokens(b)).take_while(|(x, y)| x == y).count();
            let admission = self.scheduler.admit(|a, b| alike(a, b) as u32);
            for seq in &admission.preempt {
                self.send_back(*seq, true);
            }
            for seq in &admission.open {
                self.open(*seq)?;
            }
            changed |= !admission.is_empty();
            // One that was just opened may have, from an earlier prompt, what others wait for.
            if admission.open.is_empty() || !admission.preempt.is_empty() {
                return Ok(changed);
            }
        }
    }

    fn open(&mut self, seq: SeqId) -> Result<(), GivesUp> {
        let Some(request) = self.live.get_mut(&seq) else { return Ok(()) };
        match self.decoder.open(request.spec(seq)) {
            Ok(cached) => {
                request.opened(cached);
                self.scheduler.opened(seq, cached);
                tracing::debug!(request = %request.id, seq = seq.0, tokens = request.opened_with, cached, "opened");
                Ok(())
            }
            Err(DecodeError::Sequences { message, .. }) => {
                // It never was in the decoder.
                self.scheduler.end(seq);
                self.leave(seq, Some(GenerateError::Engine(message)));
                Ok(())
            }
            Err(DecodeError::Device(message)) => {
                self.scheduler.end(seq);
                self.leave(seq, Some(GenerateError::Engine(message.clone())));
                self.lose_all(message)
            }
        }
    }

    fn submit(&mut self, plan: &StepPlan) -> Result<bool, GivesUp> {
        match self.decoder.submit(plan) {
            Ok(()) => {
                for chunk in &plan.prefill {
                    if let Some(request) = self.live.get_mut(&chunk.seq) {
                        request.computed = chunk.start + chunk.len;
                    }
                }
                return Ok(true);
            }
            Err(DecodeError::Sequences { seqs, message }) => {
                self.scheduler.withdraw();
                if self.fail(&seqs, &message) == 0 {
                    self.lose_all(message)?;
                }
            }
            Err(DecodeError::Device(message)) => self.lose_all(message)?,
        }
        Ok(false)
    }

    /// Tells the decoder how the rows of a held step choose. A row that cannot choose any more fails alone.
    fn choose(&mut self, plan: &StepPlan) -> Result<(), GivesUp> {
        let (mut steering, mut failed) = (Vec::new(), Vec::new());
        for seq in plan.choosing() {
            let Some(request) = self.live.get_mut(&seq) else { continue };
            match request.steering(seq) {
                Ok(said) => steering.extend(said),
                Err(error) => failed.push((seq, error)),
            }
        }
        if let Err(DecodeError::Sequences { message, .. } | DecodeError::Device(message)) =
            self.decoder.choose(&steering)
        {
            return self.lose_all(message);
        }
        for (seq, error) in failed {
            self.end_failed(seq, error);
        }
        Ok(())
    }

    /// Ends an open sequence whose request cannot go on.
    fn end_failed(&mut self, seq: SeqId, error: GenerateError) {
        if self.scheduler.end(seq) {
            self.close(seq, true);
        }
        self.leave(seq, Some(error));
    }

    fn collect(&mut self) -> Result<(), GivesUp> {
        match self.decoder.collect() {
            Ok(sampled) => {
                self.strikes = 0;
                let pools = |seq: &SeqId| self.live.get(seq).is_some_and(Request::pools);
                self.mailbox.house.stepped(sampled.iter().filter(|token| !pools(&token.seq)).count());
                let missing = self.scheduler.collected(&sampled);
                for token in sampled {
                    let seq = token.seq;
                    let Some(request) = self.live.get_mut(&seq) else { continue };
                    let ended = if request.pools() {
                        request.pooled(self.decoder.pooled(seq))
                    } else {
                        if let Some(after) = request.times.token() {
                            self.mailbox.house.first_token(after);
                        }
                        request.take(token, &self.eos)
                    };
                    match ended {
                        Ok(true) => self.end(seq, true),
                        Ok(false) => {}
                        Err(error) => self.end_failed(seq, error),
                    }
                }
                self.fail(&missing, "the decoder gave no token for this sequence");
            }
            Err(DecodeError::Sequences { seqs, message }) => {
                // The step is lost to all that it named: those that did not fail are opened again.
                let lost = self.scheduler.discard();
                let mut failed = 0;
                for seq in lost {
                    if seqs.contains(&seq) {
                        self.decoder.close(seq, None);
                        self.leave(seq, Some(GenerateError::Engine(message.clone())));
                        failed += 1;
                    } else {
                        self.send_back(seq, false);
                    }
                }
                failed += self.fail(&seqs, &message);
                if failed == 0 {
                    self.lose_all(message)?;
                }
            }
            Err(DecodeError::Device(message)) => self.lose_all(message)?,
        }
        Ok(())
    }

    /// Ends a sequence, keeping its KV for later prompts or not, and lets its request go.
    fn end(&mut self, seq: SeqId, keep: bool) {
        if self.scheduler.end(seq) {
            self.close(seq, keep);
        }
        self.leave(seq, None);
    }

    fn close(&mut self, seq: SeqId, keep: bool) {
        let held = self.live.get(&seq).filter(|_| keep).map(Request::held).filter(|held| !held.is_empty());
        self.decoder.close(seq, held);
    }

    /// Takes a request off its sequence; its events still go out.
    fn leave(&mut self, seq: SeqId, error: Option<GenerateError>) {
        let Some(mut request) = self.live.remove(&seq) else { return };
        if let Some(time) = request.times.ran_for() {
            self.mailbox.house.took(time);
        }
        if let Some(error) = error {
            request.fail(error);
        }
        self.leaving.push(request);
    }

    /// A sequence that has lost its place, in the scheduler already, goes back to the head of the line.
    fn send_back(&mut self, seq: SeqId, keep: bool) {
        self.close(seq, keep);
        let Some(mut request) = self.live.remove(&seq) else { return };
        request.closed();
        let (new, tokens) = (self.next_seq(), request.draft.len());
        tracing::debug!(request = %request.id, seq = seq.0, new = new.0, tokens, "sent back to the line");
        match self.scheduler.resubmit(new, tokens, request.draft.left()) {
            Ok(()) => {
                if request.stalled {
                    self.scheduler.pause(new);
                }
                self.live.insert(new, request);
            }
            Err(refusal) => request.fail(GenerateError::Engine(refusal.to_string())),
        }
    }

    /// Fails those of `seqs` that are open; returns how many.
    fn fail(&mut self, seqs: &[SeqId], message: &str) -> usize {
        let is_open = |seq: &&SeqId| self.live.get(seq).is_some_and(Request::is_open);
        let open: Vec<SeqId> = seqs.iter().filter(is_open).copied().collect();
        for seq in &open {
            self.scheduler.end(*seq);
            self.decoder.close(*seq, None);
            self.leave(*seq, Some(GenerateError::Engine(message.to_owned())));
        }
        open.len()
    }

    /// The device failed: all that is open is lost.
    fn lose_all(&mut self, message: String) -> Result<(), GivesUp> {
        self.strikes += 1;
        tracing::error!(message, strikes = self.strikes, "the device failed");
        let error = GenerateError::Engine(message);
        for seq in self.scheduler.lose_all() {
            // One that `admit` named and that is not open yet is lost with the others.
            if self.live.get(&seq).is_some_and(Request::is_open) {
                self.decoder.close(seq, None);
            }
            self.leave(seq, Some(error.clone()));
        }
        if self.strikes >= DEVICE_STRIKES { Err(GivesUp(error)) } else { Ok(()) }
    }

    /// Ends those whose client is gone.
    fn sweep(&mut self) {
        let gone = |request: &Request| request.outbox.is_gone();
        let seqs: Vec<SeqId> = self.live.iter().filter(|(_, request)| gone(request)).map(|(seq, _)| *seq).collect();
        for seq in seqs {
            if let Some(request) = self.live.get(&seq) {
                request.cancel();
            }
            self.end(seq, true);
        }
        self.leaving.retain(|request| !gone(request));
    }

    fn publish(&self) {
        let DecoderMemory { kv_bytes, prefix_bytes } = self.decoder.memory();
        self.mailbox.house.publish_memory(kv_bytes, prefix_bytes);
        let leaving = self.leaving.iter().filter(|request| request.outbox.has_place()).count();
        self.mailbox.house.publish_counts(self.scheduler.running(), leaving as u32);
    }

    /// Sends what clients have room for; stops the sequences of those who do not read, and only these. Says whether
    /// one of them reads again.
    fn flush(&mut self) -> bool {
        let mut resumed = false;
        for (seq, request) in &mut self.live {
            // Who is gone is swept in the next turn: leaving rang the bell.
            let stalled = request.outbox.flush() == Delivery::Stalled;
            if stalled && !request.stalled {
                self.scheduler.pause(*seq);
                tracing::debug!(request = %request.id, "its client does not read");
            } else if request.stalled && !stalled {
                self.scheduler.resume(*seq);
                resumed = true;
            }
            request.stalled = stalled;
        }
        if !self.leaving.is_empty() {
            self.leaving.retain_mut(|request| request.outbox.flush() == Delivery::Stalled);
            let leaving = self.leaving.iter().filter(|request| request.outbox.has_place()).count();
            self.mailbox.house.publish_counts(self.scheduler.running(), leaving as u32);
        }
        resumed
    }
}

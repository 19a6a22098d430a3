//! Which tokens the next step computes, for whom, and who waits; must not know clocks, threads, text or devices.
//!
//! A [`Scheduler`] is a pure machine: the same calls give the same plans. Its driver (the `local` module's worker
//! thread) turns a handle like this, for ever:
//!
//! 1. [`admit`](Scheduler::admit) says who loses its place and who gets one;
//! 2. [`opened`](Scheduler::opened) tells what of a prompt need not be computed;
//! 3. [`step`](Scheduler::step) plans every runnable row and a bounded piece of the prompts;
//! 4. [`collected`](Scheduler::collected) counts the tokens of the oldest step, of which two may be on their way.
//!
//! **Why nobody starves.** The line is first come, first served: nobody overtakes its head, except past a sequence
//! whose client does not read, and, once, past one whose prompt's beginning is just being computed for another. Every row that can run is in every step. Of the prompts, the oldest has half of the
//! step's budget for certain, so it ends; then the next is the oldest. When memory runs out the youngest goes back to
//! the head of the line, so the oldest always ends, and its room goes to the next. `tests/scheduler.rs` holds this to
//! it.
//!
//! **Memory** is counted in tokens of KV: a row is charged for its whole prompt from the moment it is opened and for
//! every answer token from the moment that it is planned, so what a decoder holds is never more than what is counted.
//!
//! ```
//! use engine::{decoder::{Sampled, SeqId}, scheduler::{Scheduler, SchedulerLimits}};
//! use mesh_proto::TokenId;
//!
//! let mut scheduler = Scheduler::new(SchedulerLimits {
//!     max_running: 4, max_waiting: 8, step_tokens: 512, context_tokens: 4096,
//!     kv_bytes_per_token: 1024, kv_budget_bytes: 1 << 30,
//! });
//! let seq = SeqId(1);
//! scheduler.add(seq, 600, 100).expect("there is room");
//! assert_eq!(scheduler.admit(|_, _| 0).open, [seq]);
//! scheduler.opened(seq, 0);
//! assert_eq!(scheduler.step().prefill[0].len, 512); // the prompt's first piece
//! assert!(scheduler.step().prefill[0].last); // the rest of it, before the first was read
//! scheduler.collected(&[]);
//! scheduler.collected(&[Sampled { seq, token: TokenId(7), odds: None }]);
//! assert_eq!(scheduler.step().decode, [seq]);
//! ```

mod admit;
mod follow;
mod row;
mod share;
mod step;

use std::collections::{BTreeMap, VecDeque};

use thiserror::Error;

pub use admit::Admission;
use row::{Phase, Row};

use crate::decoder::{SeqId, StepPlan};

/// Steps that may be submitted and not yet collected. Unit: steps; from the `Decoder` seam, whose bound it is. Cost:
/// one step computed in vain when a row's end is read only after its next token was issued.
pub const LOOKAHEAD: usize = 2;

/// What a scheduler works within; does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedulerLimits {
    /// Most sequences open at once.
    pub max_running: u32,
    /// Most sequences that wait while all places are taken: beyond `max_running + max_waiting`, `add` says busy.
    pub max_waiting: u32,
    /// Most prompt tokens computed in one step, over all prompts. Decoding rows wait for no more than this.
    pub step_tokens: u32,
    /// Most tokens of prompt and answer of one sequence.
    pub context_tokens: u32,
    /// KV bytes of one token; 0 switches the accounting of memory off.
    pub kv_bytes_per_token: u64,
    /// KV bytes of all open sequences together.
    pub kv_budget_bytes: u64,
}

impl SchedulerLimits {
    /// KV tokens of all open sequences together.
    fn budget_tokens(&self) -> u64 {
        self.kv_budget_bytes.checked_div(self.kv_bytes_per_token).unwrap_or(u64::MAX)
    }

    /// Most tokens of prompt and answer that one sequence can ever have: the context, or the memory where that is
    /// less. A sequence beyond it is refused, and an answer ends there, so whoever is alone always fits.
    pub fn ceiling_tokens(&self) -> u32 {
        self.context_tokens.min(u32::try_from(self.budget_tokens()).unwrap_or(u32::MAX))
    }
}

/// Why a sequence is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// All places are taken, and all places in the line too.
    #[error("{waiting} sequences wait already")]
    Busy {
        /// How many wait.
        waiting: u32,
    },
    /// Even alone it would not fit.
    #[error("{prompt_tokens} tokens of prompt do not fit into {ceiling_tokens}")]
    TooLong {
        /// Tokens of the prompt.
        prompt_tokens: u32,
        /// Tokens that one sequence can have, prompt and answer together.
        ceiling_tokens: u32,
    },
    /// No prompt, or no token asked for.
    #[error("a sequence has a prompt and asks for at least one token")]
    Empty,
}

/// The machine. See the module's page.
#[derive(Debug)]
pub struct Scheduler {
    limits: SchedulerLimits,
    /// Everyone, waiting or open.
    rows: BTreeMap<SeqId, Row>,
    /// Who waits, next first.
    waiting: VecDeque<SeqId>,
    /// Who has a place, in the order in which they got it.
    open: Vec<SeqId>,
    /// Steps submitted and not collected, oldest first.
    in_flight: VecDeque<StepPlan>,
}

impl Scheduler {
    /// A scheduler with nobody in it.
    pub fn new(limits: SchedulerLimits) -> Self {
        Self { limits, rows: BTreeMap::new(), waiting: VecDeque::new(), open: Vec::new(), in_flight: VecDeque::new() }
    }

    /// Puts a new sequence at the end of the line. At most `max_tokens` are chosen for it, and no more than the
    /// [ceiling](SchedulerLimits::ceiling_tokens) leaves.
    ///
    /// # Errors
    /// `Busy` beyond the line's bound; `TooLong` and `Empty` for what can never run.
    /// A `seq` that is known already is `Busy` too: ids are not used twice.
    pub fn add(&mut self, seq: SeqId, prompt_tokens: u32, max_tokens: u32) -> Result<(), Refusal> {
        let places = self.limits.max_running as usize + self.limits.max_waiting as usize;
        if self.rows.len() >= places || self.rows.contains_key(&seq) {
            return Err(Refusal::Busy { waiting: self.waiting() });
        }
        let row = self.row(prompt_tokens, max_tokens)?;
        self.rows.insert(seq, row);
        self.waiting.push_back(seq);
        Ok(())
    }

    /// Puts a sequence that was [preempted](Admission::preempt) at the head of the line, under a new id. Its prompt
    /// is now all its tokens so far, and `max_tokens` what is left of it. The line's bound does not apply.
    ///
    /// # Errors
    /// `TooLong` and `Empty`, as for [`add`](Self::add): cannot be for one that ran and had not ended.
    pub fn resubmit(&mut self, seq: SeqId, prompt_tokens: u32, max_tokens: u32) -> Result<(), Refusal> {
        if self.rows.contains_key(&seq) {
            return Err(Refusal::Busy { waiting: self.waiting() });
        }
        let row = self.row(prompt_tokens, max_tokens)?;
        self.rows.insert(seq, row);
        self.waiting.push_front(seq);
        Ok(())
    }

    fn row(&self, prompt_tokens: u32, max_tokens: u32) -> Result<Row, Refusal> {
        let ceiling_tokens = self.limits.ceiling_tokens();
        if prompt_tokens == 0 || max_tokens == 0 {
            return Err(Refusal::Empty);
        }
        if prompt_tokens >= ceiling_tokens {
            return Err(Refusal::TooLong { prompt_tokens, ceiling_tokens });
        }
        Ok(Row::new(prompt_tokens, max_tokens.min(ceiling_tokens - prompt_tokens)))
    }

    /// The decoder holds a sequence that [`admit`](Self::admit) named, and `cached` tokens of its prompt need not be
    /// computed (never all of them: the last one always is).
    pub fn opened(&mut self, seq: SeqId, cached: u32) {
        if let Some(row) = self.rows.get_mut(&seq).filter(|row| row.phase == Phase::Opening) {
            row.phase = Phase::Open;
            row.prefilled = cached.min(row.prompt - 1);
        }
    }

    /// A sequence ends, however: finished, failed or cancelled, waiting or open, steps in flight or not. Says whether
    /// it had a place, so that the decoder knows it and must close it; `false` also if it is not known (any more).
    pub fn end(&mut self, seq: SeqId) -> bool {
        let Some(row) = self.rows.remove(&seq) else { return false };
        let open = row.phase != Phase::Waiting;
        if open {
            self.open.retain(|&other| other != seq);
        } else {
            self.waiting.retain(|&other| other != seq);
        }
        open
    }

    /// Plans nothing more for a sequence until [`resume`](Self::resume): its client does not read. What is in flight
    /// still comes. While it waits, others may pass it, and its place goes to somebody who waits for one.
    pub fn pause(&mut self, seq: SeqId) {
        if let Some(row) = self.rows.get_mut(&seq) {
            row.paused = true;
        }
    }

    /// Ends a pause.
    pub fn resume(&mut self, seq: SeqId) {
        if let Some(row) = self.rows.get_mut(&seq) {
            row.paused = false;
        }
    }

    /// Sequences that have a place.
    pub fn running(&self) -> u32 {
        self.open.len() as u32
    }

    /// Sequences that wait for one.
    pub fn waiting(&self) -> u32 {
        self.waiting.len() as u32
    }

    /// Steps submitted and not collected.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// KV bytes that open sequences are charged with: what they hold, their whole prompts and all planned tokens.
    pub fn kv_bytes(&self) -> u64 {
        self.held_tokens().saturating_mul(self.limits.kv_bytes_per_token)
    }

    /// Open rows in the order in which they got their places.
    fn open_rows(&self) -> impl DoubleEndedIterator<Item = (SeqId, &Row)> {
        self.open.iter().filter_map(|seq| Some((*seq, self.rows.get(seq)?)))
    }

    fn held_tokens(&self) -> u64 {
        self.open_rows().map(|(_, row)| row.held()).sum()
    }
}

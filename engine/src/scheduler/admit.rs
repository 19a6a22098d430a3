//! Who gets a place and who loses it; must not know what a step computes.

use super::{Scheduler, row::Phase};
use crate::decoder::SeqId;

/// Changes of places, to be carried out before the next step is planned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// Lose their place, youngest first, and are forgotten here: close them (their KV may serve their own return) and
    /// [`resubmit`](Scheduler::resubmit) them in this order, with all their tokens so far as the prompt.
    pub preempt: Vec<SeqId>,
    /// Get a place: open them, then say [`opened`](Scheduler::opened), or [`end`](Scheduler::end) where that failed.
    pub open: Vec<SeqId>,
}

impl Admission {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.preempt.is_empty() && self.open.is_empty()
    }
}

impl Scheduler {
    /// Takes places from those for whose next token there is no memory (the youngest, and before them those whose
    /// client does not read), or else gives places to the head of the line as long as prompt and a reserve fit beside
    /// what all others hold and are about to take. Where the head lacks room that clients hold who do not read, these
    /// go. `shared` tells how many tokens two sequences begin with in common: who begins as another does whose prompt is
    /// being computed is let in once that is there to be reused, and lets others pass until then.
    pub fn admit(&mut self, shared: impl Fn(SeqId, SeqId) -> u32) -> Admission {
        let mut admission = Admission::default();
        while self.held_tokens() + self.next_tokens() > self.limits.budget_tokens() {
            // The last one always fits: nothing longer than the ceiling was taken.
            let Some(victim) = self.youngest(true).or_else(|| self.youngest(false)) else { break };
            self.end(victim);
            admission.preempt.push(victim);
        }
        // Whoever was just sent away comes first in line again; nobody must take its room before.
        if admission.preempt.is_empty() {
            while let Some(head) = self.head(&shared) {
                if !self.fits(head, false) {
                    let Some(victim) = self.youngest(true).filter(|_| self.fits(head, true)) else { break };
                    self.end(victim);
                    admission.preempt.push(victim);
                    continue;
                }
                self.waiting.retain(|&seq| seq != head);
                self.open.push(head);
                if let Some(row) = self.rows.get_mut(&head) {
                    row.phase = Phase::Opening;
                }
                admission.open.push(head);
            }
        }
        admission
    }

    /// The next in line who would run.
    fn head(&mut self, shared: &impl Fn(SeqId, SeqId) -> u32) -> Option<SeqId> {
        for place in 0..self.waiting.len() {
            let seq = *self.waiting.get(place)?;
            if self.rows.get(&seq).is_some_and(|row| !row.paused) && !self.follows(seq, shared) {
                return Some(seq);
            }
        }
        None
    }

    /// The last to get a place: of all, or of those whose client does not read.
    fn youngest(&self, paused: bool) -> Option<SeqId> {
        self.open_rows().rev().find(|(_, row)| row.paused || !paused).map(|(seq, _)| seq)
    }

    /// Tokens that the next step chooses at most.
    fn next_tokens(&self) -> u64 {
        self.open_rows().filter(|(_, row)| row.can_run()).count() as u64
    }

    /// Whether `seq` can have a place beside the open ones, or beside those of them that run.
    fn fits(&self, seq: SeqId, without_paused: bool) -> bool {
        let beside = || self.open_rows().filter(|(_, row)| !(without_paused && row.paused));
        let others: u64 = beside().map(|(_, row)| row.outlook()).sum();
        let own = self.rows.get(&seq).map_or(0, |row| row.outlook());
        beside().count() < self.limits.max_running as usize && others + own <= self.limits.budget_tokens()
    }
}

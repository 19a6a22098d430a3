//! What a step computes, and what came of it; must not know who waits.

use super::{LOOKAHEAD, Scheduler, share::share};
use crate::decoder::{PrefillChunk, Sampled, SeqId, StepPlan};

impl Scheduler {
    /// Plans the next step: every row that can decode, and pieces of prompts up to the step's budget. Empty when
    /// nobody can run or two steps are in flight. A step that is not empty counts as submitted:
    /// [`collected`](Self::collected), [`withdraw`](Self::withdraw), [`discard`](Self::discard) or
    /// [`lose_all`](Self::lose_all) must follow.
    pub fn step(&mut self) -> StepPlan {
        let mut plan = StepPlan::default();
        if self.in_flight.len() >= LOOKAHEAD {
            return plan;
        }
        // `admit` sees to it that this suffices for all; here it only keeps the promise whatever the driver does.
        let mut room = self.limits.budget_tokens().saturating_sub(self.held_tokens());
        for seq in &self.open {
            let Some(row) = self.rows.get_mut(seq).filter(|row| row.can_decode()) else { continue };
            if room > 0 {
                room -= 1;
                row.planned += 1;
                plan.decode.push(*seq);
            }
        }
        let prompts: Vec<(SeqId, u32)> =
            self.open_rows().filter(|(_, row)| row.can_prefill()).map(|(seq, row)| (seq, row.to_prefill())).collect();
        let left: Vec<u32> = prompts.iter().map(|(_, left)| *left).collect();
        for ((seq, left), len) in prompts.into_iter().zip(share(self.limits.step_tokens.max(1), &left)) {
            let last = len == left;
            let Some(row) = self.rows.get_mut(&seq) else { continue };
            if len == 0 || last && room == 0 {
                continue;
            }
            plan.prefill.push(PrefillChunk { seq, start: row.prefilled, len, last });
            row.prefilled += len;
            if last {
                room -= 1;
                row.planned += 1;
            }
        }
        if !plan.is_empty() {
            self.in_flight.push_back(plan.clone());
        }
        plan
    }

    /// Takes what the oldest step in flight chose. Returns the sequences to which it owed a token and gave none: they
    /// cannot go on, and the driver ends them.
    pub fn collected(&mut self, sampled: &[Sampled]) -> Vec<SeqId> {
        let Some(step) = self.in_flight.pop_front() else { return Vec::new() };
        let mut owed: Vec<SeqId> = step.choosing().filter(|seq| self.rows.contains_key(seq)).collect();
        owed.retain(|seq| !sampled.iter().any(|token| token.seq == *seq));
        owed
    }

    /// Takes the newest step back: it was refused, so nothing of it is computed.
    pub fn withdraw(&mut self) {
        let Some(step) = self.in_flight.pop_back() else { return };
        for seq in step.choosing() {
            if let Some(row) = self.rows.get_mut(&seq) {
                row.planned = row.planned.saturating_sub(1);
            }
        }
        for chunk in &step.prefill {
            if let Some(row) = self.rows.get_mut(&chunk.seq) {
                row.prefilled = chunk.start;
            }
        }
    }

    /// The oldest step in flight came to nothing. Its sequences are forgotten here, and returned youngest first: the
    /// driver closes them and [`resubmit`](Self::resubmit)s those that can go on.
    pub fn discard(&mut self) -> Vec<SeqId> {
        let Some(step) = self.in_flight.pop_front() else { return Vec::new() };
        let named: Vec<SeqId> = step.decode.iter().copied().chain(step.prefill.iter().map(|chunk| chunk.seq)).collect();
        let lost: Vec<SeqId> = self.open.iter().rev().copied().filter(|seq| named.contains(seq)).collect();
        for seq in &lost {
            self.end(*seq);
        }
        lost
    }

    /// The device failed: nothing is in flight any more, and the open sequences are forgotten here and returned. Who
    /// waits waits on.
    pub fn lose_all(&mut self) -> Vec<SeqId> {
        self.in_flight.clear();
        let lost = self.open.clone();
        for seq in &lost {
            self.end(*seq);
        }
        lost
    }
}

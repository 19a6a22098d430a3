//! Who waits for another's prompt because its own begins alike; must not know what prompts say.
//!
//! Answers of one request (`n`), and requests of one agent, come at the same time with the same long prompt. Computed side
//! by side, each would compute all of it; so one goes first, and the others are let in once what they share is there to be
//! reused. Nobody loses by that: what they wait for is what they would compute themselves in that time.

use super::{
    Scheduler,
    row::{Phase, Row},
};
use crate::decoder::SeqId;

/// Shared tokens, not computed yet, for which a sequence waits. Unit: tokens; default 32; a guess: below it a prompt costs
/// no step of its own. More of it: more is computed twice.
const LEAST_SHARED: u32 = 32;

/// What a sequence in the line does about prompts that begin like its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follow {
    /// Has not looked yet.
    Unasked,
    /// Waits until this many tokens of that sequence's prompt are on their way.
    Behind(SeqId, u32),
    /// Has waited, and does so no more, so nobody is passed for ever.
    Done,
}

impl Scheduler {
    /// Whether `seq`, in the line, lets others pass because what it shares with one of them is about to be computed.
    /// `shared` tells how many tokens two sequences begin with in common.
    pub(super) fn follows(&mut self, seq: SeqId, shared: &impl Fn(SeqId, SeqId) -> u32) -> bool {
        let Some(row) = self.rows.get(&seq) else { return false };
        let next = match row.follow {
            Follow::Done => return false,
            Follow::Behind(leader, until) if self.is_coming(leader, until) => return true,
            Follow::Behind(leader, _) if self.rows.get(&leader).is_some_and(|row| !row.paused) => Follow::Done,
            // Whoever it waited for is gone, or does not read.
            Follow::Behind(..) | Follow::Unasked => self.leader(seq, row.prompt, shared),
        };
        if let Some(row) = self.rows.get_mut(&seq) {
            row.follow = next;
        }
        matches!(next, Follow::Behind(..))
    }

    /// Whether these tokens of an open sequence's prompt are not on their way yet, and will be.
    fn is_coming(&self, leader: SeqId, until: u32) -> bool {
        let leader = self.rows.get(&leader).filter(|row| row.phase != Phase::Waiting && !row.paused);
        leader.is_some_and(|row| row.prefilled < until)
    }

    /// Behind whom a prompt goes best: who has most in common with it, if that is not there already.
    fn leader(&self, seq: SeqId, prompt: u32, shared: &impl Fn(SeqId, SeqId) -> u32) -> Follow {
        // The last token of a prompt is computed in any case.
        let common = |other, row: &Row| shared(seq, other).min(row.prompt).min(prompt.saturating_sub(1));
        let mut best: Option<(u32, SeqId)> = None;
        for (other, row) in self.open_rows().filter(|(_, row)| row.to_prefill() >= LEAST_SHARED) {
            let until = common(other, row);
            if best.is_none_or(|(most, _)| until > most) && self.is_coming(other, until) {
                best = Some((until, other));
            }
        }
        let Some((until, leader)) = best else { return Follow::Unasked };
        let there = self.open_rows().map(|(other, row)| common(other, row).min(row.prefilled)).max();
        match until >= there.unwrap_or(0).saturating_add(LEAST_SHARED) {
            true => Follow::Behind(leader, until),
            false => Follow::Unasked,
        }
    }
}

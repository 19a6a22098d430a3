//! One sequence as the scheduler counts it; must not know the others.

use super::follow::Follow;

/// Answer tokens for which room is kept free when a sequence is admitted, for itself and for each that runs. Unit:
/// tokens; default 256; a guess at a short chat answer. More of it: fewer preemptions, and fewer sequences side by
/// side.
pub(super) const RESERVE_TOKENS: u32 = 256;

/// How far a sequence came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// In the line.
    Waiting,
    /// Has a place; the decoder has not said yet how much of the prompt it has.
    Opening,
    /// Is computed.
    Open,
}

/// Counts of one sequence, in tokens.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Tokens of the prompt, at least one.
    pub(super) prompt: u32,
    /// Most tokens to choose, at least one; prompt and these are within the ceiling.
    pub(super) most: u32,
    /// Prompt tokens submitted, or covered when it was opened.
    pub(super) prefilled: u32,
    /// Answer tokens that submitted steps choose, read or not.
    pub(super) planned: u32,
    /// Where it is.
    pub(super) phase: Phase,
    /// Whether its client does not read.
    pub(super) paused: bool,
    /// Whether it waits for another's prompt.
    pub(super) follow: Follow,
}

impl Row {
    pub(super) fn new(prompt: u32, most: u32) -> Self {
        Self { prompt, most, prefilled: 0, planned: 0, phase: Phase::Waiting, paused: false, follow: Follow::Unasked }
    }

    /// Prompt tokens not submitted yet.
    pub(super) fn to_prefill(&self) -> u32 {
        self.prompt.saturating_sub(self.prefilled)
    }

    /// Whether any step may name it.
    pub(super) fn can_run(&self) -> bool {
        self.phase == Phase::Open && !self.paused && self.planned < self.most
    }

    /// Whether the next step can choose a token from the one chosen last.
    pub(super) fn can_decode(&self) -> bool {
        self.can_run() && self.to_prefill() == 0
    }

    /// Whether the next step can compute some of its prompt.
    pub(super) fn can_prefill(&self) -> bool {
        self.can_run() && self.to_prefill() > 0
    }

    /// What it is charged with.
    pub(super) fn held(&self) -> u64 {
        u64::from(self.prompt) + u64::from(self.planned)
    }

    /// What it is charged with, and what it is about to take.
    pub(super) fn outlook(&self) -> u64 {
        u64::from(self.prompt) + u64::from(self.planned.saturating_add(RESERVE_TOKENS).min(self.most))
    }
}

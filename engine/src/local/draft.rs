//! One answer as far as it came: tokens in, pieces and its end out; must not know clients, sequences or threads.

use std::collections::BTreeSet;

use mesh_proto::{FinishReason, GenerateError, TokenId};

use crate::text::{Answer, Piece};

/// How an answer ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) reason: FinishReason,
    /// The stop string that was met, if one was.
    pub(super) stop: Option<String>,
}

/// What a [`Draft`] begins with.
pub(super) struct Opening {
    pub(super) prompt: Vec<TokenId>,
    /// Tokens of the answer that the client has already.
    pub(super) resume: Vec<TokenId>,
    pub(super) max_tokens: Option<u32>,
    /// Most tokens of prompt and answer.
    pub(super) ceiling_tokens: u32,
    pub(super) ignore_eos: bool,
}

/// An answer being written.
#[derive(Debug)]
pub(super) struct Draft {
    /// The prompt, and the answer so far.
    pub(super) tokens: Vec<TokenId>,
    pub(super) prompt_tokens: u32,
    /// Tokens of the answer that were there from the start.
    pub(super) resumed: u32,
    /// Most tokens of the answer; within the context.
    most: u32,
    ignore_eos: bool,
    answer: Answer,
    /// It was over before it began: nothing was asked for, or the resumed tokens end it.
    end: Option<End>,
}

impl Draft {
    /// Starts an answer, or goes on with one: the parser reads what the client has again, and what that settles is
    /// thrown away, so all that follows comes as it would have come there. Microseconds a token: not for an async
    /// thread.
    ///
    /// # Errors
    /// `ContextOverflow`; or `Invalid`, naming `resume`, where the resumed tokens are none of such an answer.
    pub(super) fn open(opening: Opening, answer: Answer, eos: &BTreeSet<TokenId>) -> Result<Self, GenerateError> {
        let Opening { prompt, resume, max_tokens, ceiling_tokens, ignore_eos } = opening;
        let prompt_tokens = count(&prompt);
        let resumed = count(&resume);
        if let Some(most) = max_tokens
            && resumed > most
        {
            return Err(no_resume(format!("it has {resumed} tokens, and max_tokens is {most}")));
        }
        let there = prompt_tokens.saturating_add(resumed);
        if prompt_tokens >= ceiling_tokens || there > ceiling_tokens {
            return Err(GenerateError::ContextOverflow { prompt_tokens: there, context_tokens: ceiling_tokens });
        }
        let most = max_tokens.unwrap_or(u32::MAX).min(ceiling_tokens - prompt_tokens);
        let end = (most == 0).then_some(End { reason: FinishReason::Length, stop: None });
        let mut draft = Self { tokens: prompt, prompt_tokens, resumed, most, ignore_eos, answer, end };
        let mut pieces = Vec::new();
        for (at, token) in (1..).zip(resume) {
            draft.end = draft.push(token, eos, &mut pieces);
            pieces.clear();
            if draft.end.is_some() && at < resumed {
                let more = resumed - at;
                return Err(no_resume(format!("the answer ends with token {at} of it, and {more} more follow")));
            }
        }
        Ok(draft)
    }

    /// Reads the next token; what it settles is appended to `pieces`. Says how the answer ends with it, if it does.
    pub(super) fn push(&mut self, token: TokenId, eos: &BTreeSet<TokenId>, pieces: &mut Vec<Piece>) -> Option<End> {
        self.tokens.push(token);
        if eos.contains(&token) && !self.ignore_eos {
            return Some(End { reason: FinishReason::Stop, stop: None });
        }
        self.answer.push(token, pieces);
        let stop = take_stop(pieces);
        let reason = if stop.is_some() { FinishReason::Stop } else { FinishReason::Length };
        (stop.is_some() || self.left() == 0).then_some(End { reason, stop })
    }

    /// Closes it: what was held back is appended to `pieces`, and how it ends may change with that.
    pub(super) fn finish(&mut self, end: End, pieces: &mut Vec<Piece>) -> End {
        self.answer.finish(pieces);
        let stop = end.stop.or_else(|| take_stop(pieces));
        let reason = match end.reason {
            _ if stop.is_some() => FinishReason::Stop,
            FinishReason::Stop if self.answer.called_tools() => FinishReason::ToolCalls,
            reason => reason,
        };
        End { reason, stop }
    }

    /// How it ended before it began, if it did; told once.
    pub(super) fn take_end(&mut self) -> Option<End> {
        self.end.take()
    }

    /// Tokens of prompt and answer so far.
    pub(super) fn len(&self) -> u32 {
        count(&self.tokens)
    }

    /// Tokens of the answer so far.
    pub(super) fn generated(&self) -> u32 {
        self.len() - self.prompt_tokens
    }

    /// Tokens that may still come.
    pub(super) fn left(&self) -> u32 {
        self.most.saturating_sub(self.generated())
    }

    /// Tokens spent on reasoning so far.
    pub(super) fn reasoning_tokens(&self) -> u32 {
        self.answer.reasoning_tokens()
    }
}

/// A stop string that was met comes last.
fn take_stop(pieces: &mut Vec<Piece>) -> Option<String> {
    match pieces.pop() {
        Some(Piece::Stop(stop)) => Some(stop),
        other => {
            pieces.extend(other);
            None
        }
    }
}

fn count(tokens: &[TokenId]) -> u32 {
    u32::try_from(tokens.len()).unwrap_or(u32::MAX)
}

fn no_resume(message: String) -> GenerateError {
    GenerateError::invalid("resume", message)
}

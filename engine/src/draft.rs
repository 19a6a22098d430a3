//! One answer as far as it came: tokens in, events and its end out; must not know clients, sequences or threads.

mod budget;
mod telling;

use std::{collections::BTreeSet, sync::Arc};

use budget::Closing;
use mesh_proto::{Event, FinishReason, GenerateError, TokenId, Usage};
use telling::Telling;

pub use budget::Budget;

use crate::{
    decoder::Odds,
    text::{Answer, Piece, TextModel},
};

/// Stands for a token that an engine did not tell. No vocabulary has it, so no engine resumes from it.
pub const UNTOLD: TokenId = TokenId(u32::MAX);

/// How an answer ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Why.
    pub reason: FinishReason,
    /// The stop string that was met, if one was.
    pub stop: Option<String>,
}

impl End {
    /// The model ended, or its grammar did.
    pub const STOP: Self = Self { reason: FinishReason::Stop, stop: None };
}

/// What a [`Draft`] begins with.
#[derive(Clone, Debug, Default)]
pub struct Opening {
    /// The prompt, at least one token.
    pub prompt: Vec<TokenId>,
    /// Tokens of the answer that the client has already.
    pub resume: Vec<TokenId>,
    /// Most tokens of the answer; `None`: up to the ceiling.
    pub max_tokens: Option<u32>,
    /// Most tokens of prompt and answer.
    pub ceiling_tokens: u32,
    /// Go on past tokens that end the answer.
    pub ignore_eos: bool,
    /// When and how reasoning is cut short.
    pub budget: Option<Budget>,
    /// What spells tokens, where the events are to tell how likely each one was.
    pub spell: Option<Arc<TextModel>>,
}

/// An answer being written.
#[derive(Debug)]
pub struct Draft {
    /// The prompt, and the answer so far.
    tokens: Vec<TokenId>,
    prompt_tokens: u32,
    /// Tokens of the answer that were there from the start.
    resumed: u32,
    /// Most tokens of the answer; within the context.
    most: u32,
    ignore_eos: bool,
    answer: Answer,
    /// It was over before it began: nothing was asked for, or the resumed tokens end it.
    end: Option<End>,
    /// Tokens since the last ones that were told.
    since: Vec<TokenId>,
    pieces: Vec<Piece>,
    closing: Option<Closing>,
    /// Tokens up to the last one that was forced, prompt included; 0: none was.
    forced_to: u32,
    telling: Telling,
}

impl Draft {
    /// Starts an answer, or goes on with one: the parser reads what the client has again, and what that settles is
    /// thrown away, so all that follows comes as it would have come there. Microseconds a token: not for an async
    /// thread.
    ///
    /// # Errors
    /// `ContextOverflow`; or `Invalid`, naming `resume`, where the resumed tokens are none of such an answer.
    pub fn open(opening: Opening, answer: Answer, eos: &BTreeSet<TokenId>) -> Result<Self, GenerateError> {
        let Opening { prompt, resume, max_tokens, ceiling_tokens, ignore_eos, budget, spell } = opening;
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
        let mut draft = Self {
            tokens: prompt,
            prompt_tokens,
            resumed,
            most,
            ignore_eos,
            answer,
            end,
            since: Vec::new(),
            pieces: Vec::new(),
            closing: budget.map(Closing::new),
            forced_to: 0,
            telling: Telling::new(spell),
        };
        for (at, token) in (1..).zip(resume) {
            draft.end = draft.push(token, eos);
            draft.pieces.clear();
            if draft.end.is_some() && at < resumed {
                let more = resumed - at;
                return Err(no_resume(format!("the answer ends with token {at} of it, and {more} more follow")));
            }
        }
        Ok(draft)
    }

    /// The next token of the answer, and how likely it was, where that is known and asked for; what it settles is appended
    /// to `out`. Says how the answer ends with it, if it does: [`Draft::finish`] is to follow then.
    pub fn take(
        &mut self,
        token: TokenId,
        odds: Option<Odds>,
        eos: &BTreeSet<TokenId>,
        out: &mut Vec<Event>,
    ) -> Option<End> {
        self.since.push(token);
        let end = self.push(token, eos);
        let is_text = self.ignore_eos || !eos.contains(&token);
        if let Some(odds) = odds.filter(|_| is_text) {
            self.telling.push(token, odds);
        }
        self.say(end.as_ref().is_some_and(|end| end.stop.is_some()), out);
        end
    }

    /// Text whose tokens nobody told, `count` of them at least 1: [`UNTOLD`] stands for each, and nobody can resume
    /// behind them.
    pub fn take_untold(&mut self, text: &str, count: u32, out: &mut Vec<Event>) -> Option<End> {
        for _ in 0..count {
            self.since.push(UNTOLD);
            self.tokens.push(UNTOLD);
        }
        self.answer.push_text(text, count, &mut self.pieces);
        let end = self.end_of_token();
        self.say(end.as_ref().is_some_and(|end| end.stop.is_some()), out);
        end
    }

    fn push(&mut self, token: TokenId, eos: &BTreeSet<TokenId>) -> Option<End> {
        let is_forced = self.forced() == Some(token);
        self.tokens.push(token);
        if is_forced {
            self.forced_to = self.len();
        }
        if eos.contains(&token) && !self.ignore_eos {
            return Some(End::STOP);
        }
        self.answer.push(token, &mut self.pieces);
        if let Some(closing) = &mut self.closing {
            closing.took(token, &self.answer, &self.pieces);
        }
        self.end_of_token()
    }

    fn end_of_token(&mut self) -> Option<End> {
        let stop = take_stop(&mut self.pieces);
        let reason = if stop.is_some() { FinishReason::Stop } else { FinishReason::Length };
        (stop.is_some() || self.left() == 0).then_some(End { reason, stop })
    }

    /// Tells the pieces that are settled. The last of them takes the tokens: who has these has all that they settled.
    /// `stopped`: behind them a stop string was met.
    fn say(&mut self, stopped: bool, out: &mut Vec<Event>) {
        let last = self.pieces.len().saturating_sub(1);
        for (at, piece) in self.pieces.drain(..).enumerate() {
            let (mut tokens, mut logprobs) = (Vec::new(), Vec::new());
            if at == last {
                tokens = std::mem::take(&mut self.since);
                logprobs = self.telling.told(&piece, stopped);
            }
            match piece {
                Piece::Text { channel, text } => out.push(Event::Text { channel, text, tokens, logprobs }),
                Piece::ToolCall(delta) => out.push(Event::ToolCall { delta, tokens, logprobs }),
                // `take_stop` keeps these.
                Piece::Stop(_) => {}
            }
        }
    }

    /// Closes it: what was held back and `Finished` are appended to `out`; how it ends may change with that.
    /// `cached_tokens`: of the prompt, not computed again.
    pub fn finish(&mut self, end: End, cached_tokens: u32, out: &mut Vec<Event>) -> FinishReason {
        // `Finished` closes what comes now: with tokens, a client that resumes behind these would be told it twice.
        self.since.clear();
        self.answer.finish(&mut self.pieces);
        let stop = end.stop.or_else(|| take_stop(&mut self.pieces));
        self.say(stop.is_some(), out);
        let reason = match end.reason {
            _ if stop.is_some() => FinishReason::Stop,
            FinishReason::Stop if self.answer.called_tools() => FinishReason::ToolCalls,
            reason => reason,
        };
        out.push(Event::Finished { reason, stop, usage: self.usage(cached_tokens) });
        reason
    }

    /// What it cost so far.
    pub fn usage(&self, cached_tokens: u32) -> Usage {
        Usage {
            prompt_tokens: self.prompt_tokens,
            cached_tokens,
            completion_tokens: self.generated(),
            reasoning_tokens: self.answer.reasoning_tokens(),
        }
    }

    /// Whether it ended before it began.
    pub fn is_over(&self) -> bool {
        self.end.is_some()
    }

    /// How it ended before it began, if it did; told once.
    pub fn take_end(&mut self) -> Option<End> {
        self.end.take()
    }

    /// It ends here, before anything more is computed: [`Draft::take_end`] tells it.
    pub fn end_here(&mut self, end: End) {
        self.end.get_or_insert(end);
    }

    /// The token that must come next, where reasoning is being closed.
    pub fn forced(&self) -> Option<TokenId> {
        self.closing.as_ref().and_then(|closing| closing.forced(&self.answer))
    }

    /// Tokens of the answer up to the last one that was forced.
    pub fn forced_to(&self) -> u32 {
        self.forced_to.saturating_sub(self.prompt_tokens)
    }

    /// Whether one of the next tokens could be forced, `ahead` more of which are on their way.
    pub fn may_be_forced(&self, ahead: u32) -> bool {
        self.closing.as_ref().is_some_and(|closing| closing.may_force(&self.answer, self.generated(), ahead))
    }

    /// The prompt, and the answer so far.
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// Tokens of the prompt.
    pub fn prompt_tokens(&self) -> u32 {
        self.prompt_tokens
    }

    /// Tokens of the answer that were there from the start.
    pub fn resumed(&self) -> u32 {
        self.resumed
    }

    /// Tokens of prompt and answer so far.
    #[expect(clippy::len_without_is_empty, reason = "a prompt has at least one")]
    pub fn len(&self) -> u32 {
        count(&self.tokens)
    }

    /// Tokens of the answer so far.
    pub fn generated(&self) -> u32 {
        self.len() - self.prompt_tokens
    }

    /// Tokens that may still come.
    pub fn left(&self) -> u32 {
        self.most.saturating_sub(self.generated())
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

//! Reasoning that is cut short: when, and with which tokens; must not know grammars or devices.

use std::sync::Arc;

use mesh_proto::{Channel, GenerateError, Prompt, TokenId};

use crate::text::{Answer, Piece, TextModel};

/// Most reasoning, and how it is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// At so many tokens of reasoning it is closed.
    pub tokens: u32,
    /// What closes it, one token after the other.
    pub close: Arc<[TokenId]>,
}

impl Budget {
    /// When and how this prompt's reasoning is cut short, if it is. `encode` makes tokens of what closes it.
    ///
    /// # Errors
    /// `encode`'s own.
    pub fn of(
        prompt: &Prompt,
        text: &TextModel,
        encode: impl FnOnce(&str) -> Result<Vec<TokenId>, GenerateError>,
    ) -> Result<Option<Self>, GenerateError> {
        let Prompt::Chat(chat) = prompt else { return Ok(None) };
        let (Some(tokens), Some(close)) = (chat.reasoning_budget, text.reasoning_close()) else { return Ok(None) };
        Ok(Some(Self { tokens, close: encode(close)?.into() }))
    }
}

/// A budget being kept. It follows from the tokens alone, so that an answer that goes on elsewhere is closed at the same
/// one.
#[derive(Debug)]
pub(super) struct Closing {
    budget: Budget,
    /// How many of the closing tokens came, in a row.
    came: usize,
    /// There is nothing to close any more.
    over: bool,
}

impl Closing {
    pub(super) fn new(budget: Budget) -> Self {
        Self { over: budget.close.is_empty(), budget, came: 0 }
    }

    /// The answer took one more token, which settled these pieces.
    pub(super) fn took(&mut self, token: TokenId, answer: &Answer, settled: &[Piece]) {
        if self.over {
            return;
        }
        // Where they come by themselves, or before the budget is spent, they close it just as well.
        self.came = match self.budget.close.get(self.came) {
            Some(next) if *next == token => self.came + 1,
            _ => usize::from(self.budget.close.first() == Some(&token)),
        };
        let says = |piece: &Piece| match piece {
            Piece::Text { channel, text } => *channel == Channel::Content && !text.trim().is_empty(),
            _ => true,
        };
        let closed = !answer.is_reasoning() && answer.reasoning_tokens() > 0;
        self.over = closed || self.came == self.budget.close.len() || settled.iter().any(says);
    }

    /// The token that must come next.
    pub(super) fn forced(&self, answer: &Answer) -> Option<TokenId> {
        let spent = answer.is_reasoning() && answer.reasoning_tokens() >= self.budget.tokens;
        self.budget.close.get(self.came).copied().filter(|_| !self.over && spent)
    }

    /// Whether a token must perhaps be forced once `ahead` more have come, of an answer with `generated` tokens.
    pub(super) fn may_force(&self, answer: &Answer, generated: u32, ahead: u32) -> bool {
        // What opens reasoning counts as reasoning from the answer's start, once it is seen to be that.
        let most = if answer.is_reasoning() { answer.reasoning_tokens() } else { generated };
        !self.over && most.saturating_add(ahead) >= self.budget.tokens
    }
}

//! How a request's next token is to be chosen, as far as that follows from its text; must not know batches.

use std::{collections::BTreeSet, sync::Arc};

use mesh_proto::TokenId;

use crate::{
    constrain::Guide,
    decoder::{Ban, SeqId, Steering, TokenSet},
    draft::Draft,
    dry::Repetition,
};

/// Steps that may be on their way when a row's next one is planned, the planned one included: as far ahead a row must
/// know that it will be steered.
const AHEAD: u32 = 2;

/// What a request asks of its tokens beyond what a decoder sees to.
#[derive(Debug, Default)]
pub(super) struct Steer {
    pub(super) guide: Option<Guide>,
    pub(super) dry: Option<Repetition>,
    /// Answer tokens before one that ends the answer may be chosen.
    pub(super) min_tokens: u32,
    /// What ends an answer.
    pub(super) eos: Arc<BTreeSet<TokenId>>,
}

impl Steer {
    /// Whether the next choice may need [`steering`](Self::steering), while tokens are still on their way.
    pub(super) fn is_needed(&self, draft: &Draft) -> bool {
        self.guide.is_some() || self.dry.is_some() || draft.may_be_forced(AHEAD)
    }

    /// What is said of the next choice, all tokens before it being read.
    pub(super) fn steering(&mut self, seq: SeqId, draft: &Draft) -> Result<Option<Steering>, String> {
        let addends = self.dry.as_mut().map_or_else(Vec::new, |dry| dry.addends(draft.tokens()));
        let mut allowed = match &mut self.guide {
            Some(guide) => Some(guide.allowed()?.clone()),
            None => None,
        };
        if let Some(allowed) = allowed.as_mut().filter(|_| draft.generated() < self.min_tokens) {
            self.postpone_end(allowed);
        }
        if let Some(token) = draft.forced()
            && allowed.as_ref().is_none_or(|allowed| allowed.has(token))
        {
            allowed = Some(TokenSet::only(token));
        }
        let said = !addends.is_empty() || allowed.is_some();
        Ok(said.then_some(Steering { seq, addends, allowed }))
    }

    /// Takes the end out of what a grammar allows, unless it allows nothing else.
    fn postpone_end(&self, allowed: &mut TokenSet) {
        let mut longer = allowed.clone();
        self.eos.iter().for_each(|token| longer.remove(*token));
        if !longer.is_empty() {
            *allowed = longer;
        }
    }

    /// What the decoder must not choose yet. Where a grammar says what may be chosen, that is seen to here.
    pub(super) fn ban(&self, prompt_tokens: u32) -> Option<Ban> {
        let wanted = self.min_tokens > 0 && self.guide.is_none() && !self.eos.is_empty();
        let before = u64::from(prompt_tokens) + u64::from(self.min_tokens);
        wanted.then(|| Ban { tokens: self.eos.iter().copied().collect(), before })
    }

    /// The answer's next token. Says whether the answer ends with it by its grammar.
    pub(super) fn take(&mut self, token: TokenId) -> Result<bool, String> {
        self.guide.as_mut().map_or(Ok(false), |guide| guide.take(token))
    }

    /// Begins to compute what the next choice needs.
    pub(super) fn look_ahead(&mut self) {
        if let Some(guide) = &mut self.guide {
            guide.look_ahead();
        }
    }
}

//! A request made ready for the worker: template, tokens, grammar; must not know threads or places.

use std::{collections::BTreeSet, sync::Arc};

use jiff::civil::DateTime;
use mesh_proto::{GenerateError, GenerateRequest, TokenId};

use crate::{
    arrival,
    constrain::{Grammars, Guide},
    draft::{Budget, Draft, End, Opening},
    dry::Repetition,
    local::{request::Choice, steer::Steer},
    text::{TextModel, TextRequest},
};

/// What all requests of an engine share.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) text: Arc<TextModel>,
    pub(super) grammars: Grammars,
    pub(super) eos: Arc<BTreeSet<TokenId>>,
    pub(super) vocab_size: u32,
    /// Most tokens of prompt and answer.
    pub(super) ceiling_tokens: u32,
}

impl Model {
    /// Renders, tokenises and compiles; milliseconds to a second: not for an async thread. `now` is what templates tell.
    pub(super) fn prepare(&self, request: GenerateRequest, now: DateTime) -> Result<(Draft, Choice), GenerateError> {
        let prepared = self.text.prepare(TextRequest::from(&request), now)?;
        arrival::in_vocabulary("prompt", &prepared.tokens, self.vocab_size)?;
        let answer = self.text.answer(&prepared, &request.stop);
        let guide = match &prepared.grammar {
            Some(grammar) => {
                let wrong = |error| GenerateError::invalid(arrival::field_of_grammar(&request), error);
                Some(self.grammars.guide(grammar).map_err(wrong)?)
            }
            None => None,
        };
        let budget = Budget::of(&request.prompt, &self.text, |close| self.text.encode(close, false))?;
        let GenerateRequest { mut sampling, max_tokens, ignore_eos, resume, logprobs, min_tokens, .. } = request;
        let opening = Opening {
            prompt: prepared.tokens,
            resume,
            max_tokens,
            ceiling_tokens: self.ceiling_tokens,
            ignore_eos,
            budget,
            spell: logprobs.map(|_| self.text.clone()),
        };
        let mut draft = Draft::open(opening, answer, &self.eos)?;
        let guide = guide.map(|guide| follow(guide, &mut draft)).transpose()?;
        sampling.seed.get_or_insert_with(arrival::draw_seed);
        let dry = sampling.dry.clone().map(|dry| Repetition::new(dry, self.text.clone()));
        let steer = Steer { guide, dry, min_tokens, eos: self.eos.clone() };
        Ok((draft, Choice { sampling, logprobs, steer, pool: None }))
    }
}

/// A grammar behind the tokens that the client has already.
fn follow(mut guide: Guide, draft: &mut Draft) -> Result<Guide, GenerateError> {
    let from = draft.prompt_tokens() as usize;
    let said = draft.tokens().get(from..).unwrap_or_default().to_vec();
    if draft.is_over() {
        // How it ended is known, and nothing more will be asked of the grammar.
        return Ok(guide);
    }
    for (at, token) in (1..).zip(&said) {
        let no_resume = |error| {
            let message = format!("token {at} of it is none that the asked-for form allows: {error}");
            GenerateError::invalid("resume", message)
        };
        if guide.take(*token).map_err(no_resume)? {
            if at < said.len() {
                let message = format!("the answer is complete with token {at} of it, and {} follow", said.len() - at);
                return Err(GenerateError::invalid("resume", message));
            }
            draft.end_here(End::STOP);
        }
    }
    Ok(guide)
}

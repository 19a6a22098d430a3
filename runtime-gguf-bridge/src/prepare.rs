//! A request made ready for llama-server: template, tokens, grammar; must not know streams or places.

use std::sync::Arc;

use engine::{
    arrival,
    draft::{Budget, Draft, Opening},
    text::TextRequest,
};
use jiff::civil::DateTime;
use mesh_proto::{GenerateError, GenerateRequest, Sampling};
use tokio::runtime::Handle;

use crate::engine::Shared;

/// What llama-server is asked for, each time it is.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) sampling: Sampling,
    pub(crate) ignore_eos: bool,
    pub(crate) logprobs: Option<u8>,
    /// What the answer must look like, in GBNF. It is followed from the answer's start.
    pub(crate) grammar: Option<String>,
    /// Begun again from its start where it has to go on: it is sampled with a seed that somebody asked for, and the same
    /// seed must give the same tokens; or it follows a grammar.
    pub(crate) exact: bool,
    /// Answer tokens before one that ends the answer may be chosen.
    pub(crate) min_tokens: u32,
}

impl Shared {
    /// Renders, tokenises and converts; asks llama-server, and waits for it: not for an async thread. `now` is what
    /// templates tell.
    pub(crate) fn prepare(
        self: &Arc<Self>,
        request: GenerateRequest,
        now: DateTime,
        (vocab_size, ceiling_tokens): (u32, u32),
        runtime: &Handle,
    ) -> Result<(Draft, Ask), GenerateError> {
        let encode = |text: &str, specials: bool| runtime.block_on(self.tokenize(text, specials));
        let prepared = self.text.prepare_with(TextRequest::from(&request), now, encode)?;
        arrival::in_vocabulary("prompt", &prepared.tokens, vocab_size)?;
        let field = arrival::field_of_grammar(&request);
        let grammar = prepared.grammar.as_ref().map(|grammar| runtime.block_on(self.grammar(grammar, field)));
        let grammar = grammar.transpose()?;
        let budget = Budget::of(&request.prompt, &self.text, |close| encode(close, false))?;
        // Both take an answer that is asked for in portions, and a grammar begins with each anew.
        let both = [("min_tokens", request.min_tokens > 0), ("reasoning_budget", budget.is_some())];
        if let (Some(_), Some((both, _))) = (&grammar, both.iter().find(|(_, asked)| *asked)) {
            let message =
                format!("`{both}` beside `{field}`: this model runs in llama-server, which cannot keep to both");
            return Err(GenerateError::invalid(*both, message));
        }
        let GenerateRequest { mut sampling, max_tokens, min_tokens, ignore_eos, resume, logprobs, seed_drawn, .. } =
            request;
        let answer = self.text.answer(&prepared, &request.stop);
        let opening = Opening {
            prompt: prepared.tokens,
            resume,
            max_tokens,
            ceiling_tokens,
            ignore_eos,
            budget,
            spell: logprobs.map(|_| self.text.clone()),
        };
        let draft = Draft::open(opening, answer, &Default::default())?;
        let exact = grammar.is_some() || (sampling.seed.is_some() && !seed_drawn && sampling.draws());
        sampling.seed.get_or_insert_with(arrival::draw_seed);
        // Where nothing ends an answer, nothing needs to be kept from ending it.
        let min_tokens = if ignore_eos { 0 } else { min_tokens };
        Ok((draft, Ask { sampling, ignore_eos, logprobs, grammar, exact, min_tokens }))
    }
}

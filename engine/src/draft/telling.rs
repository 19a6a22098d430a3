//! How likely tokens were, on their way to the events of their text; must not know how that is computed.

use std::sync::Arc;

use mesh_proto::{Likelihood, TokenId, TokenLogprob};

use crate::{
    decoder::Odds,
    text::{Piece, TextModel},
};

/// Tokens of which it was not told yet how likely they were.
#[derive(Debug)]
pub(super) struct Telling {
    spell: Option<Arc<TextModel>>,
    pending: Vec<TokenLogprob>,
}

impl Telling {
    /// With nothing to spell tokens, nothing is told.
    pub(super) fn new(spell: Option<Arc<TextModel>>) -> Self {
        Self { spell, pending: Vec::new() }
    }

    /// One more token of the answer.
    pub(super) fn push(&mut self, token: TokenId, odds: Odds) {
        let Some(text) = &self.spell else { return };
        let likelihood = |(token, logprob): (TokenId, f32)| {
            let name = || text.token_name(token).unwrap_or_default().into_bytes();
            Likelihood { token, bytes: text.token_bytes(token).map_or_else(name, <[u8]>::to_vec), logprob }
        };
        let chosen = likelihood((token, odds.chosen));
        self.pending.push(TokenLogprob { chosen, top: odds.top.into_iter().map(likelihood).collect() });
    }

    /// Those that go with the last piece that the newest token settled: all there are, as with the tokens themselves. If
    /// it `stopped` the answer, the tokens of the stop string are left out.
    pub(super) fn told(&mut self, piece: &Piece, stopped: bool) -> Vec<TokenLogprob> {
        let all = std::mem::take(&mut self.pending);
        match piece {
            Piece::Text { text, .. } if stopped => before_stop(all, text.as_bytes()),
            _ => all,
        }
    }
}

/// The tokens in whose bytes `text` lies, up to the one in which it ends. Where its start was in an earlier token (held
/// back, and told with what came before), only its end is looked for.
fn before_stop(mut all: Vec<TokenLogprob>, text: &[u8]) -> Vec<TokenLogprob> {
    let bytes: Vec<u8> = all.iter().flat_map(|token| token.chosen.bytes.iter().copied()).collect();
    let whole = bytes.windows(text.len().max(1)).position(|window| window == text).map(|at| at + text.len());
    let end = whole.or_else(|| {
        let rest = (0..text.len()).map(|from| &text[from..]).find(|rest| bytes.starts_with(rest))?;
        Some(rest.len())
    });
    let Some(end) = end else { return Vec::new() };
    let mut start = 0;
    all.retain(|token| {
        let begins_before = start < end;
        start += token.chosen.bytes.len();
        begins_before
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(texts: &[&str]) -> Vec<TokenLogprob> {
        let token = |text: &&str| TokenLogprob {
            chosen: Likelihood { token: TokenId(0), bytes: text.as_bytes().to_vec(), logprob: 0.0 },
            top: Vec::new(),
        };
        texts.iter().map(token).collect()
    }

    fn kept(texts: &[&str], said: &str) -> usize {
        before_stop(tokens(texts), said.as_bytes()).len()
    }

    #[test]
    fn tokens_of_a_stop_string_are_not_told() {
        assert_eq!(kept(&["a", "b", "st", "op"], "ab"), 2);
        assert_eq!(kept(&["a", "b s", "top"], "ab "), 2);
        assert_eq!(kept(&["stop"], ""), 0);
        // "x" was held back and its token told before; only " y" and what follows is new.
        assert_eq!(kept(&[" y", "st", "op"], "x y"), 1);
        assert_eq!(kept(&["st", "op"], "x"), 0);
        assert_eq!(kept(&["</think>", "\n", "yes", "stop"], "yes"), 3);
    }
}

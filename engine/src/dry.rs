//! DRY: what would go on with a repetition, and how much that costs; must not know how tokens are chosen.
//!
//! The longest text that ends both here and somewhere before decides: the token that followed there would make it one
//! longer. Texts that end a repetition ("breakers") are looked for in the tokens' bytes, so it does not matter how the
//! tokenizer cut them.

use std::{collections::BTreeMap, sync::Arc};

use mesh_proto::{Dry, TokenId};

use crate::text::TextModel;

/// A penalty's bound, so that logits stay numbers. Unit: logits; far beyond any.
const MAX_PENALTY: f32 = 1e30;

/// One sequence's repetitions. It looks at each token's text once, so its tokens may only grow.
#[derive(Debug)]
pub struct Repetition {
    dry: Dry,
    text: Arc<TextModel>,
    /// Tokens looked at for breakers.
    seen: usize,
    /// One beyond the last token in which a breaker ends.
    broken_at: usize,
}

impl Repetition {
    /// By these parameters.
    pub fn new(dry: Dry, text: Arc<TextModel>) -> Self {
        Self { dry, text, seen: 0, broken_at: 0 }
    }

    /// What is added to which token's logit behind these tokens, prompt and answer. Microseconds for a thousand tokens.
    pub fn addends(&mut self, tokens: &[TokenId]) -> Vec<(TokenId, f32)> {
        self.look_for_breakers(tokens);
        let window = self.dry.last_n.map_or(tokens.len(), |n| (n as usize).min(tokens.len()));
        let unbroken = tokens.len() - self.broken_at;
        let allowed = self.dry.allowed_length as usize;
        if window <= allowed || unbroken < allowed {
            return Vec::new();
        }
        let longest = repetitions(&tokens[tokens.len() - window..], unbroken);
        let penalty = |length: usize| {
            let growth = self.dry.base.powf((length - allowed) as f32);
            (self.dry.multiplier * growth).min(MAX_PENALTY)
        };
        let costly = longest.into_iter().filter(|(_, length)| *length >= allowed && *length > 0);
        costly.map(|(token, length)| (token, -penalty(length))).collect()
    }

    fn look_for_breakers(&mut self, tokens: &[TokenId]) {
        let breakers = || self.dry.breakers.iter().map(String::as_bytes).filter(|breaker| !breaker.is_empty());
        let Some(longest) = breakers().map(<[u8]>::len).max() else { return };
        for at in self.seen..tokens.len() {
            let own = self.spell(tokens[at]);
            // What a breaker that ends in this token may have begun in.
            let mut before: Vec<Vec<u8>> = Vec::new();
            let mut wanted = longest - 1;
            for token in tokens[..at].iter().rev() {
                if wanted == 0 {
                    break;
                }
                let bytes = self.spell(*token);
                wanted = wanted.saturating_sub(bytes.len());
                before.push(bytes);
            }
            before.reverse();
            let mut text = before.concat();
            let start = text.len();
            text.extend(own);
            let ends_here = |breaker: &[u8]| {
                let from = (start + 1).saturating_sub(breaker.len());
                text[from.min(text.len())..].windows(breaker.len()).any(|window| window == breaker)
            };
            if breakers().any(ends_here) {
                self.broken_at = at + 1;
            }
        }
        self.seen = tokens.len();
    }

    fn spell(&self, token: TokenId) -> Vec<u8> {
        let name = || self.text.token_name(token).unwrap_or_default().into_bytes();
        self.text.token_bytes(token).map_or_else(name, <[u8]>::to_vec)
    }
}

/// For each token that followed a repetition of the window's end: the longest such, up to `most` tokens.
fn repetitions(window: &[TokenId], most: usize) -> BTreeMap<TokenId, usize> {
    // The Z function of the reversed window: how many tokens before `i` from the end repeat those before the end.
    let text: Vec<TokenId> = window.iter().rev().copied().collect();
    let mut lengths = vec![0usize; text.len()];
    let (mut left, mut right) = (0, 0);
    let mut longest = BTreeMap::new();
    for i in 1..text.len() {
        let mut length = if i < right { lengths[i - left].min(right - i) } else { 0 };
        while i + length < text.len() && text[length] == text[i + length] {
            length += 1;
        }
        if i + length > right {
            (left, right) = (i, i + length);
        }
        lengths[i] = length;
        if length > 0 {
            let known = longest.entry(text[i - 1]).or_insert(0);
            *known = length.min(most).max(*known);
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::{byte_tokens, write_text_model};

    fn dry(breakers: &[&str]) -> Dry {
        let breakers = breakers.iter().map(|breaker| (*breaker).to_owned()).collect();
        Dry { multiplier: 0.5, base: 2.0, allowed_length: 2, last_n: None, breakers }
    }

    fn text() -> Arc<TextModel> {
        let dir = tempfile::tempdir().unwrap();
        write_text_model(dir.path()).unwrap();
        Arc::new(TextModel::load(dir.path()).unwrap())
    }

    fn addends(dry: Dry, said: &str) -> Vec<(char, f32)> {
        let found = Repetition::new(dry, text()).addends(&byte_tokens(said));
        found.into_iter().map(|(token, addend)| (char::from(token.0 as u8), addend)).collect()
    }

    #[test]
    fn what_went_on_from_the_longest_repetition_costs_most() {
        // " abc" came before "d", "bc" before "x"; "c" alone before "y" is short enough.
        assert_eq!(addends(dry(&[]), "zbcx abcd cy abc"), [('d', -2.0), ('x', -0.5)]);
        assert_eq!(addends(dry(&[]), "abcdef"), []);
        assert_eq!(addends(dry(&[]), ""), []);
    }

    #[test]
    fn a_breaker_ends_a_repetition_however_it_was_cut() {
        assert_eq!(addends(dry(&["\n"]), "ab\ncd ab\ncd"), [(' ', -0.5)]);
        assert_eq!(addends(dry(&["b\nc"]), "ab\ncd ab\ncd"), []);
        assert_eq!(addends(dry(&["d"]), "ab\ncd ab\ncd"), []);
    }

    #[test]
    fn only_the_last_tokens_are_looked_at_and_a_penalty_stays_a_number() {
        assert_eq!(addends(Dry { last_n: Some(4), ..dry(&[]) }, "abcabc"), []);
        assert_eq!(addends(Dry { last_n: Some(0), ..dry(&[]) }, "abcabc"), []);
        assert_eq!(addends(Dry { last_n: Some(6), ..dry(&[]) }, "abcabc"), [('a', -1.0)]);
        assert_eq!(addends(dry(&[]), &"a".repeat(400)), [('a', -MAX_PENALTY)]);
    }

    #[test]
    fn breakers_are_found_as_the_answer_grows() {
        let said = byte_tokens("one two\none two\none");
        let mut growing = Repetition::new(dry(&["\n"]), text());
        for end in 0..=said.len() {
            let fresh = Repetition::new(dry(&["\n"]), text()).addends(&said[..end]);
            assert_eq!(growing.addends(&said[..end]), fresh);
        }
    }
}

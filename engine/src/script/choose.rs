//! What a scripted decoder says where its script's token must not come; must not know sequences.

use mesh_proto::TokenId;

use super::folder::END;
use crate::decoder::{Ban, Odds, Steering};

/// Logit of the token that the script wants; all others have 0.
const WANTED: f32 = 20.0;

/// What comes instead of the wanted token, as far as it may: what ends things, so that a document gets finished. The
/// order lets JSON end soon whatever it has to be: strings are closed, then objects, then lists.
const CLOSING: &[u8] = b"\"}]0";

/// The token with the highest scripted logit among those that may come: the wanted one, or else the first of [`END`],
/// what closes, the lowest that prints, the lowest. `None`: none may.
pub(super) fn choose(
    wanted: TokenId,
    vocab_size: u32,
    steering: Option<&Steering>,
    ban: Option<&Ban>,
) -> Option<TokenId> {
    let allowed = |token: TokenId| {
        let by_grammar = steering.and_then(|said| said.allowed.as_ref()).is_none_or(|set| set.has(token));
        token.0 < vocab_size && by_grammar && ban.is_none_or(|ban| !ban.tokens.contains(&token))
    };
    let addend = |token: TokenId| {
        let addends = steering.map_or(&[][..], |said| &said.addends);
        addends.iter().find(|(other, _)| *other == token).map_or(0.0, |(_, addend)| *addend)
    };
    let printing = (0x21..0x7f).map(TokenId);
    let others = std::iter::once(END).chain(CLOSING.iter().map(|byte| TokenId(u32::from(*byte))));
    let others = others.chain(printing).chain((0..vocab_size).map(TokenId));
    let logits = std::iter::once((wanted, WANTED)).chain(others.map(|token| (token, 0.0)));
    let candidates = logits.filter(|(token, _)| allowed(*token)).map(|(token, logit)| (token, logit + addend(token)));
    // Of equals the first.
    let best = |best: Option<(TokenId, f32)>, next: (TokenId, f32)| match best {
        Some(best) if best.1 >= next.1 => Some(best),
        _ => Some(next),
    };
    candidates.fold(None, best).map(|(token, _)| token)
}

/// How likely it says that tokens are, natural logarithms: the wanted one all but certain, the ids behind it (around the
/// vocabulary's end) each e times less likely, and all others hardly possible.
pub(super) fn odds(wanted: TokenId, chosen: TokenId, vocab_size: u32, count: u8) -> Odds {
    let logprob = |rank: u32| if rank == 0 { -0.0625 } else { -3.0 - rank as f32 };
    let rank = |token: TokenId| (token.0 + vocab_size - wanted.0 % vocab_size) % vocab_size;
    let token = |rank: u32| TokenId((wanted.0 + rank) % vocab_size);
    let chosen_rank = rank(chosen).min(30);
    let top = (0..u32::from(count).min(vocab_size)).map(|rank| (token(rank), logprob(rank))).collect();
    Odds { chosen: logprob(chosen_rank), top }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decoder::{SeqId, TokenSet};

    fn set(text: &str) -> Option<TokenSet> {
        let mut words = vec![0; 9];
        text.bytes().for_each(|byte| words[byte as usize / 32] |= 1 << (byte % 32));
        Some(TokenSet::from_words(words))
    }

    #[test]
    fn the_wanted_token_comes_where_it_may_and_else_what_closes() {
        let chosen = |allowed: Option<TokenSet>, addends: Vec<(TokenId, f32)>| {
            let said = Steering { seq: SeqId(1), addends, allowed };
            choose(TokenId(b'x'.into()), 262, Some(&said), None).map(|token| char::from(token.0 as u8))
        };
        assert_eq!(chosen(set("axy"), vec![]), Some('x'));
        assert_eq!(chosen(set("a}y\"]"), vec![]), Some('"'));
        assert_eq!(chosen(set(" yb"), vec![]), Some('b'));
        assert_eq!(chosen(set(" "), vec![]), Some(' '));
        assert_eq!(chosen(set(""), vec![]), None);
        assert_eq!(chosen(set("xb"), vec![(TokenId(b'x'.into()), -19.0)]), Some('x'));
        assert_eq!(chosen(set("xb"), vec![(TokenId(b'x'.into()), -21.0)]), Some('b'));
        let ban = Ban { tokens: [END].into(), before: 9 };
        assert_eq!(choose(END, 262, None, Some(&ban)), Some(TokenId(b'"'.into())));
    }
}

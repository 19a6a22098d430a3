//! One stream of `/completion` as tokens; must not know sockets, or what the tokens are for.
//!
//! llama-server sends one chunk a token, with the token's id, but for one case: while a character is incomplete it sends
//! nothing, and the ids of all tokens of that character but the last are never told. Their number is
//! (`tokens_predicted`), and so are their bytes, as the chunk's text less the last token's. From these they are found
//! again; where several spellings fit, the one with the longest first token is taken, as byte-pair merges would. Where
//! none fits (bytes that are no UTF-8 came as U+FFFD), the text is taken as it is, without tokens.

use std::collections::HashMap;

use engine::{decoder::Odds, text::TextModel};
use mesh_proto::TokenId;
use serde_json::Value as Json;

/// Longest token that is looked for, in bytes. A character has four; a token that ends inside one may begin with a word.
const LONGEST: usize = 64;

/// Tokens that end or begin within a character, by their bytes.
#[derive(Debug, Default)]
pub(crate) struct Fragments(HashMap<Vec<u8>, u32>);

impl Fragments {
    /// Of a vocabulary: a pass over it, some milliseconds.
    pub(crate) fn of(text: &TextModel) -> Self {
        let mut fragments = HashMap::new();
        for id in 0..text.vocab_size() {
            let bytes = text.token_bytes(TokenId(id)).unwrap_or_default();
            if !bytes.is_empty() && bytes.len() <= LONGEST && std::str::from_utf8(bytes).is_err() {
                fragments.entry(bytes.to_vec()).or_insert(id);
            }
        }
        Self(fragments)
    }

    /// `count` tokens that spell `bytes`, longest first; `None`: there are none.
    fn spell(&self, bytes: &[u8], count: u32) -> Option<Vec<TokenId>> {
        if count == 0 {
            return bytes.is_empty().then(Vec::new);
        }
        // Each of those behind needs a byte at least.
        let most = bytes.len().checked_sub(count as usize - 1)?.min(LONGEST);
        (1..=most).rev().find_map(|length| {
            let (first, rest) = bytes.split_at(length);
            let id = self.0.get(first)?;
            let mut found = vec![TokenId(*id)];
            found.extend(self.spell(rest, count - 1)?);
            Some(found)
        })
    }
}

/// A token of the answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Told {
    pub(crate) token: TokenId,
    /// How likely it was; told where the request asks for it, and never of a token that was found by its bytes.
    pub(crate) odds: Option<Odds>,
}

/// What a chunk says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Said {
    /// The prompt is being computed; so many of its tokens were there already.
    Prompt {
        /// Tokens that need not be computed.
        cached: u32,
    },
    /// The next tokens of the answer.
    Tokens(Vec<Told>),
    /// Text of so many tokens whose ids nobody knows.
    Untold {
        /// The text.
        text: String,
        /// Tokens.
        count: u32,
    },
    /// The end.
    End {
        /// The token that ended it, unless a bound did.
        eos: Option<TokenId>,
        /// Tokens of which nothing came: half a character at the end.
        silent: u32,
        /// Prompt tokens that were not computed.
        cached: Option<u32>,
    },
}

/// Why a stream cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("llama-server sent a chunk that cannot be read: {0}")]
pub(crate) struct Unreadable(String);

/// One stream's reader.
#[derive(Debug)]
pub(crate) struct Chunks<'a> {
    text: &'a TextModel,
    fragments: &'a Fragments,
    /// Tokens of which something was told.
    seen: u32,
    /// A token without text: markup, or the one that ends the answer. What follows tells.
    held: Option<Told>,
}

impl<'a> Chunks<'a> {
    pub(crate) fn new(text: &'a TextModel, fragments: &'a Fragments) -> Self {
        Self { text, fragments, seen: 0, held: None }
    }

    /// The next chunk; what it says is appended to `out`.
    pub(crate) fn read(&mut self, chunk: &Json, out: &mut Vec<Said>) -> Result<(), Unreadable> {
        let bad = |what: &str| Unreadable(format!("{what} in {}", cut(&chunk.to_string())));
        if let Some(progress) = chunk.get("prompt_progress") {
            out.push(Said::Prompt { cached: number(&progress["cache"]).unwrap_or(0) });
            return Ok(());
        }
        let predicted = number(&chunk["tokens_predicted"]).ok_or_else(|| bad("no tokens_predicted"))?;
        if chunk["stop"] == true {
            self.end(chunk, predicted, out);
            return Ok(());
        }
        let text = chunk["content"].as_str().ok_or_else(|| bad("no content"))?;
        let tokens = chunk["tokens"].as_array().ok_or_else(|| bad("no tokens"))?;
        let [token] = tokens.as_slice() else { return Err(bad("not one token")) };
        let token = TokenId(number(token).ok_or_else(|| bad("a token that is none"))?);
        let odds = odds(chunk, token);
        let new = predicted.checked_sub(self.seen).filter(|new| *new > 0).ok_or_else(|| bad("no new token"))?;
        self.seen = predicted;
        let held = self.held.take();
        if new == 1 {
            if text.is_empty() {
                self.held = Some(Told { token, odds });
                out.extend(held.map(|held| Said::Tokens(vec![held])));
                return Ok(());
            }
            let tokens = held.into_iter().chain([Told { token, odds }]).collect();
            out.push(Said::Tokens(tokens));
            return Ok(());
        }
        out.extend(held.map(|held| Said::Tokens(vec![held])));
        out.push(match self.find(text, token, new - 1) {
            Some(before) => {
                let found = before.into_iter().map(|token| Told { token, odds: None });
                Said::Tokens(found.chain([Told { token, odds }]).collect())
            }
            None => Said::Untold { text: text.to_owned(), count: new },
        });
        Ok(())
    }

    /// The tokens of a text before its last one, which is known.
    fn find(&self, text: &str, last: TokenId, before: u32) -> Option<Vec<TokenId>> {
        let rest = text.as_bytes().strip_suffix(self.text.token_bytes(last)?)?;
        self.fragments.spell(rest, before)
    }

    fn end(&mut self, chunk: &Json, predicted: u32, out: &mut Vec<Said>) {
        let by_token = chunk["stop_type"] == "eos";
        let held = self.held.take();
        let (eos, told) = if by_token { (held.map(|held| held.token), None) } else { (None, held) };
        out.extend(told.map(|token| Said::Tokens(vec![token])));
        let silent = predicted.saturating_sub(self.seen);
        out.push(Said::End { eos, silent, cached: number(&chunk["timings"]["cache_n"]) });
    }
}

/// What the chunk tells of how likely its token was. Of several tokens it tells the last one's.
fn odds(chunk: &Json, token: TokenId) -> Option<Odds> {
    let one = |said: &Json| Some((TokenId(number(&said["id"])?), said["logprob"].as_f64()? as f32));
    let said = chunk.get("completion_probabilities")?.get(0)?;
    let (_, chosen) = one(said).filter(|(chosen, _)| *chosen == token)?;
    Some(Odds { chosen, top: said["top_logprobs"].as_array()?.iter().filter_map(one).collect() })
}

fn number(json: &Json) -> Option<u32> {
    u32::try_from(json.as_u64()?).ok()
}

fn cut(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
#[path = "chunk_tests.rs"]
mod tests;

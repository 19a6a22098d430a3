//! A model's vocabulary as llguidance wants it: each token's bytes in a trie; must not know grammars.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use llguidance::{
    ParserFactory,
    api::ParserLimits,
    toktrie::{ApproximateTokEnv, INVALID_TOKEN, TokEnv, TokRxInfo, TokTrie},
};
use mesh_proto::TokenId;

use crate::text::TextModel;

/// Most bytes of a token that a grammar may choose. The trie holds 1,024; GLM's longest token is as many spaces.
const MAX_TOKEN_BYTES: usize = 1000;

/// What compiles grammars for this vocabulary. Tenths of a second for 150,000 tokens.
pub(super) fn factory(
    text: &TextModel,
    eos: &BTreeSet<TokenId>,
    vocab_size: u32,
    limits: ParserLimits,
) -> Result<ParserFactory, String> {
    let words: Vec<Vec<u8>> = (0..vocab_size).map(|id| word(text, TokenId(id))).collect();
    if !words.iter().any(|word| !word.is_empty() && word[0] != TokTrie::SPECIAL_TOKEN_MARKER) {
        return Err("this model's tokens have no bytes of their own, so that no grammar can choose among them".into());
    }
    let eos: Vec<u32> = eos.iter().map(|token| token.0).filter(|token| *token < vocab_size).collect();
    // The trie asserts what it is made of.
    let build = || {
        let info = TokRxInfo::new(vocab_size, eos.first().copied().unwrap_or(INVALID_TOKEN));
        let mut trie = TokTrie::from(&info, &words);
        if !eos.is_empty() {
            trie = trie.with_eos_tokens(&eos);
        }
        // Any tokens that spell the text are allowed, not the tokenizer's own choice of them only.
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&env).map_err(|error| format!("{error:#}"))?;
        *factory.limits_mut() = limits;
        factory.quiet();
        Ok(factory)
    };
    catch_unwind(AssertUnwindSafe(build))
        .unwrap_or_else(|_| Err("the vocabulary does not fit a trie: see the log".into()))
}

/// A token's bytes; markup is its name behind a mark that no text has. Empty: no grammar chooses it.
fn word(text: &TextModel, token: TokenId) -> Vec<u8> {
    let marker = TokTrie::SPECIAL_TOKEN_MARKER;
    let word = match text.token_bytes(token) {
        // No text has this byte; tokens that begin with it would be taken for markup.
        Some(bytes) if bytes.len() > 1 && bytes[0] == marker => Vec::new(),
        Some(bytes) => bytes.to_vec(),
        None if text.is_special(token) => match text.token_name(token) {
            Some(name) => [&[marker], name.as_bytes()].concat(),
            None => Vec::new(),
        },
        None => Vec::new(),
    };
    if word.len() > MAX_TOKEN_BYTES { Vec::new() } else { word }
}

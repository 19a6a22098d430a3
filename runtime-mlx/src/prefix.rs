//! What ended sequences remembered, kept for prompts that begin alike; must not know open sequences.
//!
//! A list in order of use, searched by comparing tokens: right for the tens of conversations that the byte budget
//! holds.

use std::collections::VecDeque;

use mesh_proto::TokenId;

use crate::{kv::Prefix, sys::Result};

/// Tokens. Guess: below it, copying costs about what computing does.
pub(crate) const MIN_REUSE: usize = 16;

struct Entry {
    tokens: Vec<TokenId>,
    kv: Prefix,
    bytes: u64,
}

impl Entry {
    /// Tokens of `prompt` for which it can be cut.
    fn usable(&self, prompt: &[TokenId]) -> usize {
        let common = common(&self.tokens, prompt);
        if common >= self.kv.least as usize { common } else { 0 }
    }
}

/// Least recently used entries go first when the budget is exceeded.
pub(crate) struct PrefixCache {
    /// Most recently used last.
    entries: VecDeque<Entry>,
    bytes: u64,
    budget: u64,
}

impl PrefixCache {
    pub(crate) fn new(budget: u64) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, budget }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn budget(&self) -> u64 {
        self.budget
    }

    /// Keeps `kv` of `tokens` (one each). What can be cut out of it goes; it goes itself if it can be cut out of
    /// something kept.
    pub(crate) fn insert(&mut self, tokens: Vec<TokenId>, kv: Prefix, bytes: u64) {
        if bytes > self.budget || self.covers(&tokens) {
            return;
        }
        self.entries.retain(|entry| {
            let covered = tokens.starts_with(&entry.tokens) && entry.tokens.len() >= kv.least as usize;
            if covered {
                self.bytes -= entry.bytes;
            }
            !covered
        });
        self.bytes += bytes;
        self.entries.push_back(Entry { tokens, kv, bytes });
        while self.bytes > self.budget {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.bytes;
        }
    }

    /// Whether something kept can be cut to `tokens`.
    pub(crate) fn covers(&self, tokens: &[TokenId]) -> bool {
        self.entries.iter().any(|entry| entry.tokens.starts_with(tokens) && entry.kv.least as usize <= tokens.len())
    }

    /// Tokens of `prompt` that the best entry covers.
    pub(crate) fn longest(&self, prompt: &[TokenId]) -> usize {
        self.entries.iter().map(|entry| entry.usable(prompt)).max().unwrap_or(0)
    }

    /// Keys and values of the first `len` tokens of `prompt`, from the best entry, which counts as used.
    pub(crate) fn take(&mut self, prompt: &[TokenId], len: usize) -> Result<Option<Prefix>> {
        let Some(i) =
            self.entries.iter().rposition(|entry| entry.usable(prompt) >= len && entry.kv.least as usize <= len)
        else {
            return Ok(None);
        };
        let Some(entry) = self.entries.remove(i) else { return Ok(None) };
        let prefix = entry.kv.first(len as i32);
        self.entries.push_back(entry);
        prefix.map(Some)
    }
}

/// Tokens that both begin with.
pub(crate) fn common(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(ids: &[u32]) -> Vec<TokenId> {
        ids.iter().copied().map(TokenId).collect()
    }

    fn kv(len: i32) -> Prefix {
        Prefix { layers: Vec::new(), len, least: 0, per_token: Vec::new() }
    }

    #[test]
    fn the_longest_common_beginning_is_found() {
        let mut cache = PrefixCache::new(100);
        cache.insert(tokens(&[1, 2, 3]), kv(3), 10);
        cache.insert(tokens(&[1, 2, 9, 9]), kv(4), 10);
        assert_eq!(cache.longest(&tokens(&[1, 2, 9, 7])), 3);
        assert_eq!(cache.take(&tokens(&[1, 2, 9, 7]), 3).unwrap().unwrap().len, 3);
        assert_eq!(cache.longest(&tokens(&[5])), 0);
    }

    #[test]
    fn a_longer_text_replaces_its_beginnings_and_the_budget_holds() {
        let mut cache = PrefixCache::new(25);
        cache.insert(tokens(&[1]), kv(1), 10);
        cache.insert(tokens(&[1, 2]), kv(2), 10);
        assert_eq!(cache.bytes(), 10, "the beginning went");
        cache.insert(tokens(&[1]), kv(1), 10);
        assert_eq!(cache.bytes(), 10, "what is covered is not kept again");
        cache.insert(tokens(&[7]), kv(1), 10);
        cache.longest(&tokens(&[1, 2]));
        cache.take(&tokens(&[1, 2]), 2).unwrap();
        cache.insert(tokens(&[8]), kv(1), 10);
        assert_eq!(cache.bytes(), 20);
        assert_eq!(cache.longest(&tokens(&[7])), 0, "the least recently used went");
        assert_eq!(cache.longest(&tokens(&[1, 2])), 2);
        cache.insert(tokens(&[9]), kv(1), 26);
        assert_eq!(cache.bytes(), 20, "what exceeds the whole budget is not kept");
    }

    #[test]
    fn what_cannot_be_cut_serves_its_own_length_only() {
        let whole = |len| Prefix { least: len, ..kv(len) };
        let mut cache = PrefixCache::new(100);
        cache.insert(tokens(&[1, 2]), whole(2), 10);
        cache.insert(tokens(&[1, 2, 3, 4]), whole(4), 10);
        assert_eq!(cache.bytes(), 20, "the longer one cannot stand for the shorter one");
        assert!(cache.covers(&tokens(&[1, 2])) && !cache.covers(&tokens(&[1, 2, 3])));
        assert_eq!(cache.longest(&tokens(&[1, 2, 3, 9])), 2);
        assert_eq!(cache.take(&tokens(&[1, 2, 3, 9]), 2).unwrap().unwrap().len, 2);
        assert_eq!(cache.longest(&tokens(&[1, 9])), 0);
    }
}

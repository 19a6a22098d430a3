//! What ended sequences have computed, kept for prompts that begin alike; must not know arrays, devices or open sequences.
//!
//! A tree over tokens in blocks of [`BLOCK`]: whoever begins alike shares blocks, each of which is held once. A block
//! that two texts leave in the middle lies there twice, so none is ever cut. Beside a block's keys and values there may
//! lie a *state*: what a recurrent layer, or one with a window, was after the block's last token. Such a model goes on
//! only from where a state lies; all others from any token.
//!
//! When the byte budget is exceeded, blocks that no other builds on go, the least recently used first: a conversation
//! loses its end before its beginning, which others may share. (The design is SGLang's RadixAttention, Zheng et al.
//! 2024, with blocks of a fixed length as in vLLM's prefix cache.)

mod shelf;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Bound, Range},
};

use mesh_proto::TokenId;

pub use shelf::{Key, Shelf};

/// Unit: tokens. Guess: two texts that part in a block cost its bytes twice, and a text costs a place in the tree for
/// each.
pub const BLOCK: usize = 64;

/// A block's place in the tree.
type Place = u64;

const ROOT: Place = 0;

struct Node<K, S> {
    parent: Place,
    /// One block's, or fewer where a text ended.
    tokens: Vec<TokenId>,
    kept: Option<K>,
    state: Option<S>,
    /// Of both.
    bytes: u64,
    used: u64,
    /// By their tokens, so that the one with most in common lies beside any text's place in the order.
    children: BTreeMap<Vec<TokenId>, Place>,
}

/// `K`: keys and values of one block's tokens; `S`: a state after some token.
pub struct PrefixIndex<K, S> {
    nodes: BTreeMap<Place, Node<K, S>>,
    /// Nodes without children, by use.
    leaves: BTreeSet<(u64, Place)>,
    next: Place,
    clock: u64,
    bytes: u64,
    budget: u64,
}

/// One block on the way of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece<K> {
    /// Keys and values of the whole block.
    pub kept: K,
    /// How many of its tokens are wanted, from its first on.
    pub tokens: usize,
}

impl<K: Clone, S: Clone> PrefixIndex<K, S> {
    /// `budget`: bytes.
    pub fn new(budget: u64) -> Self {
        let root = Node {
            parent: ROOT,
            tokens: Vec::new(),
            kept: None,
            state: None,
            bytes: 0,
            used: 0,
            children: BTreeMap::new(),
        };
        let nodes = BTreeMap::from([(ROOT, root)]);
        Self { nodes, leaves: BTreeSet::new(), next: ROOT + 1, clock: 0, bytes: 0, budget }
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that may be held.
    pub fn budget(&self) -> u64 {
        self.budget
    }

    /// Tokens of `prompt` whose keys and values are here.
    pub fn longest(&self, prompt: &[TokenId]) -> usize {
        self.path(prompt).iter().map(|(_, tokens)| tokens).sum()
    }

    /// Tokens of `prompt` after the last of which a state lies here.
    pub fn longest_state(&self, prompt: &[TokenId]) -> usize {
        let has_state = |place: &Place| self.nodes.get(place).is_some_and(|node| node.state.is_some());
        let (mut place, mut end, mut best) = (ROOT, 0, 0);
        while let Some(node) = self.nodes.get(&place) {
            let rest = &prompt[end..];
            let part = &rest[..rest.len().min(BLOCK)];
            let ends = (1..=part.len()).rev().find(|len| node.children.get(&part[..*len]).is_some_and(has_state));
            best = ends.map_or(best, |len| end + len);
            let Some(child) = node.children.get(part).filter(|_| part.len() == BLOCK) else { break };
            (place, end) = (*child, end + BLOCK);
        }
        best
    }

    /// Keys and values of the first `len` tokens of `prompt`, fewer if fewer are here, and the state after the last of
    /// them, where there is one. They count as used.
    pub fn take(&mut self, prompt: &[TokenId], len: usize) -> (Vec<Piece<K>>, Option<S>) {
        let path = self.path(&prompt[..len.min(prompt.len())]);
        let mut pieces = Vec::with_capacity(path.len());
        let mut state = None;
        self.clock += 1;
        for (place, tokens) in path {
            self.touch(place);
            let Some(node) = self.nodes.get(&place) else { break };
            let Some(kept) = node.kept.clone() else { break };
            state = node.state.clone().filter(|_| node.tokens.len() == tokens);
            pieces.push(Piece { kept, tokens });
        }
        (pieces, state)
    }

    /// Keeps a text: `block` gives keys and values of the tokens in a range, and their bytes, and is asked only for what
    /// is not here. `state`: what it was after the last token, and its bytes. Of a text beyond the whole budget the
    /// beginning is kept.
    ///
    /// # Errors
    /// What `block` returns; what it gave until then is kept.
    pub fn insert<E>(
        &mut self,
        tokens: &[TokenId],
        state: Option<(S, u64)>,
        mut block: impl FnMut(Range<usize>) -> Result<(K, u64), E>,
    ) -> Result<(), E> {
        self.clock += 1;
        let (mut place, mut start, mut long) = (ROOT, 0, 0);
        for part in tokens.chunks(BLOCK) {
            let end = start + part.len();
            if let Some(child) = self.covering(place, part) {
                // Only the last part can be shorter than what covers it.
                let whole = self.nodes.get(&child).is_some_and(|node| node.tokens.len() == part.len());
                self.touch(child);
                long += self.nodes.get(&child).map_or(0, |node| node.bytes);
                if !whole && state.is_none() {
                    return Ok(());
                }
                if whole {
                    (place, start) = (child, end);
                    continue;
                }
            }
            let (kept, bytes) = block(start..end)?;
            long += bytes;
            if long > self.budget {
                break;
            }
            place = self.add(place, part, kept, bytes);
            start = end;
        }
        if start == tokens.len()
            && place != ROOT
            && let Some((state, bytes)) = state
            && long + bytes <= self.budget
            && let Some(node) = self.nodes.get_mut(&place)
            && node.state.replace(state).is_none()
        {
            node.bytes += bytes;
            self.bytes += bytes;
        }
        self.shed_to(self.budget);
        Ok(())
    }

    /// Whether keys and values of all of `tokens` are here.
    pub fn covers(&self, tokens: &[TokenId]) -> bool {
        self.longest(tokens) == tokens.len()
    }

    /// Lets go of what was not used for longest, until at most `bytes` are held.
    pub fn shed_to(&mut self, bytes: u64) {
        while self.bytes > bytes {
            let Some((_, place)) = self.leaves.first().copied() else { return };
            self.remove(place);
        }
    }

    /// The blocks that `prompt` begins with, and how many of each one's tokens.
    fn path(&self, prompt: &[TokenId]) -> Vec<(Place, usize)> {
        let (mut place, mut rest, mut path) = (ROOT, prompt, Vec::new());
        while !rest.is_empty() {
            let Some((child, shared)) = self.nearest(place, rest) else { break };
            path.push((child, shared));
            if shared < BLOCK {
                break;
            }
            (place, rest) = (child, &rest[shared..]);
        }
        path
    }

    /// The child with most tokens in common with `rest`, at least one. Among texts in order that is a neighbour of
    /// where `rest` would be, or, where it ends within `rest`, what lies right before.
    fn nearest(&self, place: Place, rest: &[TokenId]) -> Option<(Place, usize)> {
        let part = &rest[..rest.len().min(BLOCK)];
        let children = &self.nodes.get(&place)?.children;
        let before = children.range::<[TokenId], _>((Bound::Unbounded, Bound::Included(part))).next_back();
        let after = children.range::<[TokenId], _>((Bound::Included(part), Bound::Unbounded)).next();
        let shared = |(tokens, child): (&Vec<TokenId>, &Place)| (*child, common(tokens, part));
        let best = before.into_iter().chain(after).map(shared).max_by_key(|(_, shared)| *shared);
        best.filter(|(_, shared)| *shared > 0)
    }

    /// The child that begins with `part`.
    fn covering(&self, place: Place, part: &[TokenId]) -> Option<Place> {
        let (tokens, child) =
            self.nodes.get(&place)?.children.range::<[TokenId], _>((Bound::Included(part), Bound::Unbounded)).next()?;
        tokens.starts_with(part).then_some(*child)
    }

    fn add(&mut self, parent: Place, tokens: &[TokenId], kept: K, bytes: u64) -> Place {
        // A text that ended within this block and goes on now: what it had is in the new one, unless a state lies there.
        let shorter: Vec<Place> = self.nodes.get(&parent).map_or_else(Vec::new, |node| {
            node.children.iter().filter(|(has, _)| tokens.starts_with(has)).map(|(_, place)| *place).collect()
        });
        for place in shorter {
            if self.nodes.get(&place).is_some_and(|node| node.state.is_none()) {
                self.remove(place);
            }
        }
        let place = self.next;
        self.next += 1;
        if let Some(node) = self.nodes.get_mut(&parent) {
            node.children.insert(tokens.to_vec(), place);
            self.leaves.remove(&(node.used, parent));
        }
        let (tokens, children) = (tokens.to_vec(), BTreeMap::new());
        let node = Node { parent, tokens, kept: Some(kept), state: None, bytes, used: self.clock, children };
        self.nodes.insert(place, node);
        self.leaves.insert((self.clock, place));
        self.bytes += bytes;
        place
    }

    fn touch(&mut self, place: Place) {
        if let Some(node) = self.nodes.get_mut(&place) {
            if self.leaves.remove(&(node.used, place)) {
                self.leaves.insert((self.clock, place));
            }
            node.used = self.clock;
        }
    }

    /// Takes out a node without children.
    fn remove(&mut self, place: Place) {
        let Some(node) = self.nodes.remove(&place) else { return };
        self.leaves.remove(&(node.used, place));
        self.bytes -= node.bytes;
        if let Some(parent) = self.nodes.get_mut(&node.parent) {
            parent.children.remove(&node.tokens);
            if parent.children.is_empty() && node.parent != ROOT {
                self.leaves.insert((parent.used, node.parent));
            }
        }
    }
}

/// Tokens that both begin with.
pub fn common(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    /// Keys and values are the tokens themselves, a byte each; a state is the text before it.
    type Index = PrefixIndex<Vec<TokenId>, Vec<TokenId>>;

    fn tokens(ids: &[u32]) -> Vec<TokenId> {
        ids.iter().copied().map(TokenId).collect()
    }

    fn insert(index: &mut Index, text: &[TokenId], state: bool) -> usize {
        let mut asked = 0;
        let block = |range: Range<usize>| {
            asked += range.len();
            Ok::<_, Infallible>((text[range.clone()].to_vec(), range.len() as u64))
        };
        index.insert(text, state.then(|| (text.to_vec(), 1)), block).unwrap();
        asked
    }

    fn taken(index: &mut Index, prompt: &[TokenId], len: usize) -> Vec<TokenId> {
        index.take(prompt, len).0.into_iter().flat_map(|piece| piece.kept[..piece.tokens].to_vec()).collect()
    }

    fn counting(n: u32) -> Vec<TokenId> {
        (0..n).map(TokenId).collect()
    }

    #[test]
    fn what_two_texts_share_is_held_once() {
        let mut index = Index::new(10_000);
        let (mut one, mut other) = (counting(200), counting(200));
        one.extend(tokens(&[1, 1]));
        other.extend(tokens(&[2, 2, 2]));
        assert_eq!(insert(&mut index, &one, false), 202);
        assert_eq!(insert(&mut index, &other, false), 203 - 192, "three blocks of 64 are here");
        assert_eq!(index.bytes(), 202 + 11);
        assert_eq!(index.longest(&other), 203);
        assert_eq!(index.longest(&counting(150)), 150, "in the middle of a block, too");
        assert_eq!(taken(&mut index, &other, 203), other);
    }

    #[test]
    fn a_text_that_goes_on_takes_the_place_of_its_beginning() {
        let mut index = Index::new(10_000);
        insert(&mut index, &counting(70), false);
        insert(&mut index, &counting(90), false);
        assert_eq!(index.bytes(), 90);
        assert_eq!(insert(&mut index, &counting(80), false), 0, "what is covered is not kept again");
        assert_eq!((index.bytes(), index.covers(&counting(90))), (90, true));
    }

    #[test]
    fn a_state_lies_where_it_was_put_and_nowhere_else() {
        let mut index = Index::new(10_000);
        insert(&mut index, &counting(70), true);
        insert(&mut index, &counting(100), true);
        insert(&mut index, &counting(128), true);
        for (prompt, state) in [(69, 0), (70, 70), (99, 70), (100, 100), (127, 100), (128, 128), (300, 128)] {
            let prompt = counting(prompt);
            assert_eq!(index.longest_state(&prompt), state);
            let (_, found) = index.take(&prompt, state);
            assert_eq!(found, (state > 0).then(|| counting(state as u32)));
        }
        assert_eq!(index.take(&counting(99), 99).1, None);
    }

    #[test]
    fn the_end_of_what_was_not_used_for_longest_goes_first() {
        let mut index = Index::new(300);
        let of = |start: u32| (start..start + 128).map(TokenId).collect::<Vec<_>>();
        insert(&mut index, &of(0), false);
        insert(&mut index, &of(1000), false);
        taken(&mut index, &of(0), 128);
        insert(&mut index, &of(2000), false);
        assert_eq!([0, 1000, 2000].map(|start| index.longest(&of(start))), [128, 0, 128]);
        insert(&mut index, &of(3000)[..100], false);
        assert_eq!([0, 2000].map(|start| index.longest(&of(start))), [64, 128], "the beginning stays");
        insert(&mut index, &counting(10_000), false);
        assert!(index.longest(&counting(10_000)) >= 192 && index.bytes() <= 300, "of too long a text the beginning");
        index.shed_to(0);
        assert_eq!((index.bytes(), index.nodes.len(), index.leaves.len()), (0, 1, 0));
    }

    fn texts() -> impl Strategy<Value = Vec<(Vec<u32>, bool, bool)>> {
        // Few different tokens in long runs, so that texts share beginnings and part in the middle of blocks.
        let text = prop::collection::vec((0u32..3, 1usize..90), 1..5)
            .prop_map(|runs| runs.into_iter().flat_map(|(token, n)| vec![token; n]).collect());
        prop::collection::vec((text, any::<bool>(), any::<bool>()), 1..40)
    }

    proptest! {
        #[test]
        fn whatever_is_kept_and_dropped_what_is_found_is_what_was_computed(texts in texts(), budget in 100u64..3000) {
            let (mut tight, mut ample) = (Index::new(budget), Index::new(1 << 30));
            let mut before: Vec<(Vec<TokenId>, bool)> = Vec::new();
            for (text, state, keep) in texts {
                let text = tokens(&text);
                let longest = before.iter().map(|(other, _)| common(other, &text)).max().unwrap_or(0);
                prop_assert_eq!(ample.longest(&text), longest);
                let states = before.iter().filter(|(other, state)| *state && text.starts_with(other));
                prop_assert_eq!(ample.longest_state(&text), states.map(|(other, _)| other.len()).max().unwrap_or(0));
                for index in [&mut tight, &mut ample] {
                    let here = index.longest(&text);
                    prop_assert!(here <= longest);
                    prop_assert_eq!(&taken(index, &text, text.len())[..], &text[..here]);
                    let at = index.longest_state(&text);
                    let (pieces, found) = index.take(&text, at);
                    prop_assert_eq!(pieces.iter().map(|piece| piece.tokens).sum::<usize>(), at);
                    prop_assert_eq!(found.as_deref(), (at > 0).then(|| &text[..at]));
                    if keep {
                        insert(index, &text, state);
                    }
                    let held: u64 = index.nodes.values().map(|node| node.bytes).sum();
                    prop_assert!(index.bytes() == held && held <= index.budget());
                    let leaves = index.nodes.iter().filter(|(place, node)| **place != ROOT && node.children.is_empty());
                    prop_assert_eq!(leaves.count(), index.leaves.len());
                }
                if keep {
                    before.push((text, state));
                }
            }
        }
    }
}

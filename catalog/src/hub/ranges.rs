//! Which bytes of a file are there, and which are fetched next; must not know where they come from or lie.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
};

/// A set of bytes, as ranges that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    /// Ends by starts.
    ends: BTreeMap<u64, u64>,
    total: u64,
}

impl Ranges {
    /// How many bytes there are.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    pub(crate) fn add(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        while let Some((&from, &to)) = self.ends.range(..=end).next_back().filter(|(_, to)| **to >= start) {
            (start, end) = (start.min(from), end.max(to));
            self.ends.remove(&from);
            self.total -= to - from;
        }
        self.ends.insert(start, end);
        self.total += end - start;
    }

    /// Whether any byte of a range is there.
    pub(crate) fn any_of(&self, range: &Range<u64>) -> bool {
        !range.is_empty() && self.ends.range(..range.end).next_back().is_some_and(|(_, to)| *to > range.start)
    }

    /// Where the first hole from `at` on begins.
    pub(crate) fn end_from(&self, at: u64) -> u64 {
        self.ends.range(..=at).next_back().map_or(at, |(_, to)| at.max(*to))
    }

    /// What a file of this size lacks.
    pub(crate) fn gaps(&self, size: u64) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = 0;
        for (&from, &to) in &self.ends {
            if from > at {
                gaps.push(at..from.min(size));
            }
            at = to;
        }
        if at < size {
            gaps.push(at..size);
        }
        gaps
    }
}

/// What is still to be fetched, from the start on.
#[derive(Debug)]
pub(crate) struct Todo {
    gaps: VecDeque<Range<u64>>,
    step: u64,
}

impl Todo {
    /// In pieces that end at multiples of `step`.
    pub(crate) fn new(gaps: Vec<Range<u64>>, step: u64) -> Self {
        Self { gaps: gaps.into(), step: step.max(1) }
    }

    /// Into how many pieces it falls.
    pub(crate) fn count(&self) -> u64 {
        let pieces = |gap: &Range<u64>| (gap.end - 1) / self.step - gap.start / self.step + 1;
        self.gaps.iter().filter(|gap| !gap.is_empty()).map(pieces).sum()
    }

    /// The next piece, which nobody else gets.
    pub(crate) fn take(&mut self) -> Option<Range<u64>> {
        let gap = self.gaps.front_mut()?;
        let border = (gap.start / self.step).saturating_add(1).saturating_mul(self.step);
        let piece = gap.start..gap.end.min(border);
        gap.start = piece.end;
        if gap.is_empty() {
            self.gaps.pop_front();
        }
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: u64 = 40;

    proptest! {
        #[test]
        fn a_set_of_ranges_is_a_set_of_bytes(adds in prop::collection::vec((0..SIZE, 0..12_u64), 0..12), step in 1..50_u64) {
            let (mut ranges, mut bytes) = (Ranges::default(), [false; SIZE as usize]);
            for (start, length) in adds {
                let range = start..(start + length).min(SIZE);
                let any = bytes[start as usize..range.end as usize].iter().any(|there| *there);
                prop_assert_eq!(ranges.any_of(&range), any);
                bytes[start as usize..range.end as usize].fill(true);
                ranges.add(range);
            }
            prop_assert_eq!(ranges.total(), bytes.iter().filter(|there| **there).count() as u64);
            for at in 0..SIZE {
                let hole = bytes[at as usize..].iter().position(|there| !there).map_or(SIZE, |far| at + far as u64);
                prop_assert_eq!(ranges.end_from(at), hole);
            }
            // What is fetched is what is missing, each byte once, in pieces that end where they should.
            let mut todo = Todo::new(ranges.gaps(SIZE), step);
            let (count, mut taken) = (todo.count(), 0);
            while let Some(piece) = todo.take() {
                prop_assert!(!piece.is_empty() && piece.start / step == (piece.end - 1) / step);
                for at in piece {
                    prop_assert!(!std::mem::replace(&mut bytes[at as usize], true));
                }
                taken += 1;
            }
            prop_assert_eq!(count, taken);
            prop_assert!(bytes.iter().all(|there| *there));
        }
    }

    #[test]
    fn one_piece_may_be_all() {
        let mut todo = Todo::new(Ranges::default().gaps(u64::MAX), u64::MAX);
        assert_eq!((todo.count(), todo.take(), todo.take()), (1, Some(0..u64::MAX), None));
        assert_eq!(Todo::new(Ranges::default().gaps(0), 1).take(), None);
    }
}

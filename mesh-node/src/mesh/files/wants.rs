//! The files that this node wants or is fetching, and which of several nodes asks the hub for all; must not know how files
//! are fetched.
//!
//! Each asks all others, saying that it wants the file itself, and decides when it has their answers. Deciding and
//! answering take one lock. Of two that want a file, one hears of the other before it decides, or is told that the other
//! has decided: so never both ask the hub, and of those that have not decided the lowest id does.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mesh_proto::{
    files::{FileName, FileState},
    identity::NodeId,
};

/// A repository's file.
pub(super) type Key = (String, FileName);

/// All that this node wants. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Wants(Arc<Mutex<BTreeMap<Key, Want>>>);

#[derive(Debug, Default)]
struct Want {
    /// It is being fetched, and so far is it.
    coming: Option<u64>,
    /// Who said that it wants it, too, since the others were last asked.
    rivals: BTreeSet<NodeId>,
}

impl Wants {
    fn all(&self) -> MutexGuard<'_, BTreeMap<Key, Want>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wants a file, until the wish is dropped.
    pub(super) fn begin(&self, key: Key) -> Wish {
        self.all().insert(key.clone(), Want::default());
        Wish { wants: self.clone(), key }
    }

    /// How many files are wanted.
    pub(super) fn count(&self) -> usize {
        self.all().len()
    }

    /// What to answer `asker` about a file, if it is wanted here. `wants`: it wants it, too.
    pub(super) fn state(&self, key: &Key, asker: NodeId, wants: bool) -> Option<FileState> {
        let mut all = self.all();
        let want = all.get_mut(key)?;
        if let Some(progress) = want.coming {
            return Some(FileState::Coming { progress });
        }
        if wants {
            want.rivals.insert(asker);
        }
        Some(FileState::Wanted)
    }
}

/// That a file is wanted.
#[derive(Debug)]
pub(super) struct Wish {
    wants: Wants,
    key: Key,
}

impl Wish {
    fn with<T>(&self, change: impl FnOnce(&mut Want) -> T) -> T {
        change(self.wants.all().entry(self.key.clone()).or_default())
    }

    /// The others are about to be asked.
    pub(super) fn asks(&self) {
        self.with(|want| *want = Want::default());
    }

    /// The others have answered, and none of those answers says to wait. Whether this node fetches it, for all.
    pub(super) fn decides(&self, me: NodeId) -> bool {
        self.with(|want| {
            let first = want.rivals.iter().all(|rival| me < *rival);
            if first {
                want.coming = Some(0);
            }
            first
        })
    }

    /// So far is it.
    pub(super) fn at(&self, progress: u64) {
        self.with(|want| want.coming = Some(progress));
    }
}

impl Drop for Wish {
    fn drop(&mut self) {
        self.wants.all().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use mesh_proto::files::FileSum;

    use super::*;

    fn key() -> Key {
        ("org/tiny".into(), FileName { sum: FileSum::Git([1; 20]), bytes: 3 })
    }

    fn node(id: u8) -> NodeId {
        NodeId([id; 32])
    }

    /// One step of one of two nodes that want the same file.
    struct Side {
        me: NodeId,
        wants: Wants,
        wish: Wish,
        told: Option<FileState>,
        fetches: Option<bool>,
    }

    impl Side {
        fn new(id: u8) -> Self {
            let wants = Wants::default();
            let wish = wants.begin(key());
            wish.asks();
            Self { me: node(id), wants, wish, told: None, fetches: None }
        }

        fn step(&mut self, other: &Wants) {
            match self.told {
                None => self.told = other.state(&key(), self.me, true),
                Some(told) => {
                    let lower = |other: NodeId| other < self.me;
                    let other = if self.me == node(1) { node(2) } else { node(1) };
                    let waits = match told {
                        FileState::Coming { .. } => true,
                        FileState::Wanted => lower(other),
                        _ => false,
                    };
                    self.fetches = Some(!waits && self.wish.decides(self.me));
                }
            }
        }
    }

    #[test]
    fn of_two_that_want_a_file_one_asks_the_hub_however_their_steps_fall() {
        for order in 0..16_u32 {
            let (mut one, mut two) = (Side::new(1), Side::new(2));
            let mut steps = (0, 0);
            for turn in 0..4 {
                let ones = if order >> turn & 1 == 0 { steps.0 < 2 } else { steps.1 == 2 };
                let (own, other) = if ones { (&mut one, &two.wants) } else { (&mut two, &one.wants) };
                let other = other.clone();
                own.step(&other);
                if ones { steps.0 += 1 } else { steps.1 += 1 }
            }
            assert_eq!(steps, (2, 2));
            let both = (one.fetches.unwrap(), two.fetches.unwrap());
            assert!(both == (true, false) || both == (false, true), "order {order:04b}: {both:?}");
        }
    }

    #[test]
    fn a_wish_that_is_over_is_nobodys() {
        let wants = Wants::default();
        let wish = wants.begin(key());
        wish.at(7);
        assert_eq!(wants.state(&key(), node(9), true), Some(FileState::Coming { progress: 7 }));
        drop(wish);
        assert_eq!(wants.state(&key(), node(9), true), None);
    }

    #[test]
    fn a_rival_counts_until_the_others_are_asked_again() {
        let wants = Wants::default();
        let wish = wants.begin(key());
        wish.asks();
        assert_eq!(wants.state(&key(), node(1), true), Some(FileState::Wanted));
        assert!(!wish.decides(node(2)));
        wish.asks();
        assert_eq!(wants.state(&key(), node(1), false), Some(FileState::Wanted));
        assert!(wish.decides(node(2)));
    }
}

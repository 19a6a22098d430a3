//! A file that arrives from peers: its bytes, its BLAKE3 tree and what of both is right; must not know where they come from.
//!
//! Both lie beside the hub's part. What is right tells itself: after a kill, the tree that came with the bytes says which of
//! them are there, so there is no journal. All of this blocks.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bao_tree::{
    BaoTree, ChunkNum, ChunkRanges,
    io::{
        BaoContentItem,
        outboard::PreOrderOutboard,
        sync::{self, OutboardMut},
    },
};
use iroh_blobs::{protocol::ChunkRangesExt, store::IROH_BLOCK_SIZE};

/// A file that is on its way.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) root: [u8; 32],
    pub(super) bytes: u64,
    data: File,
    outboard: Mutex<PreOrderOutboard<File>>,
    done: Mutex<ChunkRanges>,
}

/// Where the tree of a file that arrives lies.
pub(super) fn tree_at(beside: &Path) -> PathBuf {
    let mut path = beside.to_owned().into_os_string();
    path.push(".tree");
    path.into()
}

/// Opens a file of our own, but no link.
fn open(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).map_err(io::Error::other)?;
    OpenOptions::new().read(true).write(true).create(true).truncate(false).custom_flags(flags).open(path)
}

impl Arrival {
    /// Takes up what is there of it. Reads it all.
    pub(super) fn open(beside: &Path, bytes: u64, root: [u8; 32]) -> io::Result<Self> {
        let tree = BaoTree::new(bytes, IROH_BLOCK_SIZE);
        let (tree_at, size) = (tree_at(beside), tree.outboard_size());
        let (data, pairs) = (open(beside)?, open(&tree_at)?);
        let mut known = [0; 32];
        let same = pairs.read_exact_at(&mut known, size).is_ok() && known == root;
        if !same || data.metadata()?.len() > bytes {
            data.set_len(0)?;
            pairs.set_len(0)?;
            pairs.write_all_at(&root, size)?;
        }
        data.set_len(bytes)?;
        let outboard = PreOrderOutboard { root: blake3::Hash::from(root), tree, data: pairs };
        let mut done = ChunkRanges::empty();
        if same {
            for range in sync::valid_ranges(&outboard, &data, &ChunkRanges::all()) {
                let range = range?;
                done |= ChunkRanges::from(range.start..range.end);
            }
        }
        Ok(Self { root, bytes, data, outboard: Mutex::new(outboard), done: Mutex::new(done) })
    }

    fn done(&self) -> MutexGuard<'_, ChunkRanges> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts what was compared with the root. Says how many bytes of the file that is.
    pub(super) fn put(&self, item: BaoContentItem) -> io::Result<u64> {
        match item {
            BaoContentItem::Parent(parent) => {
                let mut outboard = self.outboard.lock().unwrap_or_else(PoisonError::into_inner);
                outboard.save(parent.node, &parent.pair)?;
                Ok(0)
            }
            BaoContentItem::Leaf(leaf) => {
                let count = leaf.data.len() as u64;
                self.data.write_all_at(&leaf.data, leaf.offset)?;
                *self.done() |= ChunkRanges::bytes(leaf.offset..leaf.offset + count);
                Ok(count)
            }
        }
    }

    /// What is missing of these.
    pub(super) fn missing(&self, of: &ChunkRanges) -> ChunkRanges {
        of - &*self.done()
    }

    /// What is missing, in pieces of so many bytes of the file at most.
    pub(super) fn pieces(&self, most: u64) -> Vec<ChunkRanges> {
        let done = self.done();
        let starts = (0..self.bytes.div_ceil(most)).map(|piece| piece * most);
        let pieces = starts.map(|start| &ChunkRanges::bytes(start..(start + most).min(self.bytes)) - &*done);
        pieces.filter(|piece| !piece.is_empty()).collect()
    }

    /// Bytes that are here.
    pub(super) fn here(&self) -> u64 {
        let done = self.done();
        let ends = done.boundaries().chunks_exact(2);
        ends.map(|two| two[1].to_bytes().min(self.bytes) - two[0].to_bytes().min(self.bytes)).sum()
    }

    /// Bytes from the first on that are here without a gap.
    pub(super) fn prefix(&self) -> u64 {
        match *self.done().boundaries() {
            [ChunkNum(0), end, ..] => end.to_bytes().min(self.bytes),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use bao_tree::io::{Leaf, outboard::PreOrderMemOutboard};

    use super::*;

    /// What a peer would send of these ranges.
    fn items(bytes: &[u8], ranges: &ChunkRanges) -> Vec<BaoContentItem> {
        let outboard = PreOrderMemOutboard::create(bytes, IROH_BLOCK_SIZE);
        let mut encoded = Vec::new();
        sync::encode_ranges_validated(bytes, &outboard, ranges, &mut encoded).unwrap();
        let tree = BaoTree::new(bytes.len() as u64, IROH_BLOCK_SIZE);
        sync::DecodeResponseIter::new(outboard.root, tree, &encoded[..], ranges).map(Result::unwrap).collect()
    }

    fn put(arrival: &Arrival, items: Vec<BaoContentItem>) -> u64 {
        items.into_iter().map(|item| arrival.put(item).unwrap()).sum()
    }

    #[test]
    fn what_arrived_is_found_again_and_only_the_rest_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let beside = dir.path().join("x.incomplete.elsewhere");
        let bytes: Vec<u8> = (0..200_000_u32).map(|at| (at * 7 % 253) as u8).collect();
        let (length, root) = (bytes.len() as u64, *blake3::hash(&bytes).as_bytes());
        let arrival = Arrival::open(&beside, length, root).unwrap();
        assert_eq!((arrival.here(), arrival.prefix(), arrival.pieces(1 << 16).len()), (0, 0, 4));
        for range in [0..32_768, 65_536..81_920] {
            assert!(put(&arrival, items(&bytes, &ChunkRanges::bytes(range))) > 0);
        }
        assert_eq!((arrival.here(), arrival.prefix()), (49_152, 32_768));
        drop(arrival);

        // After a kill, and with a byte changed by somebody else.
        OpenOptions::new().write(true).open(&beside).unwrap().write_all_at(b"!", 20_000).unwrap();
        let arrival = Arrival::open(&beside, length, root).unwrap();
        assert_eq!((arrival.here(), arrival.prefix()), (32_768, 16_384));
        for piece in arrival.pieces(1 << 16) {
            put(&arrival, items(&bytes, &piece));
        }
        assert_eq!((arrival.here(), arrival.prefix(), arrival.pieces(1 << 16).len()), (length, length, 0));
        assert_eq!(std::fs::read(&beside).unwrap(), bytes);
        drop(arrival);

        // Of another root nothing of it is.
        let arrival = Arrival::open(&beside, length, [9; 32]).unwrap();
        assert_eq!(arrival.here(), 0);
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, beside) = (dir.path().join("victim"), dir.path().join("x"));
        std::fs::write(&victim, "mine").unwrap();
        std::os::unix::fs::symlink(&victim, &beside).unwrap();
        assert!(Arrival::open(&beside, 4, [0; 32]).is_err());
        assert_eq!(std::fs::read(&victim).unwrap(), b"mine");
    }

    #[test]
    fn a_small_file_is_one_piece() {
        let dir = tempfile::tempdir().unwrap();
        let root = *blake3::hash(b"{}").as_bytes();
        let arrival = Arrival::open(&dir.path().join("x"), 2, root).unwrap();
        let pieces = arrival.pieces(1 << 20);
        assert_eq!(pieces.len(), 1);
        assert!(
            items(b"{}", &pieces[0]).iter().any(|item| matches!(item, BaoContentItem::Leaf(Leaf { offset: 0, .. })))
        );
        put(&arrival, items(b"{}", &pieces[0]));
        assert_eq!((arrival.here(), arrival.prefix()), (2, 2));
    }
}

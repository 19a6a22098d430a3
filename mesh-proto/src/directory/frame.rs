//! The frames of anti-entropy and the fast path's one message; must not know who sends them.

use serde::{Deserialize, Serialize};

use super::{Range, RangeDigest};
use crate::{
    codec::{CapError, Ext, Wire, cap},
    identity::{NodeId, RevocationList, Signed},
    record::{Record, Version},
    time::Millis,
};

/// A record and how long ago it was signed, as far as the sender knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aged {
    /// Since it was signed; each holder adds the time it held it.
    pub age: Millis,
    /// As its node signed it.
    pub record: Signed<Record>,
}

/// One gossip message: a fresh record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announce {
    /// The record.
    pub aged: Aged,
    /// Later additions.
    pub ext: Ext,
}

impl Wire for Announce {
    const NAME: &'static str = "announcement";
    /// Below iroh-gossip's 16 KiB by more than its header.
    const LIMIT: usize = 16 * 1024 - 128;
    fn check(&self) -> Result<(), CapError> {
        self.ext.check()
    }
}

/// Who, at which version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The node.
    pub node: NodeId,
    /// The newest version that the sender knows, buried or not.
    pub version: Version,
}

/// What two nodes say to each other to become equal. Each frame stands alone: there is no exchange to lose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncFrame {
    /// "This is what I have; say where you differ."
    Digest {
        /// Of which ranges.
        ranges: Vec<RangeDigest>,
        /// Number of the revocation list here.
        revocations: u64,
        /// More differs than fits; ask again.
        more: bool,
        /// Later additions.
        ext: Ext,
    },
    /// "In these ranges I have these; send me what is newer, and take what you lack."
    Items {
        /// Which ranges the items cover whole.
        ranges: Vec<Range>,
        /// All that is known in them.
        items: Vec<Item>,
        /// Later additions.
        ext: Ext,
    },
    /// "Send me these."
    Want {
        /// Whose records.
        nodes: Vec<NodeId>,
        /// Later additions.
        ext: Ext,
    },
    /// "Take these."
    Records {
        /// The records.
        records: Vec<Aged>,
        /// There are more; ask again.
        more: bool,
        /// Later additions.
        ext: Ext,
    },
    /// "This is taken back."
    Revocations {
        /// The founder's key.
        root: NodeId,
        /// The list.
        list: Signed<RevocationList>,
        /// Later additions.
        ext: Ext,
    },
}

impl SyncFrame {
    /// Most ranges in a frame; 16 splits' worth, 6 KiB.
    pub const MAX_RANGES: usize = 256;
    /// Most items in a frame, about 190 KiB.
    pub const MAX_ITEMS: usize = 4096;
    /// Most records in a frame.
    pub const MAX_RECORDS: usize = 1024;
    /// Bytes of records that are put into one frame; what is left to [`Wire::LIMIT`] holds one more of any size.
    pub const RECORD_BYTES: usize = 192 * 1024;
}

impl Wire for SyncFrame {
    const NAME: &'static str = "sync frame";
    const LIMIT: usize = 256 * 1024;
    const VARIANTS: u8 = 5;

    fn check(&self) -> Result<(), CapError> {
        match self {
            Self::Digest { ranges, ext, .. } => {
                cap("ranges", ranges.len(), Self::MAX_RANGES)?;
                ext.check()
            }
            Self::Items { ranges, items, ext } => {
                cap("ranges", ranges.len(), Self::MAX_RANGES)?;
                cap("items", items.len(), Self::MAX_ITEMS)?;
                ext.check()
            }
            Self::Want { nodes, ext } => {
                cap("nodes", nodes.len(), Self::MAX_ITEMS)?;
                ext.check()
            }
            Self::Records { records, ext, .. } => {
                cap("records", records.len(), Self::MAX_RECORDS)?;
                ext.check()
            }
            Self::Revocations { ext, .. } => ext.check(),
        }
    }
}

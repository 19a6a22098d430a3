//! Who of a mesh has which of the hub's files, ALPN `mesh-llm/files/1`; must not know streams, disks or the hub.
//!
//! One bidirectional QUIC stream a question: one [`FilesAsk`] and one [`FilesReply`], each behind its length as in
//! [`infer`](crate::infer). The bytes themselves travel over iroh-blobs' own protocol, by the BLAKE3 that a reply names.
//!
//! Files go by the hub's names: what a hub lists as a file's checksum, whoever has it can check. What a peer says the
//! BLAKE3 is, is only a way to its bytes; they are compared with the hub's checksum before they are used.

use serde::{Deserialize, Serialize};

use crate::codec::{CapError, Ext, Wire, cap, some};

/// The ALPN.
pub const ALPN: &[u8] = b"mesh-llm/files/1";

/// What the hub calls a file's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FileSum {
    /// The SHA-256 of a large file.
    Sha256([u8; 32]),
    /// Git's SHA-1 of a small one, with git's header.
    Git([u8; 20]),
}

/// A file of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileName {
    /// Its checksum.
    pub sum: FileSum,
    /// Its length.
    pub bytes: u64,
}

/// "Which of these do you have?"
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesAsk {
    /// The repository that they are of, `org/name`.
    pub repo: String,
    /// The files, at least one.
    pub files: Vec<FileName>,
    /// The asking node wants them itself, and would share them: one of the two may fetch for both.
    pub wants: bool,
    /// Later additions.
    pub ext: Ext,
}

impl FilesAsk {
    /// Most files of one question: more than the weights of any model have parts.
    pub const MAX_FILES: usize = 256;
    /// Most bytes of a repository's name. Origin: the hub allows 96 for each half.
    pub const MAX_REPO: usize = 193;
}

impl Wire for FilesAsk {
    const NAME: &'static str = "files ask";
    const LIMIT: usize = 32 << 10;
    fn check(&self) -> Result<(), CapError> {
        some("repo", self.repo.len(), Self::MAX_REPO)?;
        some("files", self.files.len(), Self::MAX_FILES)?;
        self.ext.check()
    }
}

/// How near a file is to the answering node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileState {
    /// It does not have it, or does not share it.
    Absent,
    /// It wants it, and has not begun to fetch it.
    Wanted,
    /// It is fetching it from the hub, or reading it over to be able to send it.
    Coming {
        /// A number that grows while it does.
        progress: u64,
    },
    /// It has it.
    Here {
        /// The BLAKE3 of its bytes, under which iroh-blobs sends them.
        root: [u8; 32],
    },
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesReply {
    /// One for each file asked for, in their order.
    pub files: Vec<FileState>,
    /// Later additions.
    pub ext: Ext,
}

impl Wire for FilesReply {
    const NAME: &'static str = "files reply";
    const LIMIT: usize = 32 << 10;
    fn check(&self) -> Result<(), CapError> {
        cap("files", self.files.len(), FilesAsk::MAX_FILES)?;
        self.ext.check()
    }
}

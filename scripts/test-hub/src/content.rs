//! What a file of the hub consists of, made where it is read; must not know HTTP.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use bytes::Bytes;
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

/// Bytes of one block of generated content. Every block differs from every other one of the same seed, so blocks that
/// were swapped, repeated or shifted are noticed.
const BLOCK: u64 = 64 * 1024;

/// What a file consists of.
#[derive(Clone, Debug)]
pub enum Content {
    /// Bytes in memory.
    Bytes(Bytes),
    /// Pseudo-random bytes, made on the fly: the same seed and length are always the same content.
    Generated {
        /// Tells contents of one length apart.
        seed: u64,
        /// How many.
        bytes: u64,
    },
    /// A file on disk, which must not change while it is served.
    File {
        /// Where.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// One after another, as a header before generated weights.
    Joined(Arc<[Content]>),
}

impl Content {
    /// Generated content: see [`Content::Generated`].
    pub fn generated(seed: u64, bytes: u64) -> Self {
        Self::Generated { seed, bytes }
    }

    /// The content of a file on disk.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn file(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let bytes = std::fs::metadata(&path)?.len();
        Ok(Self::File { path, bytes })
    }

    /// Several contents, one after another.
    pub fn joined(parts: impl IntoIterator<Item = Self>) -> Self {
        Self::Joined(parts.into_iter().collect())
    }

    /// How long it is.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Generated { bytes, .. } | Self::File { bytes, .. } => *bytes,
            Self::Joined(parts) => parts.iter().map(Self::len).sum(),
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Some bytes from `offset` on: at least one, at most `most`; none at the end.
    ///
    /// # Errors
    /// When a file on disk cannot be read.
    pub fn read(&self, offset: u64, most: usize) -> io::Result<Bytes> {
        let left = usize::try_from(self.len().saturating_sub(offset)).unwrap_or(usize::MAX).min(most);
        if left == 0 {
            return Ok(Bytes::new());
        }
        match self {
            Self::Bytes(bytes) => {
                let start = usize::try_from(offset).map_err(io::Error::other)?;
                Ok(bytes.slice(start..start + left))
            }
            Self::Generated { seed, .. } => Ok(generate(*seed, offset, left)),
            Self::File { path, .. } => {
                let mut buffer = vec![0; left];
                let read = File::open(path)?.read_at(&mut buffer, offset)?;
                buffer.truncate(read);
                Ok(buffer.into())
            }
            Self::Joined(parts) => {
                let mut start = 0;
                for part in parts.iter() {
                    if offset < start + part.len() {
                        return part.read(offset - start, most);
                    }
                    start += part.len();
                }
                Ok(Bytes::new())
            }
        }
    }

    /// The SHA-256 in hexadecimal. Of generated content it is computed once a process.
    ///
    /// # Errors
    /// When a file on disk cannot be read.
    pub fn sha256(&self) -> io::Result<String> {
        static KNOWN: OnceLock<Mutex<HashMap<(u64, u64), String>>> = OnceLock::new();
        let Self::Generated { seed, bytes } = self else { return self.digest(Context::new(&SHA256)) };
        let mut known = KNOWN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(&(*seed, *bytes)) {
            return Ok(found.clone());
        }
        let digest = self.digest(Context::new(&SHA256))?;
        known.insert((*seed, *bytes), digest.clone());
        Ok(digest)
    }

    /// What git calls it: the SHA-1 of a blob.
    ///
    /// # Errors
    /// When a file on disk cannot be read.
    pub fn git_oid(&self) -> io::Result<String> {
        let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
        context.update(format!("blob {}\0", self.len()).as_bytes());
        self.digest(context)
    }

    fn digest(&self, mut context: Context) -> io::Result<String> {
        let mut offset = 0;
        loop {
            let piece = self.read(offset, 1 << 20)?;
            if piece.is_empty() {
                return Ok(hex(context.finish().as_ref()));
            }
            offset += piece.len() as u64;
            context.update(&piece);
        }
    }
}

impl From<&'static str> for Content {
    fn from(text: &'static str) -> Self {
        Self::Bytes(Bytes::from_static(text.as_bytes()))
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self::Bytes(text.into())
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

/// A reader over the whole of it, for those who want one.
impl Content {
    /// Reads all of it, from the start.
    pub fn reader(&self) -> impl Read + '_ {
        Reader { content: self, offset: 0 }
    }
}

struct Reader<'a> {
    content: &'a Content,
    offset: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.content.read(self.offset, buffer.len())?;
        buffer[..piece.len()].copy_from_slice(&piece);
        self.offset += piece.len() as u64;
        Ok(piece.len())
    }
}

/// At least one byte, at most `most`, and never past the block's end.
fn generate(seed: u64, offset: u64, most: usize) -> Bytes {
    let (block, from) = (offset / BLOCK, (offset % BLOCK) as usize);
    let to = from.saturating_add(most).min(BLOCK as usize);
    let pattern = pattern(seed);
    let mut out = pattern[from..to].to_vec();
    // The block's number, where the range that was asked for has it.
    for (place, byte) in mix(seed ^ (block + 1)).to_le_bytes().into_iter().enumerate() {
        if (from..to).contains(&place) {
            out[place - from] ^= byte;
        }
    }
    out.into()
}

/// The block that all blocks of a seed are made of: to make each one anew would cost a test build more than sending it.
fn pattern(seed: u64) -> Arc<[u8]> {
    static KNOWN: OnceLock<Mutex<HashMap<u64, Arc<[u8]>>>> = OnceLock::new();
    let mut known = KNOWN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    let make = || (0..BLOCK / 8).flat_map(|word| mix(seed.wrapping_mul(BLOCK).wrapping_add(word)).to_le_bytes());
    known.entry(seed).or_insert_with(|| make().collect()).clone()
}

/// The finaliser of splitmix64.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The SHA-1 of something small, in hexadecimal.
pub(crate) fn sha1(text: &str) -> String {
    hex(ring::digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(content: &Content) -> Vec<u8> {
        let mut out = Vec::new();
        content.reader().read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn generated_content_is_the_same_however_it_is_read() {
        let content = Content::generated(7, 3 * BLOCK + 11);
        let whole = all(&content);
        assert_eq!(whole.len() as u64, content.len());
        for offset in [0, 3, 7, 8, BLOCK - 1, BLOCK, 2 * BLOCK + 5, 3 * BLOCK + 10] {
            let piece = content.read(offset, 999).unwrap();
            assert!(!piece.is_empty());
            assert_eq!(piece, whole[offset as usize..][..piece.len()]);
        }
        assert!(content.read(content.len(), 1).unwrap().is_empty());
        assert_ne!(whole[..100], all(&Content::generated(8, 100)), "the seed tells");
        assert_ne!(whole[..BLOCK as usize], whole[BLOCK as usize..2 * BLOCK as usize], "blocks differ");
    }

    #[test]
    fn digests_are_those_that_git_and_sha256sum_say() {
        let content = Content::from("hello\n");
        assert_eq!(content.git_oid().unwrap(), "ce013625030ba8dba906f756967f9e9ca394464a");
        assert_eq!(content.sha256().unwrap(), "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03");
    }

    #[test]
    fn joined_content_is_one_after_another() {
        let joined = Content::joined(["head".into(), Content::generated(1, 100), "tail".into()]);
        let whole = all(&joined);
        assert_eq!((whole.len() as u64, joined.len()), (108, 108));
        assert_eq!((&whole[..4], &whole[104..]), (&b"head"[..], &b"tail"[..]));
        assert_eq!(whole[4..104], all(&Content::generated(1, 100)));
    }
}

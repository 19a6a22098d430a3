//! Computed blocks on disk, so that they outlive the process; must not know what a block's bytes mean.
//!
//! A file a block, named by a [`Key`]: BLAKE3 over who computed it and over all tokens up to its end. So another model,
//! tokenizer or template finds nothing, and nobody has to clear anything. Files appear under their names whole, by
//! renaming, and bear a checksum: what a power cut or a full disk left of one is told from a block and thrown away. Any
//! number of processes may share a folder, since a file that is there is right and one that is gone is recomputed.
//!
//! Keys and values are as secret as the texts they come from: the folder is its owner's alone (0700, files 0600).

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, DirBuilder, File},
    io::{self, Read, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mesh_proto::TokenId;

/// What a file begins with; another layout has another one.
const MAGIC: &[u8; 8] = b"meshkv01";

const SUFFIX: &str = "kv";

/// What a file has before its bytes: the magic, and a checksum of them.
const HEAD: u64 = 8 + 32;

/// Half-written files of processes that are gone are removed after this. Guess: no write takes so long.
const ABANDONED: Duration = Duration::from_secs(3600);

/// The name of a text's block.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 32]);

impl Key {
    /// Before any token. `whose`: all that what is computed depends on (weights, configuration, tokenizer, template,
    /// precision).
    pub fn root<'a>(whose: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("mesh-llm prefix shelf, layout 1");
        for part in whose {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// After these tokens too.
    pub fn then(&self, tokens: &[TokenId]) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for token in tokens {
            hasher.update(&token.0.to_le_bytes());
        }
        Self(*hasher.finalize().as_bytes())
    }

    fn file(&self) -> String {
        format!("{}.{SUFFIX}", blake3::Hash::from_bytes(self.0).to_hex())
    }

    fn of_file(path: &Path) -> Option<Self> {
        let name = path.file_stem()?.to_str().filter(|_| path.extension().is_some_and(|end| end == SUFFIX))?;
        Some(Self(*blake3::Hash::from_hex(name).ok()?.as_bytes()))
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({}…)", &blake3::Hash::from_bytes(self.0).to_hex()[..8])
    }
}

/// A folder of blocks within a budget, the least recently used of which go first. See the module's page.
pub struct Shelf {
    dir: PathBuf,
    budget: u64,
    bytes: u64,
    files: HashMap<Key, (u64, SystemTime)>,
    by_use: BTreeSet<(SystemTime, Key)>,
}

impl Shelf {
    /// Opens a folder, and makes it where there is none. `budget`: bytes of all files.
    ///
    /// # Errors
    /// When it cannot be made or read.
    pub fn open(dir: &Path, budget: u64) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let files = HashMap::new();
        let mut shelf = Self { dir: dir.to_owned(), budget, bytes: 0, files, by_use: BTreeSet::new() };
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let Ok(about) = entry.metadata() else { continue };
            let used = about.modified().unwrap_or(UNIX_EPOCH);
            if let Some(key) = Key::of_file(&entry.path()).filter(|_| about.is_file()) {
                shelf.count(key, about.len(), used);
            } else if entry.file_name().to_string_lossy().starts_with(".part-")
                && used.elapsed().is_ok_and(|age| age > ABANDONED)
            {
                fs::remove_file(entry.path()).ok();
            }
        }
        shelf.make_room(0);
        Ok(shelf)
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether there seems to be such a block.
    pub fn has(&self, key: &Key) -> bool {
        self.files.contains_key(key)
    }

    /// A block's bytes. What is damaged is removed, and is as good as absent.
    pub fn get(&mut self, key: &Key) -> Option<Vec<u8>> {
        let (bytes, _) = *self.files.get(key)?;
        let path = self.dir.join(key.file());
        match read(&path, bytes) {
            Ok(block) => {
                let now = SystemTime::now();
                // Its time is how other processes, and the next start, know when it was used.
                File::open(&path).and_then(|file| file.set_modified(now)).ok();
                self.count(*key, bytes, now);
                Some(block)
            }
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(%error, file = %path.display(), "a kept prefix cannot be used and is removed");
                }
                self.remove(key);
                None
            }
        }
    }

    /// Keeps a block, and lets others go for it. `false`: it is there already, or larger than the whole budget.
    ///
    /// # Errors
    /// When it cannot be written; then nothing is left of it.
    pub fn put(&mut self, key: Key, block: &[u8]) -> io::Result<bool> {
        let bytes = HEAD + block.len() as u64;
        if bytes > self.budget || self.has(&key) {
            return Ok(false);
        }
        self.make_room(bytes);
        let mut part = tempfile::Builder::new().prefix(".part-").tempfile_in(&self.dir)?;
        part.write_all(MAGIC)?;
        part.write_all(blake3::hash(block).as_bytes())?;
        part.write_all(block)?;
        part.persist(self.dir.join(key.file())).map_err(|error| error.error)?;
        self.count(key, bytes, SystemTime::now());
        Ok(true)
    }

    fn count(&mut self, key: Key, bytes: u64, used: SystemTime) {
        if let Some((old, before)) = self.files.insert(key, (bytes, used)) {
            self.by_use.remove(&(before, key));
            self.bytes -= old;
        }
        self.by_use.insert((used, key));
        self.bytes += bytes;
    }

    fn make_room(&mut self, bytes: u64) {
        while self.bytes + bytes > self.budget {
            let Some((_, oldest)) = self.by_use.first().copied() else { return };
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some((bytes, used)) = self.files.remove(key) {
            self.by_use.remove(&(used, *key));
            self.bytes -= bytes;
            fs::remove_file(self.dir.join(key.file())).ok();
        }
    }
}

fn read(path: &Path, bytes: u64) -> io::Result<Vec<u8>> {
    let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut file = File::open(path)?;
    if file.metadata()?.len() != bytes || bytes < HEAD {
        return Err(damaged("its length is wrong"));
    }
    let (mut magic, mut sum) = ([0; 8], [0; 32]);
    file.read_exact(&mut magic)?;
    file.read_exact(&mut sum)?;
    if &magic != MAGIC {
        return Err(damaged("it begins wrongly"));
    }
    let mut block = Vec::with_capacity((bytes - HEAD) as usize);
    file.take(bytes - HEAD).read_to_end(&mut block)?;
    if blake3::hash(&block) != blake3::Hash::from_bytes(sum) {
        return Err(damaged("its checksum is wrong"));
    }
    Ok(block)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn key(n: u32) -> Key {
        Key::root([b"model".as_slice()]).then(&[TokenId(n)])
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_block_outlives_the_process_and_belongs_to_one_model_and_text() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("deep/shelf");
        let (one, other) = (Key::root([b"a".as_slice(), b"bc"]), Key::root([b"ab".as_slice(), b"c"]));
        assert_ne!(one, other);
        let key = one.then(&[TokenId(1), TokenId(2)]);
        assert_ne!(key, one.then(&[TokenId(1)]).then(&[TokenId(2)]), "blocks end where they end");
        let mut shelf = Shelf::open(&dir, 10_000).unwrap();
        assert!(shelf.put(key, b"keys and values").unwrap() && !shelf.put(key, b"again").unwrap());
        let mut shelf = Shelf::open(&dir, 10_000).unwrap();
        assert_eq!(shelf.get(&key).unwrap(), b"keys and values");
        assert_eq!(shelf.get(&other.then(&[TokenId(1), TokenId(2)])), None);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&dir.join(key.file()))), (0o700, 0o600));
    }

    #[test]
    fn what_is_cut_or_altered_anywhere_is_never_a_block() {
        let dir = tempfile::tempdir().unwrap();
        let block: Vec<u8> = (0..100).collect();
        let path = dir.path().join(key(1).file());
        let mut shelf = Shelf::open(dir.path(), 10_000).unwrap();
        shelf.put(key(1), &block).unwrap();
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut altered = whole.clone();
            altered[at] ^= 1;
            for torn in [&whole[..at], &altered] {
                fs::write(&path, torn).unwrap();
                let mut shelf = Shelf::open(dir.path(), 10_000).unwrap();
                assert_eq!(shelf.get(&key(1)), None, "byte {at}");
                assert_eq!((shelf.bytes(), names(dir.path()).len()), (0, 0), "it is removed");
                assert!(shelf.put(key(1), &block).unwrap(), "and can be kept anew");
                assert_eq!(shelf.get(&key(1)).unwrap(), block);
            }
        }
        let mut long = whole.clone();
        long.push(0);
        fs::write(&path, long).unwrap();
        assert_eq!(Shelf::open(dir.path(), 10_000).unwrap().get(&key(1)), None);
    }

    #[test]
    fn the_budget_holds_and_what_was_not_used_for_longest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let mut shelf = Shelf::open(dir.path(), 3 * 140).unwrap();
        for n in 0..3 {
            assert!(shelf.put(key(n), &[0; 100]).unwrap());
        }
        assert!(shelf.get(&key(0)).is_some());
        assert!(shelf.put(key(3), &[0; 100]).unwrap());
        assert_eq!([0, 1, 2, 3].map(|n| shelf.has(&key(n))), [true, false, true, true]);
        assert!(!shelf.put(key(4), &[0; 1000]).unwrap(), "what exceeds the whole budget");
        let smaller = Shelf::open(dir.path(), 140).unwrap();
        assert_eq!((smaller.bytes(), smaller.has(&key(3)), names(dir.path()).len()), (140, true, 1));
    }

    #[test]
    fn what_others_left_is_passed_over_and_what_they_removed_is_absent() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("notes.txt"), "mine").unwrap();
        fs::write(dir.path().join(".part-old"), "half").unwrap();
        let old = File::open(dir.path().join(".part-old")).unwrap();
        old.set_modified(SystemTime::now() - 2 * ABANDONED).unwrap();
        fs::write(dir.path().join(".part-new"), "half").unwrap();
        let mut shelf = Shelf::open(dir.path(), 10_000).unwrap();
        assert_eq!(names(dir.path()), [".part-new", "notes.txt"]);
        shelf.put(key(1), b"block").unwrap();
        fs::remove_file(dir.path().join(key(1).file())).unwrap();
        assert_eq!((shelf.get(&key(1)), shelf.bytes()), (None, 0));
    }
}

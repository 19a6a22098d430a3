//! What a model is, whatever it is called: a hash over its files; must not know what is in them.
//!
//! ```text
//! content = BLAKE3 (keyed by "mesh-llm model content v1") over the files that a loader uses, sorted by name:
//!           length of the name ‖ name ‖ length of the file ‖ BLAKE3 of the file     lengths as u64, little endian
//! ```
//! A GGUF model's files are named by what they are to it (`gguf/1`, `gguf/2`, …, `gguf/mmproj`): the same file under
//! another name is the same model; with a projector, or cut into other parts, it is another.
//!
//! Reading twenty gigabytes takes a while, so `CACHE/identity` remembers the hash of each large file by path, length
//! and time of change. It is a cache folder's worth of trust: whoever writes there also chooses what is served.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    CatalogError, GgufFiles, ModelFiles,
    weights::{self, damaged},
};

/// Files below this are read each time; 16 MiB take milliseconds.
const SMALL: u64 = 16 << 20;
/// A file changed so lately may change again within its time stamp's grain, and is not remembered. (as git does)
const SETTLED: Duration = Duration::from_secs(2);
/// How often a long reading says how far it is.
const PROGRESS: Duration = Duration::from_secs(3);
/// Bytes read at once.
const CHUNK: usize = 1 << 20;

/// The hash of a model's content. Equal hashes: equal files, so equal answers. Blocks, the first time for as long as
/// reading the weights takes; `progress` hears how far it is when that is long.
///
/// # Errors
/// When a file cannot be read, or changes meanwhile. A cache that cannot be written is none: the next start reads again.
pub fn content(files: &ModelFiles, cache: &Path, progress: &mut dyn FnMut(&str)) -> Result<[u8; 32], CatalogError> {
    let paths = match &files.gguf {
        None => used(&files.dir)?,
        Some(gguf) => roles(gguf),
    };
    let mut total = 0;
    for (_, path) in &paths {
        total += fs::metadata(path).map_err(io_at(path))?.len();
    }
    let mut reading = Reading { total, done: 0, told: Instant::now(), progress };
    let shelf = cache.join("identity");
    let mut content = blake3::Hasher::new_derive_key("mesh-llm model content v1");
    for (name, path) in paths {
        let meta = fs::metadata(&path).map_err(io_at(&path))?;
        let hash = remembered_or_read(&path, &meta, &shelf, &mut reading)?;
        content.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
        content.update(&meta.len().to_le_bytes()).update(hash.as_bytes());
    }
    Ok(*content.finalize().as_bytes())
}

fn roles(files: &GgufFiles) -> Vec<(String, PathBuf)> {
    let parts = files.parts.iter().enumerate().map(|(index, path)| (format!("gguf/{}", index + 1), path.clone()));
    parts.chain(files.mmproj.iter().map(|path| ("gguf/mmproj".to_owned(), path.clone()))).collect()
}

/// The files that a loader uses, by name: the weights that it reads, and what tells how. Not READMEs and pictures.
fn used(dir: &Path) -> Result<Vec<(String, PathBuf)>, CatalogError> {
    let mut found = Vec::new();
    let mut add = |prefix: &str, path: PathBuf| -> Result<(), CatalogError> {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| damaged(&path, "this name is not UTF-8"))?;
        found.push((format!("{prefix}{name}"), path.clone()));
        Ok(())
    };
    for path in weights::files(dir)? {
        add("", path)?;
    }
    for path in listing(dir)?.into_iter().filter(|path| describes(path)) {
        add("", path)?;
    }
    let more = dir.join("additional_chat_templates");
    if more.is_dir() {
        for path in listing(&more)?.into_iter().filter(|path| describes(path)) {
            add("additional_chat_templates/", path)?;
        }
    }
    // How sentence-transformers pools: `1_Pooling/config.json`, and whatever number it stands behind.
    for (name, path) in folders(dir)?.into_iter().filter(|(name, _)| name.ends_with("_Pooling")) {
        for path in listing(&path)?.into_iter().filter(|path| describes(path)) {
            add(&format!("{name}/"), path)?;
        }
    }
    found.sort();
    Ok(found)
}

/// Folders by name; one whose name is not UTF-8 is none of a model's.
fn folders(dir: &Path) -> Result<Vec<(String, PathBuf)>, CatalogError> {
    let entries = fs::read_dir(dir).map_err(io_at(dir))?;
    let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let named = |path: PathBuf| Some((path.file_name()?.to_str()?.to_owned(), path));
    Ok(paths.map_err(io_at(dir))?.into_iter().filter(|path| path.is_dir()).filter_map(named).collect())
}

fn listing(dir: &Path) -> Result<Vec<PathBuf>, CatalogError> {
    let entries = fs::read_dir(dir).map_err(io_at(dir))?;
    let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    Ok(paths.map_err(io_at(dir))?.into_iter().filter(|path| path.is_file()).collect())
}

/// Configuration, templates and tokenizers, by Hugging Face's names. Hidden files are systems' own.
fn describes(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let tokenizer = matches!(name, "merges.txt" | "vocab.txt") || matches!(extension, "model" | "tiktoken");
    !name.starts_with('.') && (tokenizer || matches!(extension, "json" | "jinja"))
}

struct Reading<'a> {
    total: u64,
    done: u64,
    told: Instant,
    progress: &'a mut dyn FnMut(&str),
}

impl Reading<'_> {
    fn add(&mut self, bytes: u64) {
        self.done += bytes;
        if self.told.elapsed() >= PROGRESS {
            self.told = Instant::now();
            let percent = self.done.saturating_mul(100) / self.total.max(1);
            (self.progress)(&format!("reading its files once, to know what it is: {percent} %"));
        }
    }
}

fn remembered_or_read(
    path: &Path,
    meta: &Metadata,
    shelf: &Path,
    reading: &mut Reading<'_>,
) -> Result<blake3::Hash, CatalogError> {
    let note = note_of(path, meta).filter(|_| meta.len() >= SMALL).map(|name| shelf.join(name));
    if let Some(hash) = note.as_ref().and_then(|note| recall(note)) {
        reading.add(meta.len());
        return Ok(hash);
    }
    let hash = read(path, meta, reading)?;
    if let Some(note) = note {
        // Without a cache the next start reads again, and that is all.
        let _ = remember(shelf, &note, hash);
    }
    Ok(hash)
}

/// The name under which a file's hash is remembered; `None` where that cannot be trusted.
fn note_of(path: &Path, meta: &Metadata) -> Option<String> {
    let changed = meta.modified().ok()?;
    SystemTime::now().duration_since(changed).ok().filter(|age| *age >= SETTLED)?;
    let since = changed.duration_since(UNIX_EPOCH).ok()?;
    let full = path.canonicalize().ok()?;
    let mut hasher = blake3::Hasher::new_derive_key("mesh-llm remembered file v1");
    hasher.update(&meta.len().to_le_bytes()).update(&since.as_nanos().to_le_bytes());
    hasher.update(full.as_os_str().as_encoded_bytes());
    Some(hasher.finalize().to_hex().as_str()[..32].to_owned())
}

fn recall(note: &Path) -> Option<blake3::Hash> {
    blake3::Hash::from_hex(fs::read_to_string(note).ok()?.trim()).ok()
}

fn remember(shelf: &Path, note: &Path, hash: blake3::Hash) -> io::Result<()> {
    fs::create_dir_all(shelf)?;
    let mut file = tempfile::NamedTempFile::new_in(shelf)?;
    writeln!(file, "{}", hash.to_hex())?;
    file.persist(note)?;
    Ok(())
}

fn read(path: &Path, before: &Metadata, reading: &mut Reading<'_>) -> Result<blake3::Hash, CatalogError> {
    let mut file = File::open(path).map_err(io_at(path))?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(io_at(path)(error)),
        };
        hasher.update(&buffer[..count]);
        reading.add(count as u64);
    }
    let after = file.metadata().map_err(io_at(path))?;
    let same = after.len() == before.len() && after.modified().ok() == before.modified().ok();
    if same && hasher.count() == before.len() {
        Ok(hasher.finalize())
    } else {
        Err(damaged(path, "it changed while it was read: is it still being downloaded?"))
    }
}

fn io_at(path: &Path) -> impl Fn(io::Error) -> CatalogError {
    let path = path.to_owned();
    move |cause| CatalogError::Io { path: path.clone(), cause }
}

#[cfg(test)]
mod tests {
    use mesh_proto::ModelId;

    use super::*;
    use crate::weights::tests::safetensors;

    struct Folder {
        dir: tempfile::TempDir,
        cache: tempfile::TempDir,
    }

    impl Folder {
        fn new() -> Self {
            let folder = Self { dir: tempfile::tempdir().unwrap(), cache: tempfile::tempdir().unwrap() };
            folder.write("config.json", b"{}");
            folder.write("model.safetensors", &safetensors(&[0; 8]));
            folder
        }

        fn write(&self, name: &str, bytes: &[u8]) {
            fs::write(self.dir.path().join(name), bytes).unwrap();
        }

        fn hash(&self) -> [u8; 32] {
            let files = ModelFiles { id: ModelId::new("any"), dir: self.dir.path().to_owned(), gguf: None };
            content(&files, self.cache.path(), &mut |_| {}).unwrap()
        }

        fn notes(&self) -> Vec<PathBuf> {
            let shelf = self.cache.path().join("identity");
            if shelf.is_dir() { listing(&shelf).unwrap() } else { Vec::new() }
        }

        /// A large file that was not changed lately.
        fn write_large(&self, fill: u8, age: u64) {
            self.write("tokenizer.json", &vec![fill; SMALL as usize]);
            let file = File::options().write(true).open(self.dir.path().join("tokenizer.json")).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        }
    }

    #[test]
    fn the_same_files_are_the_same_model_wherever_they_lie() {
        let (one, other) = (Folder::new(), Folder::new());
        assert_eq!(one.hash(), other.hash());
        for name in ["README.md", "picture.png", "mesh-tiny.Q4_1.gguf", ".DS_Store.json", "other.safetensors"] {
            one.write(name, b"new");
            assert_eq!(one.hash(), other.hash(), "{name}");
        }
    }

    #[test]
    fn every_file_that_a_loader_uses_makes_another_model() {
        let folder = Folder::new();
        let mut seen = vec![folder.hash()];
        folder.write("model.safetensors", &safetensors(&[1; 8]));
        seen.push(folder.hash());
        for name in ["config.json", "tokenizer.json", "chat_template.jinja", "tokenizer.model", "merges.txt"] {
            folder.write(name, b"{ }");
            seen.push(folder.hash());
        }
        fs::rename(folder.dir.path().join("merges.txt"), folder.dir.path().join("vocab.txt")).unwrap();
        seen.push(folder.hash());
        fs::create_dir(folder.dir.path().join("additional_chat_templates")).unwrap();
        folder.write("additional_chat_templates/rag.jinja", b"{}");
        seen.push(folder.hash());
        fs::create_dir(folder.dir.path().join("1_Pooling")).unwrap();
        folder.write("1_Pooling/config.json", b"{}");
        seen.push(folder.hash());
        let count = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }

    #[test]
    fn a_gguf_model_is_its_bytes_whatever_they_are_called() {
        let folder = Folder::new();
        let hash = |parts: &[&str], mmproj: Option<&str>| {
            let path = |name: &&str| folder.dir.path().join(name);
            let gguf = GgufFiles { parts: parts.iter().map(path).collect(), mmproj: mmproj.as_ref().map(path) };
            let dir = folder.dir.path().to_owned();
            content(&ModelFiles { id: ModelId::new("any"), dir, gguf: Some(gguf) }, folder.cache.path(), &mut |_| {})
                .unwrap()
        };
        for (name, bytes) in [("a.gguf", b"1"), ("b.gguf", b"1"), ("c.gguf", b"2")] {
            folder.write(name, bytes);
        }
        let one = hash(&["a.gguf"], None);
        assert_eq!(one, hash(&["b.gguf"], None));
        let others = [
            hash(&["c.gguf"], None),
            hash(&["a.gguf", "c.gguf"], None),
            hash(&["c.gguf", "a.gguf"], None),
            hash(&["a.gguf"], Some("c.gguf")),
        ];
        assert!(!others.contains(&one) && others.iter().collect::<std::collections::BTreeSet<_>>().len() == 4);
        folder.write("config.json", b"{ }");
        assert_eq!(one, hash(&["a.gguf"], None), "other files of the folder are not the model's");
    }

    #[test]
    fn a_large_file_is_read_once_and_again_when_it_changed() {
        let folder = Folder::new();
        folder.write_large(1, 100);
        let first = folder.hash();
        let [note] = folder.notes().try_into().unwrap();
        assert_eq!(folder.hash(), first);
        // What is remembered is believed; what is garbage is not.
        fs::write(&note, blake3::hash(b"other").to_hex().as_str()).unwrap();
        assert_ne!(folder.hash(), first);
        fs::write(&note, "garbage").unwrap();
        assert_eq!(folder.hash(), first);
        folder.write_large(2, 50);
        assert_ne!(folder.hash(), first);
        assert_eq!(folder.notes().len(), 2);
    }

    #[test]
    fn a_file_of_this_moment_is_not_remembered() {
        let folder = Folder::new();
        folder.write_large(1, 0);
        folder.hash();
        assert!(folder.notes().is_empty());
    }

    #[test]
    fn a_cache_that_cannot_be_written_does_not_matter() {
        let folder = Folder::new();
        folder.write_large(1, 100);
        let file = tempfile::NamedTempFile::new().unwrap();
        let files = ModelFiles { id: ModelId::new("any"), dir: folder.dir.path().to_owned(), gguf: None };
        assert_eq!(content(&files, file.path(), &mut |_| {}).unwrap(), folder.hash());
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_named() {
        let folder = Folder::new();
        let path = folder.dir.path().join("config.json");
        let before = fs::metadata(&path).unwrap();
        folder.write("config.json", b"{   }");
        let mut progress = |_: &str| {};
        let mut reading = Reading { total: 1, done: 0, told: Instant::now(), progress: &mut progress };
        let message = read(&path, &before, &mut reading).unwrap_err().to_string();
        assert!(message.contains("config.json") && message.contains("changed while it was read"), "{message}");
    }
}

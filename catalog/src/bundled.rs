//! Models that lie in the binary, and how they get onto the disk; must not know what is in their files.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use mesh_proto::ModelId;

use crate::{CatalogError, ModelFiles};

/// A model in the binary: its files by name.
#[derive(Debug)]
pub(crate) struct Bundle {
    name: &'static str,
    files: &'static [(&'static str, &'static [u8])],
}

macro_rules! files {
    ($dir:literal: $($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/", $dir, "/", $name)))),*]
    };
}

/// Named one by one, so that a file that is missing from the repository fails the build and not the start.
const BUNDLES: &[Bundle] = &[Bundle {
    name: "mesh-tiny",
    files: files!("mesh-tiny":
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
        "chat_template.jinja",
        "mesh-tiny.Q4_1.gguf",
    ),
}];

pub(crate) fn find(name: &str) -> Option<&'static Bundle> {
    BUNDLES.iter().find(|bundle| bundle.name == name)
}

pub(crate) fn names() -> Vec<&'static str> {
    BUNDLES.iter().map(|bundle| bundle.name).collect()
}

impl Bundle {
    /// Puts the files into `CACHE/bundled/NAME-HASH/`, or finds them there. The folder appears whole or not at all,
    /// since several processes may start at once and any of them may be killed.
    pub(crate) fn lay_out(&self, cache: &Path) -> Result<ModelFiles, CatalogError> {
        let shelf = cache.join("bundled");
        let dir = shelf.join(format!("{}-{}", self.name, self.fingerprint()));
        if !self.is_intact(&dir) {
            self.replace(&shelf, &dir).map_err(|cause| CatalogError::Cache { path: shelf, cause })?;
        }
        Ok(ModelFiles { id: ModelId::new(self.name), dir, gguf: None })
    }

    /// Names the content, so that two versions of the binary do not fight over one folder.
    fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for (name, bytes) in self.files {
            hasher.update(name.as_bytes()).update(&[0]).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        }
        hasher.finalize().to_hex().as_str()[..16].to_owned()
    }

    /// Compares every byte: the whole is a few megabytes, and a cache folder is nobody's safe.
    fn is_intact(&self, dir: &Path) -> bool {
        self.files.iter().all(|(name, bytes)| {
            let path = dir.join(name);
            fs::metadata(&path).is_ok_and(|meta| meta.len() == bytes.len() as u64)
                && fs::read(&path).is_ok_and(|found| found == *bytes)
        })
    }

    fn replace(&self, shelf: &Path, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(shelf)?;
        let fresh = unused(shelf);
        let done = self.write(&fresh).and_then(|()| self.put(shelf, &fresh, dir));
        if done.is_err() {
            // What could not be put in place is no use to anybody; that it may stay is not the error to report.
            let _ = fs::remove_dir_all(&fresh);
        }
        done
    }

    fn write(&self, fresh: &Path) -> io::Result<()> {
        fs::create_dir(fresh)?;
        for (name, bytes) in self.files {
            let mut file = fs::File::create_new(fresh.join(name))?;
            io::Write::write_all(&mut file, bytes)?;
            file.sync_all()?;
        }
        Ok(())
    }

    /// Moves the finished folder into place. A whole folder that somebody else put there meanwhile is left alone: they
    /// may be reading it.
    fn put(&self, shelf: &Path, fresh: &Path, dir: &Path) -> io::Result<()> {
        if fs::rename(fresh, dir).is_ok() {
            return Ok(());
        }
        if self.is_intact(dir) {
            return fs::remove_dir_all(fresh);
        }
        let broken = unused(shelf);
        // If another process was quicker here, our own move below tells.
        let _ = fs::rename(dir, &broken);
        let _ = if broken.is_dir() { fs::remove_dir_all(&broken) } else { fs::remove_file(&broken) };
        match fs::rename(fresh, dir) {
            Err(_) if self.is_intact(dir) => fs::remove_dir_all(fresh),
            moved => moved,
        }
    }
}

fn unused(shelf: &Path) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    shelf.join(format!(".tmp-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUNDLE: Bundle = Bundle { name: "toy", files: &[("config.json", b"{}"), ("model.safetensors", b"weights")] };

    #[test]
    fn a_bundle_is_laid_out_once_and_found_again() {
        let cache = tempfile::tempdir().unwrap();
        let files = BUNDLE.lay_out(cache.path()).unwrap();
        assert_eq!(files.id.as_str(), "toy");
        assert_eq!(fs::read(files.dir.join("model.safetensors")).unwrap(), b"weights");
        let made = fs::metadata(&files.dir).unwrap().modified().unwrap();
        assert_eq!(BUNDLE.lay_out(cache.path()).unwrap(), files);
        assert_eq!(fs::metadata(&files.dir).unwrap().modified().unwrap(), made, "not written again");
    }

    #[test]
    fn a_damaged_folder_is_replaced_and_nothing_else_is_left() {
        let cache = tempfile::tempdir().unwrap();
        let dir = BUNDLE.lay_out(cache.path()).unwrap().dir;
        for damage in ["changed", "short", "gone", "file"] {
            match damage {
                "changed" => fs::write(dir.join("model.safetensors"), "wEights").unwrap(),
                "short" => fs::write(dir.join("model.safetensors"), "w").unwrap(),
                "gone" => fs::remove_file(dir.join("config.json")).unwrap(),
                _ => {
                    fs::remove_dir_all(&dir).unwrap();
                    fs::write(&dir, "in the way").unwrap();
                }
            }
            assert_eq!(BUNDLE.lay_out(cache.path()).unwrap().dir, dir, "{damage}");
            assert!(BUNDLE.is_intact(&dir), "{damage}");
        }
        assert_eq!(fs::read_dir(dir.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn eight_processes_at_once_agree_on_one_folder() {
        let cache = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| assert!(BUNDLE.is_intact(&BUNDLE.lay_out(cache.path()).unwrap().dir)));
            }
        });
        assert_eq!(fs::read_dir(cache.path().join("bundled")).unwrap().count(), 1);
    }

    #[test]
    fn an_unwritable_cache_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let message = BUNDLE.lay_out(file.path()).unwrap_err().to_string();
        assert!(message.contains("MESH_LLM_CACHE"), "{message}");
    }
}

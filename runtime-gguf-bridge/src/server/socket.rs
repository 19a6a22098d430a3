//! A private folder with a path short enough for a Unix socket in it; must not know who listens there.

use std::{
    env, fs,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::BridgeError;

/// The socket's name in its folder. llama-server takes a host for a socket by this ending.
pub(super) const SOCKET_NAME: &str = "llama.sock";

/// The longest path of a socket. Unit: bytes. Default: 103. Origin: macOS's `sun_path` has 104 with its end mark,
/// Linux's 108. Cost of more: a path cut off, and another socket than meant.
const MAX_PATH: usize = 103;

/// A folder for one child's socket, open to this user only. Goes when dropped.
pub(super) struct SocketFolder(TempDir);

impl SocketFolder {
    pub(super) fn create() -> Result<Self, BridgeError> {
        Self::create_in(&[&env::temp_dir(), Path::new("/tmp")])
    }

    /// In the first of `bases` that will do.
    fn create_in(bases: &[&Path]) -> Result<Self, BridgeError> {
        let mut why = Vec::new();
        for base in bases {
            let private = fs::Permissions::from_mode(0o700);
            match tempfile::Builder::new().prefix("mesh-llm-").permissions(private).tempdir_in(base) {
                Ok(folder) => {
                    let this = Self(folder);
                    let length = this.socket().as_os_str().as_bytes().len();
                    if length <= MAX_PATH {
                        return Ok(this);
                    }
                    why.push(format!("a socket in {} has a path of {length} bytes, of {MAX_PATH}", base.display()));
                }
                Err(error) => why.push(format!("{}: {error}", base.display())),
            }
        }
        Err(BridgeError::NoSocket { why: why.join("; ") })
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.0.path().join(SOCKET_NAME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_private_short_and_gone_after_use() {
        let folder = SocketFolder::create().unwrap();
        let path = folder.path().to_owned();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert!(folder.socket().as_os_str().len() <= MAX_PATH);
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn a_long_base_is_passed_over_and_none_left_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("x".repeat(90));
        fs::create_dir(&long).unwrap();
        let folder = SocketFolder::create_in(&[&long, dir.path()]).unwrap();
        assert_eq!(folder.path().parent(), Some(dir.path()));
        let told = SocketFolder::create_in(&[&long, Path::new("/nowhere")]).map(|_| ()).unwrap_err().to_string();
        assert!(told.contains("bytes") && told.contains("/nowhere") && told.contains("TMPDIR"), "{told}");
        assert_eq!(fs::read_dir(&long).unwrap().count(), 0);
    }
}

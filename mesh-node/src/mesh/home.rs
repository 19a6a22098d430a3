//! What a member keeps on disk: its key, its certificates, revocations, peers, invitations; must not know the network.
//!
//! ```text
//! STATE/lock                 held while a node uses the folder: one key, one node
//! STATE/ports.json           the UDP ports it had last, taken again if they are free
//! STATE/node.key             64 hexadecimal digits, the ed25519 seed; made once
//! STATE/meshes/ID/chain      the membership certificate, as it came
//! STATE/meshes/ID/revoked    the founder's key and its newest revocation list
//! STATE/meshes/ID/*.json     peers (where they were last), invitations (given out), uses (who came with which), name
//! ```
//! Folders are 0700, files 0600, and each file is replaced whole or not at all.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use mesh_proto::{
    codec::{self, Wire},
    identity::{CertChain, Contact, Invitation, MeshId, NodeId, NodeKey, Nonce, RevocationList, Signed},
    time::UnixMillis,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::MeshError;

/// A state folder that is this process's own.
#[derive(Debug)]
pub(crate) struct Home {
    dir: PathBuf,
    /// Released by the system when the process ends, however it ends.
    _lock: File,
}

/// An invitation that this node gave out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Given {
    pub(crate) invitation: Signed<Invitation>,
    pub(crate) made_at: UnixMillis,
}

/// Who came with an invitation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Used {
    pub(crate) nonce: Nonce,
    pub(crate) not_after: UnixMillis,
    pub(crate) nodes: BTreeSet<NodeId>,
}

impl Home {
    /// Takes the folder.
    ///
    /// # Errors
    /// When it cannot be made, or another node uses it.
    pub(crate) fn open(dir: &Path) -> Result<Self, MeshError> {
        let failed = |cause| MeshError::State { path: dir.to_owned(), cause };
        private_folder(dir).map_err(failed)?;
        let path = dir.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir: dir.to_owned(), _lock: lock }),
            Err(fs::TryLockError::WouldBlock) => Err(MeshError::StateInUse { path: dir.to_owned() }),
            Err(fs::TryLockError::Error(cause)) => Err(failed(cause)),
        }
    }

    /// The node's key, made at the first start.
    pub(crate) fn key(&self) -> Result<NodeKey, MeshError> {
        let path = self.dir.join("node.key");
        let failed = |cause| MeshError::State { path: path.clone(), cause };
        match fs::read_to_string(&path) {
            Ok(text) => {
                let mode = fs::metadata(&path).map_err(failed)?.permissions().mode();
                if mode & 0o077 != 0 {
                    return Err(MeshError::OpenKey { path });
                }
                let bytes = HEXLOWER.decode(text.trim().as_bytes()).ok();
                let seed = bytes.and_then(|bytes| bytes.try_into().ok());
                seed.map(NodeKey::from_seed).ok_or(MeshError::BadKey { path })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let seed: [u8; 32] = rand::random();
                replace(&path, HEXLOWER.encode(&seed).as_bytes()).map_err(failed)?;
                Ok(NodeKey::from_seed(seed))
            }
            Err(cause) => Err(failed(cause)),
        }
    }

    /// The UDP ports that this node had last, IPv4's and IPv6's; 0: none.
    pub(crate) fn ports(&self) -> (u16, u16) {
        let read = fs::read(self.dir.join("ports.json")).ok();
        read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Remembers them, so that who knows this node from before finds it where it was.
    pub(crate) fn keep_ports(&self, ports: (u16, u16)) {
        let kept = serde_json::to_vec(&ports).map_err(io::Error::other);
        if let Err(error) = kept.and_then(|bytes| replace(&self.dir.join("ports.json"), &bytes)) {
            tracing::warn!(%error, "this node's ports are not remembered");
        }
    }

    /// The drawer of one mesh.
    pub(crate) fn drawer(&self, mesh: MeshId) -> Result<Drawer, MeshError> {
        let dir = self.dir.join("meshes").join(mesh.to_string());
        private_folder(&dir).map_err(|cause| MeshError::State { path: dir.clone(), cause })?;
        Ok(Drawer { dir })
    }
}

/// One mesh's files. What cannot be read is as good as absent, with a word in the log: all of it can be had again.
#[derive(Clone, Debug)]
pub(crate) struct Drawer {
    dir: PathBuf,
}

impl Drawer {
    pub(crate) fn chain(&self) -> Option<CertChain> {
        self.wire("chain")
    }

    pub(crate) fn keep_chain(&self, chain: &CertChain) {
        self.keep_wire("chain", chain);
    }

    pub(crate) fn revocations(&self) -> Option<(NodeId, Signed<RevocationList>)> {
        self.json("revoked.json")
    }

    pub(crate) fn keep_revocations(&self, root: NodeId, list: &Signed<RevocationList>) {
        self.keep_json("revoked.json", &(root, list));
    }

    pub(crate) fn peers(&self) -> Vec<Contact> {
        self.json("peers.json").unwrap_or_default()
    }

    pub(crate) fn keep_peers(&self, peers: &[Contact]) {
        self.keep_json("peers.json", &peers);
    }

    pub(crate) fn invitations(&self) -> Vec<Given> {
        self.json("invitations.json").unwrap_or_default()
    }

    pub(crate) fn keep_invitations(&self, given: &[Given]) {
        self.keep_json("invitations.json", &given);
    }

    pub(crate) fn uses(&self) -> Vec<Used> {
        self.json("uses.json").unwrap_or_default()
    }

    pub(crate) fn keep_uses(&self, uses: &[Used]) {
        self.keep_json("uses.json", &uses);
    }

    pub(crate) fn name(&self) -> Option<String> {
        self.json("name.json")
    }

    pub(crate) fn keep_name(&self, name: &str) {
        self.keep_json("name.json", &name);
    }

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        match fs::read(self.dir.join(name)) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(%error, file = name, "cannot read a file of the mesh's state");
                }
                None
            }
        }
    }

    fn json<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let read = serde_json::from_slice(&self.read(name)?);
        read.inspect_err(|error| tracing::warn!(%error, file = name, "cannot use a file of the mesh's state")).ok()
    }

    fn wire<T: Wire>(&self, name: &str) -> Option<T> {
        let read = codec::decode(&self.read(name)?);
        read.inspect_err(|error| tracing::warn!(%error, file = name, "cannot use a file of the mesh's state")).ok()
    }

    fn keep_json(&self, name: &str, value: &impl Serialize) {
        match serde_json::to_vec(value) {
            Ok(bytes) => self.keep(name, &bytes),
            Err(error) => tracing::error!(%error, file = name, "cannot write a file of the mesh's state"),
        }
    }

    fn keep_wire(&self, name: &str, value: &impl Wire) {
        match codec::encode(value) {
            Ok(bytes) => self.keep(name, &bytes),
            Err(error) => tracing::error!(%error, file = name, "cannot write a file of the mesh's state"),
        }
    }

    fn keep(&self, name: &str, bytes: &[u8]) {
        if let Err(error) = replace(&self.dir.join(name), bytes) {
            tracing::error!(%error, file = name, "cannot write a file of the mesh's state");
        }
    }
}

fn private_folder(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Writes a file that only its owner reads. Who reads it meanwhile sees the old one or the new one.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let home = Home::open(&state).unwrap();
        let key = home.key().unwrap();
        assert_eq!(home.key().unwrap().id(), key.id());
        assert_eq!(fs::metadata(state.join("node.key")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
        fs::set_permissions(state.join("node.key"), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(home.key(), Err(MeshError::OpenKey { .. })));
    }

    #[test]
    fn two_nodes_do_not_share_a_state_folder() {
        let dir = tempfile::tempdir().unwrap();
        let first = Home::open(dir.path()).unwrap();
        assert!(matches!(Home::open(dir.path()), Err(MeshError::StateInUse { .. })));
        drop(first);
        assert!(Home::open(dir.path()).is_ok());
    }

    #[test]
    fn a_damaged_key_is_named_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        replace(&dir.path().join("node.key"), b"zz").unwrap();
        assert!(home.key().unwrap_err().to_string().contains("node.key"));
        assert_eq!(fs::read(dir.path().join("node.key")).unwrap(), b"zz");
    }
}

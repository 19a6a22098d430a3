//! Which repositories' files other nodes may have; must not know the files.
//!
//! What everybody may read on the hub, unless the owner shares nothing; what only some may read there (gated, private), only
//! where the owner names it. What the hub said last is remembered, for starts without it.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{cli::Share, mesh::home::replace};

/// Repositories remembered at most; those seen first go. Some bytes each.
const MOST: usize = 4096;

/// See the module's page. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    share: Share,
    path: PathBuf,
    open: Arc<Mutex<BTreeSet<String>>>,
}

impl Shared {
    /// `path`: where it is remembered.
    pub(super) fn new(share: Share, path: PathBuf) -> Self {
        // What cannot be read is seen anew with the next listing.
        let open = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { share, path, open: Arc::new(Mutex::new(open)) }
    }

    /// Whether anything is.
    pub(super) fn any(&self) -> bool {
        self.share != Share::Nothing
    }

    /// Whether a repository's files may go to others.
    pub(super) fn allows(&self, repo: &str) -> bool {
        match &self.share {
            Share::Nothing => false,
            Share::Open { also } => also.iter().any(|named| named == repo) || self.open().contains(repo),
        }
    }

    fn open(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hub lists it, for everybody or not.
    pub(super) fn listed(&self, repo: &str, open: bool) {
        let mut all = self.open();
        let changed = if open { all.len() < MOST && all.insert(repo.to_owned()) } else { all.remove(repo) };
        if changed && let Ok(bytes) = serde_json::to_vec(&*all) {
            // Without it, the next start shares it once the hub has listed it again.
            if let Err(error) = replace(&self.path, &bytes) {
                tracing::warn!(%error, "which repositories are open is not remembered");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_hub_gives_to_some_only_is_shared_where_its_owner_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("open.json");
        let usual = || Shared::new(Share::Open { also: vec!["org/gated".into()] }, path.clone());
        let shared = usual();
        assert!(!shared.allows("org/open"), "nobody knows yet");
        shared.listed("org/open", true);
        shared.listed("org/private", false);
        shared.listed("org/gated", false);
        assert_eq!(["org/open", "org/private", "org/gated"].map(|repo| shared.allows(repo)), [true, false, true]);
        assert!(usual().allows("org/open"), "remembered");
        assert!(!Shared::new(Share::Nothing, path.clone()).allows("org/open"));
        shared.listed("org/open", false);
        assert!(!usual().allows("org/open"), "its owner closed it");
    }
}

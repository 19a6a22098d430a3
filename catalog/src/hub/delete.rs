//! Taking models out of the cache: what would go, and going; must not know the network.
//!
//! Everything is planned first, and the plan is what a dry run shows. A blob goes only with its lock in hand, so that
//! nothing is taken from under a download.

use std::{collections::BTreeSet, fs, io, path::PathBuf};

use super::{FileInfo, Hub, HubError, installed, layout, layout::Place, names};

/// What is, or would be, taken away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// The repositories that it is of.
    pub repos: BTreeSet<String>,
    /// Commits whose files are no longer shown.
    pub commits: Vec<String>,
    /// Files and folders.
    pub paths: Vec<PathBuf>,
    /// Bytes that become free.
    pub bytes: u64,
}

impl Hub {
    /// Takes a repository out of the cache, or one revision of it with the blobs that no other one uses. `dry_run`: only
    /// says what it would take.
    ///
    /// # Errors
    /// When it is not there, is being downloaded, or the disk refuses.
    pub fn delete(&self, repo: &str, revision: Option<&str>, dry_run: bool) -> Result<Removal, HubError> {
        names::check_repo(repo)?;
        let place = self.place(repo);
        if !fs::symlink_metadata(place.root()).is_ok_and(|meta| meta.is_dir()) {
            return Err(self.missing(repo.to_owned()));
        }
        let all = installed::commits(&place);
        let mut removal = Removal { repos: [repo.to_owned()].into(), ..Removal::default() };
        let Some(revision) = revision else {
            removal.commits = all.into_iter().collect();
            let blobs = installed::blobs(&place);
            removal.bytes = blobs.values().sum();
            removal.paths.push(place.root());
            if !dry_run {
                let (_alone, _locks) = (alone(&place, repo)?, locks(&place, repo, blobs.keys())?);
                remove(&place.root())?;
                // Its lock files only now, while they are held: who waits for one finds it gone and asks for another.
                remove(&place.locks())?;
            }
            return Ok(removal);
        };
        names::check_revision(revision)?;
        let commit = place.commit(revision).filter(|commit| all.contains(commit));
        let commit = commit.ok_or_else(|| self.missing(format!("{repo} at {revision}")))?;
        removal.paths.push(place.snapshot(&commit));
        for (name, at) in installed::refs(&place.refs()) {
            if at == commit {
                removal.paths.push(place.refs().join(name));
            }
        }
        removal.commits.push(commit.clone());
        let kept = used(&place, all.iter().filter(|other| **other != commit));
        let sizes = installed::blobs(&place);
        let blobs: Vec<String> =
            place.used(&commit).into_iter().filter(|name| !kept.contains(name) && sizes.contains_key(name)).collect();
        removal.bytes = blobs.iter().filter_map(|name| sizes.get(name)).sum();
        // The names first: a blob without a name is rubbish for `prune`, a name without a blob is a broken model.
        removal.paths.extend(blobs.iter().map(|name| place.blob(name)));
        if !dry_run {
            let (_alone, _locks) = (alone(&place, repo)?, locks(&place, repo, blobs.iter())?);
            for path in &removal.paths {
                remove(path)?;
            }
        }
        Ok(removal)
    }

    /// Takes away one file's bytes, so that the next download fetches them again: what `verify` found wrong.
    ///
    /// # Errors
    /// When it is being downloaded, or the disk refuses.
    pub fn discard(&self, repo: &str, file: &FileInfo) -> Result<(), HubError> {
        names::check_repo(repo)?;
        let place = self.place(repo);
        let name = layout::blob_name(file).filter(|name| names::is_oid(name) || names::is_sha256(name));
        let name = name.ok_or_else(|| self.missing(format!("{} of {repo}", names::shown(&file.path))))?.to_owned();
        let (_alone, _locks) = (alone(&place, repo)?, locks(&place, repo, [&name].into_iter())?);
        remove(&place.blob(&name))
    }

    /// Takes away what nobody uses: blobs that no snapshot shows, and downloads that ended in the middle.
    ///
    /// # Errors
    /// When the disk refuses. What is being downloaded right now stays.
    pub fn prune(&self, dry_run: bool) -> Result<Removal, HubError> {
        let mut whole = Removal::default();
        for one in self.installed() {
            let place = self.place(&one.repo);
            place.prepare()?;
            // Somebody adds to it right now; what is rubbish there will still be rubbish later.
            let Some(_alone) = place.claim(true)? else { continue };
            let kept = used(&place, installed::commits(&place).iter());
            for (name, bytes) in installed::blobs(&place) {
                let blob = name.split('.').next().unwrap_or_default();
                let ours = names::is_oid(blob) || names::is_sha256(blob);
                if !ours || kept.contains(&name) {
                    continue;
                }
                let Some(_lock) = place.try_lock(blob)? else { continue };
                whole.repos.insert(one.repo.clone());
                whole.bytes += bytes;
                whole.paths.push(place.blob(&name));
                if !dry_run {
                    remove(&place.blob(&name))?;
                }
            }
        }
        Ok(whole)
    }
}

/// Blobs that these commits may show.
fn used<'a>(place: &Place, commits: impl Iterator<Item = &'a String>) -> BTreeSet<String> {
    commits.flat_map(|commit| place.used(commit)).collect()
}

fn locks<'a>(place: &Place, repo: &str, names: impl Iterator<Item = &'a String>) -> Result<Vec<fs::File>, HubError> {
    let blobs: BTreeSet<&str> = names.filter_map(|name| name.split('.').next()).collect();
    let ours = blobs.into_iter().filter(|name| names::is_oid(name) || names::is_sha256(name));
    ours.map(|name| place.try_lock(name)?.ok_or_else(|| HubError::Busy { repo: repo.to_owned() })).collect()
}

fn alone(place: &Place, repo: &str) -> Result<fs::File, HubError> {
    place.prepare()?;
    place.claim(true)?.ok_or_else(|| HubError::Busy { repo: repo.to_owned() })
}

/// Links are removed and not followed.
fn remove(path: &std::path::Path) -> Result<(), HubError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(HubError::io(path)(error)),
        _ => Ok(()),
    }
}

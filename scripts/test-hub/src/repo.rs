//! Repositories: commits, branches and files, as a test writes them down; must not know HTTP.

use std::{collections::BTreeMap, io};

use crate::content::{Content, sha1};

/// A repository, written as a chain: files go onto the current branch (`main` at first), and are committed by
/// [`commit`](Repo::commit), [`branch`](Repo::branch), [`tag`](Repo::tag) or the start of the hub.
#[derive(Clone, Debug)]
pub struct Repo {
    pub(crate) id: String,
    pub(crate) gated: Option<&'static str>,
    pub(crate) private: bool,
    pub(crate) tokens: Vec<String>,
    pub(crate) tags: Vec<String>,
    pub(crate) downloads: u64,
    work: BTreeMap<String, Entry>,
    branch: String,
    dirty: bool,
    commits: Vec<(String, BTreeMap<String, Entry>)>,
    refs: BTreeMap<String, usize>,
    git_tags: BTreeMap<String, usize>,
}

#[derive(Clone, Debug)]
struct Entry {
    content: Content,
    lfs: bool,
    claimed_sha256: Option<String>,
    claimed_bytes: Option<u64>,
}

/// A file of one commit, with what the hub says about it.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) content: Content,
    /// What git calls it; of a file in LFS, its pointer.
    pub(crate) oid: String,
    /// The SHA-256 that the hub claims, of a file in LFS.
    pub(crate) sha256: Option<String>,
    /// The length that the listing claims.
    pub(crate) bytes: u64,
}

impl Stored {
    /// What a cache calls the file.
    pub(crate) fn etag(&self) -> &str {
        self.sha256.as_deref().unwrap_or(&self.oid)
    }
}

pub(crate) type Tree = BTreeMap<String, Stored>;

/// A repository as it is served.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) repo: Repo,
    pub(crate) trees: BTreeMap<String, Tree>,
}

impl Repo {
    /// An empty public repository, `org/name`.
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            gated: None,
            private: false,
            tokens: Vec::new(),
            tags: Vec::new(),
            downloads: 0,
            work: BTreeMap::new(),
            branch: "main".to_owned(),
            dirty: true,
            commits: Vec::new(),
            refs: BTreeMap::new(),
            git_tags: BTreeMap::new(),
        }
    }

    /// Puts a file that git holds itself. Its path is not checked: a hostile hub lists what it likes.
    #[must_use]
    pub fn file(self, path: impl Into<String>, content: impl Into<Content>) -> Self {
        self.put(path.into(), content.into(), false)
    }

    /// Puts a file that lies in LFS, which is where everything large does: it is served by the CDN.
    #[must_use]
    pub fn lfs(self, path: impl Into<String>, content: impl Into<Content>) -> Self {
        self.put(path.into(), content.into(), true)
    }

    /// Takes a file away.
    #[must_use]
    pub fn remove(mut self, path: &str) -> Self {
        self.work.remove(path);
        self.dirty = true;
        self
    }

    /// The listing and the headers name another SHA-256 than the file's own.
    #[must_use]
    pub fn claim_sha256(mut self, path: &str, sha256: impl Into<String>) -> Self {
        if let Some(entry) = self.work.get_mut(path) {
            entry.claimed_sha256 = Some(sha256.into());
            self.dirty = true;
        }
        self
    }

    /// The listing and the headers name another length than the file's own.
    #[must_use]
    pub fn claim_bytes(mut self, path: &str, bytes: u64) -> Self {
        if let Some(entry) = self.work.get_mut(path) {
            entry.claimed_bytes = Some(bytes);
            self.dirty = true;
        }
        self
    }

    /// Ends a commit; what follows is the next one.
    #[must_use]
    pub fn commit(mut self) -> Self {
        self.seal();
        self
    }

    /// Commits, and goes on with a new branch that starts there.
    #[must_use]
    pub fn branch(mut self, name: impl Into<String>) -> Self {
        self.seal();
        self.branch = name.into();
        self.point();
        self
    }

    /// Commits, and tags the commit.
    #[must_use]
    pub fn tag(mut self, name: impl Into<String>) -> Self {
        self.seal();
        self.git_tags.insert(name.into(), self.commits.len() - 1);
        self
    }

    /// Its terms must be accepted first: only these tokens get its files (its listing is open to all, as on the hub).
    #[must_use]
    pub fn gated<T: Into<String>>(mut self, tokens: impl IntoIterator<Item = T>) -> Self {
        self.gated = Some("auto");
        self.tokens.extend(tokens.into_iter().map(Into::into));
        self
    }

    /// Only these tokens see that it exists.
    #[must_use]
    pub fn private<T: Into<String>>(mut self, tokens: impl IntoIterator<Item = T>) -> Self {
        self.private = true;
        self.tokens.extend(tokens.into_iter().map(Into::into));
        self
    }

    /// A tag that the search filters by: `mlx`, `gguf`, …
    #[must_use]
    pub fn label(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// How often it was downloaded, for the search.
    #[must_use]
    pub fn downloads(mut self, count: u64) -> Self {
        self.downloads = count;
        self
    }

    fn put(mut self, path: String, content: Content, lfs: bool) -> Self {
        self.work.insert(path, Entry { content, lfs, claimed_sha256: None, claimed_bytes: None });
        self.dirty = true;
        self
    }

    fn seal(&mut self) {
        if self.dirty {
            // Of the number and the id: a commit's name need not tell its content, and contents may be large.
            let sha = sha1(&format!("{} {} {}", self.id, self.branch, self.commits.len()));
            self.commits.push((sha, self.work.clone()));
            self.dirty = false;
        }
        self.point();
    }

    fn point(&mut self) {
        self.refs.insert(self.branch.clone(), self.commits.len() - 1);
    }

    pub(crate) fn serve(mut self) -> io::Result<Served> {
        self.seal();
        let mut trees = BTreeMap::new();
        for (sha, files) in &self.commits {
            let tree = files.iter().map(|(path, entry)| Ok((path.clone(), stored(entry)?)));
            trees.insert(sha.clone(), tree.collect::<io::Result<Tree>>()?);
        }
        Ok(Served { repo: self, trees })
    }
}

fn stored(entry: &Entry) -> io::Result<Stored> {
    let bytes = entry.claimed_bytes.unwrap_or(entry.content.len());
    if !entry.lfs {
        return Ok(Stored { content: entry.content.clone(), oid: entry.content.git_oid()?, sha256: None, bytes });
    }
    let sha256 = match &entry.claimed_sha256 {
        Some(claimed) => claimed.clone(),
        None => entry.content.sha256()?,
    };
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {bytes}\n");
    let oid = Content::from(pointer).git_oid()?;
    Ok(Stored { content: entry.content.clone(), oid, sha256: Some(sha256), bytes })
}

impl Served {
    /// The commit that a branch, a tag or a commit's own name means. As on the hub, a commit's beginning is no name.
    pub(crate) fn commit(&self, revision: &str) -> Option<(&str, &Tree)> {
        let index = self.repo.refs.get(revision).or_else(|| self.repo.git_tags.get(revision));
        let sha = match index {
            Some(index) => self.repo.commits.get(*index).map(|(sha, _)| sha.as_str())?,
            None => revision,
        };
        self.trees.get_key_value(sha).map(|(sha, tree)| (sha.as_str(), tree))
    }

    pub(crate) fn branches(&self) -> impl Iterator<Item = (&str, &str)> {
        self.named(&self.repo.refs)
    }

    pub(crate) fn git_tags(&self) -> impl Iterator<Item = (&str, &str)> {
        self.named(&self.repo.git_tags)
    }

    fn named<'a>(&'a self, refs: &'a BTreeMap<String, usize>) -> impl Iterator<Item = (&'a str, &'a str)> {
        refs.iter().filter_map(|(name, index)| Some((name.as_str(), self.repo.commits.get(*index)?.0.as_str())))
    }
}

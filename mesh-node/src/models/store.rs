//! What is done with the hub and its cache: download, search, list, verify, delete; must not know engines or the node.

use bytesize::ByteSize;
use catalog::{
    Format, ModelFiles,
    hub::{Hub, HubConfig, HubError, Installed, Removal},
};
use comfy_table::{Table, presets};
use serde::Serialize;
use serde_json::json;
use tokio::task::spawn_blocking;

use super::ModelsError;
use crate::{
    arrivals,
    cli::{ModelsAsk, say},
};

/// What was asked about the hub, and how it is to be answered.
pub(super) struct Store {
    pub(super) hub: Option<HubConfig>,
    pub(super) cache: std::path::PathBuf,
    pub(super) json: bool,
}

impl Store {
    /// Answers; `None`: that is no question about the hub.
    pub(super) async fn answer(&self, ask: &ModelsAsk) -> Option<Result<(), ModelsError>> {
        Some(match ask {
            ModelsAsk::List(_) | ModelsAsk::Show(..) => return None,
            ModelsAsk::Installed => self.installed().await,
            ModelsAsk::Download(name, format) => self.download(name, *format).await,
            ModelsAsk::Search(words, format, most) => self.search(words, *format, *most).await,
            ModelsAsk::Verify(repo) => self.verify(repo.clone()).await,
            ModelsAsk::Delete { repo, revision, yes } => {
                let (repo, revision, yes) = (repo.clone(), revision.clone(), *yes);
                let removal = self.with_hub(move |hub| hub.delete(&repo, revision.as_deref(), !yes)).await;
                removal.and_then(|removal| self.removed(&removal, yes))
            }
            ModelsAsk::Prune { yes } => {
                let yes = *yes;
                let removal = self.with_hub(move |hub| hub.prune(!yes)).await;
                removal.and_then(|removal| self.removed(&removal, yes))
            }
        })
    }

    fn hub(&self) -> Result<Hub, ModelsError> {
        let config = self.hub.clone().ok_or(ModelsError::NoCache)?;
        Ok(Hub::new(config)?)
    }

    /// What looks at the disk, on a thread that may wait for it.
    async fn with_hub<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Hub) -> Result<T, HubError> + Send + 'static,
    ) -> Result<T, ModelsError> {
        let hub = self.hub()?;
        let done = spawn_blocking(move || work(&hub)).await;
        Ok(done.map_err(|panic| ModelsError::Panicked(panic.to_string()))??)
    }

    fn print(&self, value: &impl Serialize, words: impl FnOnce() -> String) -> Result<(), ModelsError> {
        say::result(if self.json { serde_json::to_string_pretty(value)? } else { words() });
        Ok(())
    }

    async fn download(&self, name: &str, format: Option<Format>) -> Result<(), ModelsError> {
        let endpoint = self.hub.as_ref().map_or(catalog::hub::HUB, |hub| hub.endpoint.as_str());
        let files = match catalog::on_hub(name, format, endpoint)? {
            Some(model) => {
                let fetched = arrivals::fetch(name, &model, self.hub.as_ref(), None).await;
                fetched.map_err(ModelsError::Fetch)?
            }
            None => catalog::resolve(name, &self.cache, format, None)?,
        };
        let ModelFiles { id, dir, gguf } = files;
        let parts = gguf.map(|gguf| gguf.parts).unwrap_or_default();
        let shown = parts.first().unwrap_or(&dir).display().to_string();
        let value = json!({ "id": id.as_str(), "dir": dir, "files": parts });
        self.print(&value, || format!("{id} is here: {shown}"))
    }

    async fn search(&self, words: &str, format: Option<Format>, most: usize) -> Result<(), ModelsError> {
        let found = self.hub()?.search(words, format, most).await?;
        let rows: Vec<serde_json::Value> = found
            .iter()
            .map(|one| {
                json!({ "repository": one.repo, "downloads": one.downloads, "likes": one.likes, "gated": one.gated,
                    "changed": one.changed, "tags": one.tags })
            })
            .collect();
        self.print(&json!({ "models": rows }), || {
            if found.is_empty() {
                return "the hub has nothing by these words".to_owned();
            }
            let mut table = table(&["REPOSITORY", "DOWNLOADS", "LIKES", "CHANGED", "TERMS"]);
            for one in &found {
                let changed = one.changed.as_deref().unwrap_or_default().get(..10).unwrap_or_default();
                let terms = if one.gated { "to be accepted first" } else { "" };
                let (downloads, likes) = (one.downloads.to_string(), one.likes.to_string());
                table.add_row([plain(&one.repo), downloads, likes, plain(changed), terms.to_owned()]);
            }
            table.trim_fmt()
        })
    }

    async fn installed(&self) -> Result<(), ModelsError> {
        let mut found = self.with_hub(|hub| Ok(hub.installed())).await?;
        found.sort_by(|a, b| a.repo.cmp(&b.repo));
        let rows: Vec<serde_json::Value> = found.iter().map(row).collect();
        self.print(&json!({ "models": rows }), || {
            if found.is_empty() {
                return "nothing has been downloaded from the hub; mesh-llm models download NAME does".to_owned();
            }
            let mut table = table(&["REPOSITORY", "SIZE", "UNFINISHED", "REVISIONS"]);
            for one in &found {
                let refs: Vec<String> = one.snapshots.iter().map(named).collect();
                let unfinished = if one.unfinished > 0 { ByteSize(one.unfinished).to_string() } else { String::new() };
                table.add_row([plain(&one.repo), ByteSize(one.bytes).to_string(), unfinished, plain(&refs.join(", "))]);
            }
            table.trim_fmt()
        })
    }

    async fn verify(&self, repo: String) -> Result<(), ModelsError> {
        let asked = repo.clone();
        let seen =
            |file: &catalog::hub::FileInfo| say::note(format!("reading {} ({})", file.path, ByteSize(file.bytes)));
        let checked = self.with_hub(move |hub| hub.verify(&asked, seen)).await?;
        let wrong: Vec<String> = checked.iter().filter(|one| !one.right).map(|one| plain(&one.file.path)).collect();
        let rows: Vec<serde_json::Value> =
            checked.iter().map(|one| json!({ "file": one.file.path, "right": one.right })).collect();
        self.print(&json!({ "repository": repo, "files": rows }), || {
            format!("{repo}: {} of {} files are what they should be", checked.len() - wrong.len(), checked.len())
        })?;
        if wrong.is_empty() { Ok(()) } else { Err(ModelsError::Wrong { repo, files: wrong }) }
    }

    fn removed(&self, removal: &Removal, yes: bool) -> Result<(), ModelsError> {
        let value = json!({ "removed": yes, "repositories": removal.repos, "commits": removal.commits,
            "bytes": removal.bytes, "paths": removal.paths });
        self.print(&value, || {
            let bytes = ByteSize(removal.bytes);
            let files = removal.paths.len();
            if yes {
                format!("{bytes} are free again ({files} files and folders)")
            } else {
                format!("this would free {bytes} ({files} files and folders); --yes does it")
            }
        })
    }
}

fn row(one: &Installed) -> serde_json::Value {
    let snapshots: Vec<serde_json::Value> = one
        .snapshots
        .iter()
        .map(|snapshot| {
            let files: Vec<&str> = snapshot.files.iter().map(|file| file.path.as_str()).collect();
            json!({ "commit": snapshot.commit, "refs": snapshot.refs, "dir": snapshot.dir, "files": files })
        })
        .collect();
    json!({ "repository": one.repo, "bytes": one.bytes, "unfinished_bytes": one.unfinished, "snapshots": snapshots })
}

/// A revision's name, or the beginning of its commit.
fn named(snapshot: &catalog::hub::Snapshots) -> String {
    let commit = snapshot.commit.get(..8).unwrap_or(&snapshot.commit).to_owned();
    if snapshot.refs.is_empty() { commit } else { snapshot.refs.join(", ") }
}

fn table(names: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(names.iter().copied());
    table
}

/// What strangers wrote, fit for a terminal.
fn plain(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).collect()
}

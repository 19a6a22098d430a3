//! From a repository to model files: what is small comes first and decides whether what is large is worth it; must not know
//! how a reference is written.

use std::{collections::BTreeMap, fs, path::Path};

use mesh_proto::ModelId;
use serde_json::Value;

use super::{FileInfo, Hub, HubConfig, HubError, Listing, Progress, Selection, layout, names, progress::Listener};
use crate::{
    CatalogError, Format, ModelFiles,
    reference::{self, HubReference, PickError},
};

/// A `config.json` or an index beyond this is none. Real ones have some kilobytes, and some megabytes.
const SIDECAR_BYTES: u64 = 64 << 20;

/// How a model is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// What `--mlx` or `--gguf` said; `None`: what is there, if it is one thing.
    pub format: Option<Format>,
    /// The families (`model_type`) that the MLX engine can compute.
    pub families: &'a [&'a str],
    /// With a GGUF model, also its likeliest projector in the same repository.
    pub projector: bool,
}

/// A model that is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its files. An MLX model is called what its repository is called, a GGUF model what its file is called.
    pub files: ModelFiles,
    /// The commit that they are of.
    pub commit: String,
    /// Why the hub was not asked whether there is a newer one: it could not be reached, and all was here.
    pub unreachable: Option<String>,
}

/// Brings a model into the cache, unless it is there.
///
/// # Errors
/// When the hub or the disk refuses, or the reference means no one model there; when MLX cannot compute the model or its
/// index names files that are not there, before anything large is downloaded.
pub async fn fetch(
    hub: &Hub,
    reference: &HubReference,
    wanted: Wanted<'_>,
    progress: impl Fn(Progress) + Send + Sync,
) -> Result<Fetched, CatalogError> {
    let (repo, revision) = (reference.repo.as_str(), reference.revision.as_deref().unwrap_or("main"));
    let error = match hub.files(repo, revision).await {
        Ok(listing) => return bring(hub, reference, wanted, listing, &progress).await,
        Err(error) => error,
    };
    // A hub that cannot be reached is no reason not to serve what is here.
    let passing = matches!(
        error,
        HubError::Connection { .. } | HubError::RateLimited { .. } | HubError::Status { status: 500.., .. }
    );
    let Some(listing) = hub.cached(repo, revision).ok().filter(|_| passing) else { return Err(error.into()) };
    let offline = Hub::new(HubConfig { offline: true, ..hub.config().clone() })?;
    match bring(&offline, reference, wanted, listing, &progress).await {
        Ok(fetched) => Ok(Fetched { unreachable: Some(error.to_string()), ..fetched }),
        Err(CatalogError::Hub(HubError::Offline { .. })) => Err(error.into()),
        Err(other) => Err(other),
    }
}

async fn bring(
    hub: &Hub,
    reference: &HubReference,
    wanted: Wanted<'_>,
    listing: Listing,
    progress: Listener<'_>,
) -> Result<Fetched, CatalogError> {
    let (repo, revision) = (reference.repo.as_str(), reference.revision.as_deref().unwrap_or("main"));
    let plain: Vec<reference::FileInfo> = listing.files.iter().map(plain).collect();
    let mut picked = reference::pick(&plain, reference, wanted.format).map_err(|error| refused(hub, repo, error))?;
    let by_path: BTreeMap<&str, &FileInfo> = listing.files.iter().map(|file| (file.path.as_str(), file)).collect();
    let infos = |files: &mut dyn Iterator<Item = &reference::FileInfo>| -> Vec<FileInfo> {
        files.filter_map(|file| by_path.get(file.path.as_str()).map(|file| (*file).clone())).collect()
    };
    let selection = |files: Vec<FileInfo>| Selection {
        repo: repo.to_owned(),
        revision: revision.to_owned(),
        commit: listing.commit.clone(),
        files,
    };
    if picked.format == Format::Mlx {
        let config = picked.sidecars.first().map(|file| file.path.clone()).unwrap_or_default();
        let small = infos(&mut picked.sidecars.iter().take(1).chain(&picked.index));
        // Seen by nobody else yet: a model that is refused leaves no snapshot.
        let small = selection(small);
        hub.blobs(&small, &|_| {}).await?;
        check_family(hub, &small, &config, wanted.families)?;
        if let Some(index) = picked.index.as_ref().map(|file| file.path.clone()) {
            let text = sidecar(hub, &small, &index)?;
            picked = picked.with_index(&plain, &text).map_err(|error| refused(hub, repo, error))?;
        }
    }
    let mut files = infos(&mut picked.files());
    if wanted.projector {
        files.extend(infos(&mut picked.projectors.iter().take(1)));
    }
    let snapshot = hub.download(&selection(files), progress).await?;
    let name = name(reference, &picked.dir);
    let projector = wanted.projector;
    let opening = tokio::task::spawn_blocking(move || match picked.format {
        Format::Mlx => {
            let files = crate::open(&snapshot.dir.join(&picked.dir))?;
            Ok(ModelFiles { id: name, ..files })
        }
        Format::Gguf => {
            let main = picked.weights.first().map_or(snapshot.dir.clone(), |file| snapshot.dir.join(&file.path));
            let mmproj = picked.projectors.first().filter(|_| projector).map(|file| snapshot.dir.join(&file.path));
            crate::open_gguf(&main, mmproj.as_deref())
        }
    });
    let opened: Result<ModelFiles, CatalogError> =
        opening.await.map_err(|panic| HubError::Panicked(panic.to_string()))?;
    Ok(Fetched { files: opened?, commit: listing.commit, unreachable: None })
}

fn plain(file: &FileInfo) -> reference::FileInfo {
    reference::FileInfo { path: file.path.clone(), bytes: file.bytes }
}

/// An MLX model's name: its repository's, with its folder's where it has one.
fn name(reference: &HubReference, dir: &str) -> ModelId {
    let name = reference.repo.name();
    if dir.is_empty() { ModelId::new(name) } else { ModelId::new(format!("{name}-{}", dir.replace('/', "-"))) }
}

/// Offline, what a repository seems to lack may only be missing here.
fn refused(hub: &Hub, repo: &str, error: PickError) -> CatalogError {
    use PickError::{Incomplete, Index, Missing, NoModel};
    match error {
        NoModel { .. } | Missing { .. } | Incomplete { .. } | Index { .. } if hub.config().offline => {
            hub.missing(format!("all of {repo} ({error})")).into()
        }
        other => other.into(),
    }
}

fn check_family(hub: &Hub, selection: &Selection, path: &str, families: &[&str]) -> Result<(), CatalogError> {
    let text = sidecar(hub, selection, path)?;
    let config: Value = serde_json::from_slice(&text)
        .map_err(|error| damaged(&selection.repo, path, format!("not valid JSON: {error}")))?;
    let family = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
    if families.contains(&family) {
        return Ok(());
    }
    Err(CatalogError::Family {
        repo: selection.repo.clone(),
        family: names::shown(family),
        families: families.iter().map(|name| (*name).to_owned()).collect(),
    })
}

/// A small file whose bytes are here.
fn sidecar(hub: &Hub, selection: &Selection, path: &str) -> Result<Vec<u8>, CatalogError> {
    let file = selection.files.iter().find(|file| file.path == path);
    let file = file.ok_or_else(|| damaged(&selection.repo, path, "not in the repository".into()))?;
    if file.bytes > SIDECAR_BYTES {
        return Err(damaged(&selection.repo, path, format!("{} bytes: no such file is that large", file.bytes)));
    }
    let blob = hub.place(&selection.repo).blob(layout::blob_name(file).unwrap_or_default());
    Ok(fs::read(&blob).map_err(HubError::io(&blob))?)
}

fn damaged(repo: &str, path: &str, message: String) -> CatalogError {
    CatalogError::Damaged { path: Path::new(repo).join(path), message }
}

//! The JSON side of the hub: models, their files, the search; must not know how answers are sent.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    reply::{Query, Reply, Visitor},
    repo::{Served, Stored, Tree},
};

/// Bytes of an LFS pointer file, which the hub reports; nobody reads it.
const POINTER_BYTES: u64 = 135;

/// `GET /api/models`.
pub(crate) fn search(all: &[std::sync::Arc<Served>], visitor: &Visitor<'_>, page: usize) -> Reply {
    let query = visitor.query;
    let wanted = query.first("search").unwrap_or_default().to_lowercase();
    let filters: Vec<String> =
        query.all("filter").flat_map(|filter| filter.split(',').map(str::to_lowercase).collect::<Vec<_>>()).collect();
    let mut found: Vec<&std::sync::Arc<Served>> = all
        .iter()
        .filter(|served| {
            let (repo, tags) = (&served.repo, tags(served));
            let author = query.first("author").is_none_or(|author| repo.id.split('/').next() == Some(author));
            let words = wanted.split_whitespace().all(|word| repo.id.to_lowercase().contains(word));
            let tagged = filters.iter().all(|filter| tags.iter().any(|tag| tag.eq_ignore_ascii_case(filter)));
            (!repo.private || visitor.may_read(served)) && author && words && tagged
        })
        .collect();
    found.sort_by(|a, b| b.repo.downloads.cmp(&a.repo.downloads).then_with(|| a.repo.id.cmp(&b.repo.id)));
    let full = query.is("full") || query.all("expand").next().is_some() || query.all("expand[]").next().is_some();
    let items: Vec<Value> = found.iter().map(|served| model(served, "main", full, false)).collect();
    let page = query.first("limit").and_then(|limit| limit.parse().ok()).unwrap_or(page).min(page);
    paged(items, visitor, page)
}

/// `GET /api/models/ORG/NAME[/revision/REV]`.
pub(crate) fn info(served: &Served, revision: &str, query: &Query) -> Reply {
    if served.commit(revision).is_none() {
        return no_revision(revision);
    }
    Reply::json(&model(served, revision, true, query.is("blobs")))
}

/// `GET /api/models/ORG/NAME/tree/REV[/FOLDER]`.
pub(crate) fn tree(served: &Served, revision: &str, folder: &str, visitor: &Visitor<'_>, page: usize) -> Reply {
    let Some((_, files)) = served.commit(revision) else { return no_revision(revision) };
    let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let recursive = visitor.query.is("recursive");
    let mut folders = BTreeSet::new();
    let mut items = Vec::new();
    for (path, stored) in files.iter().filter(|(path, _)| path.starts_with(&prefix)) {
        let below = &path[prefix.len()..];
        for (at, _) in below.match_indices('/').filter(|(at, _)| *at > 0).take(if recursive { usize::MAX } else { 1 }) {
            let name = &path[..prefix.len() + at];
            if folders.insert(name.to_owned()) {
                items.push(json!({ "type": "directory", "oid": crate::content::sha1(name), "size": 0, "path": name }));
            }
        }
        if recursive || !below.contains('/') {
            items.push(entry(path, stored));
        }
    }
    if items.is_empty() && !folder.is_empty() {
        return Reply::error(404, Some("EntryNotFound"), "Entry not found");
    }
    paged(items, visitor, page)
}

/// `POST /api/models/ORG/NAME/paths-info/REV`.
pub(crate) fn paths_info(served: &Served, revision: &str, body: &[u8]) -> Reply {
    let Some((_, files)) = served.commit(revision) else { return no_revision(revision) };
    let asked: Value = serde_json::from_slice(body).unwrap_or_default();
    let paths = asked["paths"].as_array().cloned().unwrap_or_default();
    let known = |path: &Value| path.as_str().and_then(|path| Some(entry(path, files.get(path)?)));
    Reply::json(&Value::Array(paths.iter().filter_map(known).collect()))
}

/// `GET /api/models/ORG/NAME/refs`.
pub(crate) fn refs(served: &Served) -> Reply {
    let named = |kind: &str, (name, sha): (&str, &str)| {
        let full = format!("refs/{kind}/{name}");
        json!({ "name": name, "ref": full, "targetCommit": sha })
    };
    Reply::json(&json!({
        "branches": served.branches().map(|one| named("heads", one)).collect::<Vec<_>>(),
        "tags": served.git_tags().map(|one| named("tags", one)).collect::<Vec<_>>(),
        "converts": [],
    }))
}

pub(crate) fn no_revision(revision: &str) -> Reply {
    Reply::error(404, Some("RevisionNotFound"), &format!("Invalid rev id: {revision}"))
}

fn model(served: &Served, revision: &str, full: bool, blobs: bool) -> Value {
    let repo = &served.repo;
    let (sha, files) = served.commit(revision).unwrap_or(("", const { &Tree::new() }));
    let mut model = json!({
        "_id": &crate::content::sha1(&repo.id)[..24],
        "id": repo.id,
        "modelId": repo.id,
        "author": repo.id.split('/').next(),
        "sha": sha,
        "lastModified": "2026-01-02T03:04:05.000Z",
        "createdAt": "2025-01-02T03:04:05.000Z",
        "private": repo.private,
        "disabled": false,
        "gated": repo.gated.map_or(Value::Bool(false), Value::from),
        "downloads": repo.downloads,
        "likes": 0,
        "pipeline_tag": "text-generation",
        "tags": tags(served),
    });
    if full {
        model["siblings"] = files.iter().map(|(path, stored)| sibling(path, stored, blobs)).collect();
    }
    model
}

/// Those that were written down, and those that the hub finds in the files.
fn tags(served: &Served) -> Vec<String> {
    let mut tags = served.repo.tags.clone();
    let files = served.commit("main").map(|(_, files)| files);
    for kind in ["gguf", "safetensors"] {
        let ending = format!(".{kind}");
        let has = files.is_some_and(|files| files.keys().any(|path| path.ends_with(&ending)));
        if has && !tags.iter().any(|tag| tag == kind) {
            tags.push(kind.to_owned());
        }
    }
    tags
}

fn sibling(path: &str, stored: &Stored, blobs: bool) -> Value {
    let mut sibling = json!({ "rfilename": path });
    if blobs {
        sibling["size"] = stored.bytes.into();
        sibling["blobId"] = stored.oid.as_str().into();
        if let Some(sha256) = &stored.sha256 {
            sibling["lfs"] = json!({ "sha256": sha256, "size": stored.bytes, "pointerSize": POINTER_BYTES });
        }
    }
    sibling
}

fn entry(path: &str, stored: &Stored) -> Value {
    let mut entry = json!({ "type": "file", "oid": stored.oid, "size": stored.bytes, "path": path });
    if let Some(sha256) = &stored.sha256 {
        entry["lfs"] = json!({ "oid": sha256, "size": stored.bytes, "pointerSize": POINTER_BYTES });
    }
    entry
}

/// One page of them, and where the next one is.
fn paged(items: Vec<Value>, visitor: &Visitor<'_>, page: usize) -> Reply {
    let start: usize = visitor.query.first("cursor").and_then(|cursor| cursor.parse().ok()).unwrap_or(0);
    let end = start.saturating_add(page.max(1)).min(items.len());
    let shown = items.get(start..end).unwrap_or_default().to_vec();
    let reply = Reply::json(&Value::Array(shown));
    if end >= items.len() {
        return reply;
    }
    let query = visitor.query.with("cursor", &end.to_string());
    reply.header("link", format!("<{}{}?{query}>; rel=\"next\"", visitor.url, visitor.raw_path))
}

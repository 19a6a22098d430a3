//! What a repository holds, as the hub's API tells it; must not know the disk.

use std::collections::BTreeSet;

use reqwest::{
    Url,
    header::{HeaderMap, LINK},
};
use serde::Deserialize;
use serde_json::Value;

use super::{
    FileInfo, HubError, Listing,
    http::{About, Client, Failure, Tries},
    names,
};

/// Bytes of all a listing's JSON at most. Ours; ten times what the largest model repositories need.
const LISTING_BYTES: usize = 64 << 20;
/// Files of a repository at most. Ours; the hub advises against more.
const FILES: usize = 100_000;

#[derive(Deserialize)]
struct Info {
    sha: Option<String>,
    /// `false`, `"auto"` or `"manual"`.
    #[serde(default)]
    gated: Value,
    private: Option<bool>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    oid: String,
    #[serde(default)]
    size: u64,
    path: String,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

/// The commit of a revision, and the files of that commit.
pub(crate) async fn listing(client: &Client, repo: &str, revision: &str) -> Result<Listing, HubError> {
    names::check_repo(repo)?;
    names::check_revision(revision)?;
    let about = About { repo, revision, file: None };
    let nonsense = |why: String| HubError::Nonsense { what: repo.to_owned(), why };
    let url = client.url(&format!("api/models/{repo}/revision/{}", names::encoded(revision, false)))?;
    let mut left = LISTING_BYTES;
    let (body, _) = page(client, &url, &mut left, about).await?;
    let info: Info = serde_json::from_slice(&body).map_err(|error| nonsense(error.to_string()))?;
    let commit = info.sha.filter(|sha| names::is_oid(sha)).ok_or_else(|| nonsense("it names no commit".into()))?;

    let first = client.url(&format!("api/models/{repo}/tree/{commit}?recursive=true&expand=false"))?;
    let mut next = Some(first.clone());
    let (mut files, mut seen) = (Vec::new(), BTreeSet::new());
    let mut total: u64 = 0;
    while let Some(url) = next {
        let (body, headers) = page(client, &url, &mut left, about).await?;
        let entries: Vec<Entry> = serde_json::from_slice(&body).map_err(|error| nonsense(error.to_string()))?;
        let any = !entries.is_empty();
        for entry in entries.into_iter().filter(|entry| entry.kind == "file") {
            let file = file(entry, repo)?;
            total = total.checked_add(file.bytes).ok_or_else(|| nonsense("sizes beyond all measure".into()))?;
            if !seen.insert(file.path.clone()) {
                return Err(nonsense(format!("it lists {} twice", names::shown(&file.path))));
            }
            files.push(file);
        }
        if files.len() > FILES {
            return Err(nonsense(format!("more than {FILES} files")));
        }
        // A page without anything new would have no end.
        next = if any { following(&headers, &url, &first) } else { None };
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Listing { commit, files, gated: is_gated(&info.gated), private: info.private != Some(false) })
}

pub(crate) fn is_gated(field: &Value) -> bool {
    !matches!(field, Value::Null | Value::Bool(false))
}

/// One answer of the API, after as many tries as it takes.
pub(crate) async fn page(
    client: &Client,
    url: &Url,
    left: &mut usize,
    about: About<'_>,
) -> Result<(Vec<u8>, HeaderMap), HubError> {
    let mut tries = Tries::new(&client.tuning);
    loop {
        match once(client, url, *left, about).await {
            Ok((body, headers)) => {
                *left -= body.len();
                return Ok((body, headers));
            }
            Err(failure) => tries.after(failure).await?,
        }
    }
}

async fn once(client: &Client, url: &Url, limit: usize, about: About<'_>) -> Result<(Vec<u8>, HeaderMap), Failure> {
    let response = client.get(url, &HeaderMap::new(), about).await?;
    let headers = response.headers().clone();
    Ok((client.body(response, limit, about).await?, headers))
}

fn file(entry: Entry, repo: &str) -> Result<FileInfo, HubError> {
    names::check_path(&entry.path)?;
    let sha256 = entry.lfs.as_ref().map(|lfs| lfs.oid.trim_start_matches("sha256:").to_owned());
    let bytes = entry.lfs.as_ref().map_or(entry.size, |lfs| lfs.size);
    let good = sha256.as_ref().map_or(names::is_oid(&entry.oid), |sha| names::is_sha256(sha));
    if !good {
        let why = format!("no usable checksum for {}", names::shown(&entry.path));
        return Err(HubError::Nonsense { what: repo.to_owned(), why });
    }
    Ok(FileInfo { path: entry.path, bytes, sha256, git_oid: Some(entry.oid).filter(|oid| names::is_oid(oid)) })
}

/// The next page. A mirror may hand on the hub's own link: then only its query counts, so that no answer sends us, and
/// the token, elsewhere.
fn following(headers: &HeaderMap, here: &Url, first: &Url) -> Option<Url> {
    let text = headers.get(LINK)?.to_str().ok()?;
    let link = text.split(',').find(|link| link.contains("rel=\"next\"") || link.contains("rel=next"))?;
    let address = link.trim().strip_prefix('<')?.split_once('>')?.0;
    let next = here.join(address).ok()?;
    let next = if next.origin() == first.origin() {
        next
    } else {
        let mut same = first.clone();
        same.set_query(next.query());
        same
    };
    (next != *here).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_asked_of_the_same_hub() {
        let first = Url::parse("https://hub/api/models/a/b/tree/c?recursive=true").unwrap();
        let next = |link: &str| {
            let headers = HeaderMap::from_iter([(LINK, link.parse().unwrap())]);
            following(&headers, &first, &first).map(String::from)
        };
        let same = "https://hub/api/models/a/b/tree/c?cursor=2";
        assert_eq!(next(&format!("<{same}>; rel=\"next\"")).as_deref(), Some(same));
        assert_eq!(next("</api/models/a/b/tree/c?cursor=2>; rel=\"next\"").as_deref(), Some(same));
        assert_eq!(next("<https://evil/x?cursor=2>; rel=\"next\"").as_deref(), Some(same));
        assert_eq!(next("<https://x/>; rel=\"prev\", <?cursor=2>; rel=next").as_deref(), Some(same));
        for none in ["", "<>", "garbage; rel=\"next\"", &format!("<{first}>; rel=\"next\""), "<x>; rel=\"last\""] {
            assert_eq!(next(none), None, "{none}");
        }
    }
}

//! Addresses of the hub's pages and files; must not know the short forms.

use percent_encoding::percent_decode_str;

use super::{HOSTS, HubReference, ReferenceError, RepoId, check, shown};

/// The hub's pages that are no models.
const OTHER_PAGES: [&str; 8] = ["api", "collections", "datasets", "docs", "models", "papers", "posts", "spaces"];
/// Pages of a repository that lead to a revision or a file of it.
const FILE_PAGES: [&str; 4] = ["tree", "blob", "resolve", "raw"];
/// Where unencoded slashes belong to the revision: `refs/pr/1`.
const REFS: [&str; 4] = ["pr", "convert", "heads", "tags"];

/// An address, from what is before and after `://`.
pub(super) fn read(scheme: &str, rest: &str, endpoint: Option<&str>) -> Result<HubReference, ReferenceError> {
    const ADVICE: &str = "write https://huggingface.co/ORG/NAME, or ORG/NAME alone";
    if !scheme.eq_ignore_ascii_case("https") && !scheme.eq_ignore_ascii_case("http") {
        return Err(ReferenceError::new("scheme", scheme, "is not one of https, http and hf", ADVICE));
    }
    let rest = rest.split('#').next().unwrap_or_default();
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = place.split_once('/').unwrap_or((place, ""));
    if let Some((_, host)) = authority.rsplit_once('@') {
        // What is before the @ may be a password, which has no business in a message.
        let advice = "leave it out: a token belongs into HF_TOKEN";
        let error = ReferenceError::new("host", host, "has a user's name before it", advice);
        return Err(ReferenceError { typed: format!("{}://…@{}", shown(scheme), shown(host)), ..error });
    }
    let path = below(scheme, authority, path, endpoint)?;
    let path = path.strip_suffix('/').unwrap_or(path);
    let segments: Vec<&str> = path.split('/').collect();
    match segments.as_slice() {
        [page, ..] if OTHER_PAGES.contains(page) => {
            Err(ReferenceError::new("page", page, "has no models that could be served", ADVICE))
        }
        [] | [_] => Err(ReferenceError::new("address", path, "names no repository", ADVICE)),
        [org, name, rest @ ..] => {
            let repo = RepoId::new(&decode(org, "organisation")?, &decode(name, "repository")?)?;
            of_repo(repo, rest, query)
        }
    }
}

/// The path below the hub, if it is one.
fn below<'a>(scheme: &str, authority: &str, path: &'a str, endpoint: Option<&str>) -> Result<&'a str, ReferenceError> {
    let host = host(scheme, authority);
    if HOSTS.contains(&host.as_str()) {
        return Ok(path);
    }
    if let Some((endpoint_scheme, rest)) = endpoint.and_then(|endpoint| endpoint.split_once("://")) {
        let (authority, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        if host == self::host(endpoint_scheme, authority) {
            let rest = path.strip_prefix(prefix).filter(|_| !prefix.is_empty());
            return match rest.map(|rest| rest.strip_prefix('/')) {
                Some(Some(rest)) => Ok(rest),
                _ if prefix.is_empty() => Ok(path),
                _ => {
                    let advice = format!("write it below {}", shown(endpoint.unwrap_or_default()));
                    Err(ReferenceError::new("address", path, "is not below HF_ENDPOINT", advice))
                }
            };
        }
    }
    let advice = "write a huggingface.co address, or set HF_ENDPOINT if this is a mirror";
    Err(ReferenceError::new("host", authority, "is not the hub", advice))
}

/// The host and the port, in one spelling.
fn host(scheme: &str, authority: &str) -> String {
    let lower = authority.to_ascii_lowercase();
    let default = if scheme.eq_ignore_ascii_case("http") { ":80" } else { ":443" };
    lower.strip_suffix(default).unwrap_or(&lower).to_owned()
}

fn of_repo(repo: RepoId, rest: &[&str], query: &str) -> Result<HubReference, ReferenceError> {
    let advice = format!("write https://huggingface.co/{repo}/tree/REVISION, or {repo} alone");
    let (revision, path) = match rest {
        [] => (None, rest),
        [page, rest @ ..] if FILE_PAGES.contains(page) => match rest {
            [] => return Err(ReferenceError::new("address", page, "ends before its revision", advice)),
            ["refs", kind, name, path @ ..] if REFS.contains(kind) => (Some(format!("refs/{kind}/{name}")), path),
            [revision, path @ ..] => (Some((*revision).to_owned()), path),
        },
        [page, ..] => return Err(ReferenceError::new("page", page, "is no list of files", advice)),
    };
    if path.is_empty() && rest.first().is_some_and(|page| *page != "tree") {
        return Err(ReferenceError::new("address", &rest.join("/"), "ends before its file", advice));
    }
    let revision = revision.map(|revision| check::revision(&decode(&revision, "revision")?, &repo)).transpose()?;
    let path = path.iter().map(|segment| decode(segment, "file")).collect::<Result<Vec<_>, _>>()?;
    let mut file = if path.is_empty() { None } else { Some(check::file(&path)?) };
    // The hub's own pages link to a GGUF file so.
    let told = query.split('&').find_map(|pair| pair.strip_prefix("show_file_info="));
    if let (None, Some(told)) = (&file, told) {
        let told = decode(told, "file")?;
        file = Some(check::file(&told.split('/').map(str::to_owned).collect::<Vec<_>>())?);
    }
    Ok(HubReference { repo, revision, file, quant: None })
}

/// A part of an address as it was meant. Decoded once: what is encoded twice stays encoded.
pub(super) fn decode(part: &str, what: &'static str) -> Result<String, ReferenceError> {
    match percent_decode_str(part).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(ReferenceError::new(what, part, "is not UTF-8 when decoded", "copy the address once more")),
    }
}

//! From a request to an answer, rules included; must not know sockets.

use std::{
    collections::BTreeMap,
    future::pending,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use http_body_util::BodyExt;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{HeaderName, HeaderValue},
};

use crate::{
    Fault, Rule, Stage, api,
    body::{self, Body, Flow},
    count::{self, Busy, Line, Live, Log},
    reply::{Payload, Query, Reply, Visitor, decoded, encoded},
    repo::{Served, Stored},
};

/// What all connections share.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) url: String,
    pub(crate) cdn: String,
    pub(crate) repos: Mutex<BTreeMap<String, Arc<Served>>>,
    pub(crate) rules: Mutex<Vec<Arc<Rule>>>,
    pub(crate) log: Log,
    /// Tokens of accounts that have access to nothing special.
    pub(crate) tokens: Vec<String>,
    /// Entries of a page.
    pub(crate) page: usize,
    /// Whether small files are answered by way of the resolve cache, as the hub does.
    pub(crate) resolve_cache: bool,
    /// Bytes a second of every answer with content.
    pub(crate) rate: Option<u64>,
    /// How often signatures have expired.
    pub(crate) expired: AtomicU64,
    pub(crate) busy: Arc<Busy>,
}

/// Answers a request. An error ends the connection without an answer.
pub(crate) async fn answer(state: &State, at_cdn: bool, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let (parts, incoming) = request.into_parts();
    let raw_path = parts.uri.path().to_owned();
    if raw_path == "/_test/counts" {
        return Ok(finish(counts(state), body::text));
    }
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let raw_query = parts.uri.query().unwrap_or_default();
    let (path, method) = (decoded(&raw_path), parts.method.as_str());
    let stage = stage(&raw_path, at_cdn);
    let live = state.log.add(count::Request {
        method: method.to_owned(),
        path: path.clone(),
        query: raw_query.to_owned(),
        range: header("range").map(str::to_owned),
        authorized: parts.headers.contains_key("authorization"),
        stage,
        file: None,
        status: 0,
        sent: 0,
    });
    let rules = state.rules.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let faults: Vec<&Fault> =
        rules.iter().filter_map(|rule| rule.applies(method, stage, &path, header("range"))).collect();
    for fault in &faults {
        match fault {
            Fault::Delay(time) => tokio::time::sleep(*time).await,
            Fault::Silence => pending().await,
            Fault::Hangup => return Err(io::Error::other("hung up by rule")),
            _ => {}
        }
    }
    let ignore_range = faults.iter().any(|fault| matches!(fault, Fault::IgnoreRange));
    let query = Query::parse(raw_query);
    let visitor = Visitor {
        url: &state.url,
        raw_path: &raw_path,
        query: &query,
        token: header("authorization").and_then(|value| value.strip_prefix("Bearer ")),
        range: header("range").filter(|_| !ignore_range),
        if_range: header("if-range"),
        if_none_match: header("if-none-match"),
    };
    let reply = match faults.iter().find_map(|fault| instead(fault, &raw_path)) {
        Some(reply) => reply,
        None if at_cdn => cdn(state, &visitor),
        None if parts.method == Method::POST => post(state, &visitor, incoming).await?,
        None if matches!(parts.method, Method::GET | Method::HEAD) => get(state, &visitor),
        None => Reply::error(405, None, "Method Not Allowed"),
    };
    Ok(send(state, reply, parts.method == Method::HEAD, &faults, &live))
}

/// The answer that a rule puts in the place of the right one.
fn instead(fault: &Fault, raw_path: &str) -> Option<Reply> {
    match fault {
        Fault::Status { status, code, message, retry_after } => {
            let reply = Reply::error(*status, *code, message);
            Some(match retry_after {
                Some(wait) => reply.header("retry-after", wait.clone()),
                None => reply,
            })
        }
        Fault::Redirect(to) if to == Fault::REDIRECT_TO_ITSELF => Some(Reply::redirect(302, raw_path)),
        Fault::Redirect(to) => Some(Reply::redirect(302, to.clone())),
        Fault::Body(text) => Some(Reply::text(200, text.clone()).header("content-type", "application/json")),
        _ => None,
    }
}

/// Puts an answer on its way, with what is to go wrong with it.
fn send(state: &State, mut reply: Reply, head: bool, faults: &[&Fault], live: &Arc<Live>) -> Response<Body> {
    let (mut cut, mut stall, mut rate, mut corrupt, mut shift, mut length) = (None, None, state.rate, None, 0, 0);
    for fault in faults {
        match fault {
            Fault::Cut(bytes) => cut = Some(*bytes),
            Fault::Stall(bytes) => stall = Some(*bytes),
            Fault::Throttle(bytes) => rate = Some(*bytes),
            Fault::Corrupt(offset) => corrupt = Some(*offset),
            Fault::ShiftRange(bytes) => shift = *bytes,
            Fault::Length(more) => length = *more,
            Fault::Etag(etag) => {
                for name in ["etag", "x-linked-etag"] {
                    if let Some(value) = reply.headers.get_mut(name) {
                        value.clone_from(etag);
                    }
                }
            }
            Fault::Without(name) => drop(reply.headers.remove(name)),
            Fault::HugeJson(bytes) => {
                live.answered(200, None);
                reply.headers = BTreeMap::from([("content-type", "application/json".to_owned())]);
                let huge = body::huge_json(*bytes, Arc::clone(live));
                return finish(Reply { status: 200, payload: Payload::Text(String::new()), ..reply }, |_| huge);
            }
            _ => {}
        }
    }
    let (file, sent, body) = match std::mem::replace(&mut reply.payload, Payload::Text(String::new())) {
        Payload::Text(text) => {
            let bytes = text.len() as u64;
            if !head {
                live.sent(text.len());
            }
            (None, bytes, body::text(text))
        }
        Payload::Part { file, content, mut range } => {
            let bytes = range.end - range.start;
            let claimed = bytes.saturating_add_signed(length);
            // HTTP has no way to send more than was announced, and what was announced and is not there ends in a cut.
            range.end = range.end.min(range.start + claimed);
            if claimed > bytes && cut.is_none() {
                cut = Some(bytes);
            }
            if shift > 0 {
                range.end = (range.end + shift).min(content.len());
                range.start = (range.start + shift).min(range.end);
                cut = cut.or((range.end - range.start < claimed).then_some(range.end - range.start));
            }
            let line = Line::open(&state.busy);
            let flow = Flow { content, range, cut, stall, rate, corrupt, live: Arc::clone(live), _line: line };
            (Some(file), claimed, flow.body())
        }
    };
    live.answered(reply.status, file);
    reply.headers.insert("content-length", sent.to_string());
    if reply.status == 304 {
        reply.headers.remove("content-length");
    }
    if faults.iter().any(|fault| matches!(fault, Fault::Without("content-length"))) {
        reply.headers.remove("content-length");
    }
    let without = head || reply.status == 304;
    finish(reply, |_| if without { body::empty() } else { body })
}

fn finish(reply: Reply, body: impl FnOnce(String) -> Body) -> Response<Body> {
    let text = match reply.payload {
        Payload::Text(text) => text,
        Payload::Part { .. } => String::new(),
    };
    let mut response = Response::new(body(text));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in reply.headers {
        // A rule may ask for what no header can hold; then there is none.
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    response
}

fn stage(raw_path: &str, at_cdn: bool) -> Stage {
    if at_cdn || raw_path.starts_with("/api/resolve-cache/") {
        Stage::Content
    } else if raw_path.starts_with("/api/") {
        Stage::Api
    } else {
        Stage::Resolve
    }
}

fn get(state: &State, visitor: &Visitor<'_>) -> Reply {
    let parts: Vec<&str> = visitor.raw_path.trim_start_matches('/').split('/').collect();
    if let Some(refused) = unknown_token(state, visitor) {
        return refused;
    }
    match parts.as_slice() {
        ["api", "models"] => {
            let all: Vec<_> = state.repos.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
            api::search(&all, visitor, state.page)
        }
        ["api", "whoami-v2"] => match visitor.token {
            Some(_) => Reply::json(&serde_json::json!({ "type": "user", "name": "tester", "auth": {} })),
            None => Reply::error(401, None, "Invalid username or password."),
        },
        ["api", "resolve-cache", "models", org, name, sha, path @ ..] => {
            file(state, visitor, &Asked { org, name, revision: sha, path }, cached)
        }
        ["api", "models", org, name, rest @ ..] => of_repo(state, visitor, org, name, |served| match rest {
            [] => api::info(served, "main", visitor.query),
            ["revision", revision] => api::info(served, &decoded(revision), visitor.query),
            ["tree", revision, folder @ ..] => {
                api::tree(served, &decoded(revision), &joined(folder), visitor, state.page)
            }
            ["refs"] => api::refs(served),
            _ => Reply::error(404, None, "Sorry, we can't find the page you are looking for."),
        }),
        [org, name, "resolve", revision, path @ ..] => {
            file(state, visitor, &Asked { org, name, revision, path }, resolved)
        }
        _ => Reply::error(404, None, "Sorry, we can't find the page you are looking for."),
    }
}

async fn post(state: &State, visitor: &Visitor<'_>, incoming: Incoming) -> io::Result<Reply> {
    let body = incoming.collect().await.map_err(io::Error::other)?.to_bytes();
    let parts: Vec<&str> = visitor.raw_path.trim_start_matches('/').split('/').collect();
    Ok(match (unknown_token(state, visitor), parts.as_slice()) {
        (Some(refused), _) => refused,
        (None, ["api", "models", org, name, "paths-info", revision]) => {
            of_repo(state, visitor, org, name, |served| api::paths_info(served, &decoded(revision), &body))
        }
        _ => Reply::error(404, None, "Not Found"),
    })
}

fn unknown_token(state: &State, visitor: &Visitor<'_>) -> Option<Reply> {
    let token = visitor.token?;
    let repos = state.repos.lock().unwrap_or_else(PoisonError::into_inner);
    let known = state.tokens.iter().chain(repos.values().flat_map(|served| &served.repo.tokens));
    if known.into_iter().any(|known| known == token) {
        return None;
    }
    Some(Reply::error(401, None, "Invalid credentials in Authorization header"))
}

fn of_repo(
    state: &State,
    visitor: &Visitor<'_>,
    org: &str,
    name: &str,
    answer: impl FnOnce(&Served) -> Reply,
) -> Reply {
    let id = format!("{}/{}", decoded(org), decoded(name));
    let served = state.repos.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
    match served.filter(|served| !served.repo.private || visitor.may_read(served)) {
        Some(served) => answer(&served),
        // The hub tells a stranger nothing about which repositories there are.
        None if visitor.token.is_none() => Reply::error(401, Some("RepoNotFound"), "Invalid username or password."),
        None => Reply::error(404, Some("RepoNotFound"), "Repository not found"),
    }
}

/// A file of a commit, as one of the addresses answers for it.
struct Found<'a> {
    id: &'a str,
    sha: &'a str,
    path: &'a str,
    stored: &'a Stored,
}

/// A file as its address names it, still encoded.
struct Asked<'a> {
    org: &'a str,
    name: &'a str,
    revision: &'a str,
    path: &'a [&'a str],
}

fn file(
    state: &State,
    visitor: &Visitor<'_>,
    asked: &Asked<'_>,
    answer: impl FnOnce(&State, &Visitor<'_>, &Found<'_>) -> Reply,
) -> Reply {
    of_repo(state, visitor, asked.org, asked.name, |served| {
        let id = &served.repo.id;
        if served.repo.gated.is_some() && !visitor.may_read(served) {
            let (status, rest) = match visitor.token {
                None => (401, "You must have access to it and be authenticated to access it. Please log in."),
                Some(_) => (403, "and you are not in the authorized list. Visit its page to ask for access."),
            };
            return Reply::error(status, Some("GatedRepo"), &format!("Access to model {id} is restricted. {rest}"));
        }
        let revision = decoded(asked.revision);
        let Some((sha, tree)) = served.commit(&revision) else { return api::no_revision(&revision) };
        let path = joined(asked.path);
        match tree.get(&path) {
            Some(stored) => answer(state, visitor, &Found { id, sha, path: &path, stored }),
            None => Reply::error(404, Some("EntryNotFound"), "Entry not found").header("x-repo-commit", sha),
        }
    })
}

/// `/ORG/NAME/resolve/REV/PATH`.
fn resolved(state: &State, visitor: &Visitor<'_>, found: &Found<'_>) -> Reply {
    let Found { id, sha, path, stored } = found;
    let etag = format!("\"{}\"", stored.etag());
    if visitor.if_none_match == Some(&etag) {
        return Reply::text(304, "").header("etag", etag).header("x-repo-commit", *sha);
    }
    let safe_path: Vec<String> = path.split('/').map(encoded).collect();
    let safe_path = safe_path.join("/");
    let redirect = if stored.sha256.is_some() {
        let key = signature(state, stored);
        Reply::redirect(302, format!("{}/cdn/{id}/{sha}/{safe_path}?Expires=4102444800&Signature={key}", state.cdn))
    } else if state.resolve_cache {
        let to = format!("/api/resolve-cache/models/{id}/{sha}/{safe_path}?etag={}", encoded(&etag));
        Reply::redirect(307, to)
    } else {
        return cached(state, visitor, found);
    };
    redirect
        .header("x-repo-commit", *sha)
        .header("x-linked-etag", etag)
        .header("x-linked-size", stored.bytes.to_string())
        .header("accept-ranges", "bytes")
}

/// `/api/resolve-cache/models/ORG/NAME/SHA/PATH`.
fn cached(_: &State, visitor: &Visitor<'_>, found: &Found<'_>) -> Reply {
    let etag = format!("\"{}\"", found.stored.etag());
    let name = format!("{}/{}", found.id, found.path);
    Reply::content(name, &found.stored.content, &etag, visitor).header("x-repo-commit", found.sha)
}

/// `/cdn/ORG/NAME/SHA/PATH?…`, on another host than the hub's.
fn cdn(state: &State, visitor: &Visitor<'_>) -> Reply {
    // As object stores do where a signature and a token come together. A client that sends the token there leaks it.
    if visitor.token.is_some() {
        return Reply::text(
            400,
            "<Error><Code>InvalidArgument</Code><Message>Only one auth mechanism allowed</Message></Error>",
        );
    }
    let parts: Vec<&str> = visitor.raw_path.trim_start_matches('/').split('/').collect();
    let ["cdn", org, name, sha, path @ ..] = parts.as_slice() else {
        return Reply::text(404, "<Error><Code>NoSuchKey</Code></Error>");
    };
    let id = format!("{}/{}", decoded(org), decoded(name));
    let served = state.repos.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
    let path = joined(path);
    let stored = served.as_ref().and_then(|served| served.trees.get(*sha)?.get(&path));
    match stored {
        Some(stored) if visitor.query.first("Signature") == Some(&signature(state, stored)) => {
            // A CDN's etag is its own: not the SHA-256 that the hub names.
            let etag = format!("\"{}-1\"", stored.oid);
            Reply::content(format!("{id}/{path}"), &stored.content, &etag, visitor)
        }
        Some(_) => Reply::text(403, "<Error><Code>AccessDenied</Code></Error>"),
        None => Reply::text(404, "<Error><Code>NoSuchKey</Code></Error>"),
    }
}

/// What makes an address at the CDN good, until signatures expire.
fn signature(state: &State, stored: &Stored) -> String {
    format!("{}-{}", stored.etag(), state.expired.load(Ordering::Relaxed))
}

fn joined(path: &[&str]) -> String {
    path.iter().map(|part| decoded(part)).collect::<Vec<_>>().join("/")
}

/// For shell scripts: bytes that were sent, by file, and requests.
fn counts(state: &State) -> Reply {
    let mut bytes: BTreeMap<String, u64> = BTreeMap::new();
    let all = state.log.all();
    for request in &all {
        if let Some(file) = &request.file {
            *bytes.entry(file.clone()).or_default() += request.sent;
        }
    }
    Reply::json(&serde_json::json!({ "requests": all.len(), "bytes": bytes }))
}

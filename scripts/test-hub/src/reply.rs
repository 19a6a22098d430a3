//! Questions and answers as the hub's rooms see them: queries, tokens, statuses, headers; must not know connections.

use std::{collections::BTreeMap, ops::Range};

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::{Content, repo::Served};

/// Who asks, and what for.
pub(crate) struct Visitor<'a> {
    /// Where the hub is.
    pub(crate) url: &'a str,
    /// The path, as it was sent.
    pub(crate) raw_path: &'a str,
    pub(crate) query: &'a Query,
    pub(crate) token: Option<&'a str>,
    pub(crate) range: Option<&'a str>,
    pub(crate) if_range: Option<&'a str>,
    pub(crate) if_none_match: Option<&'a str>,
}

impl Visitor<'_> {
    pub(crate) fn may_read(&self, served: &Served) -> bool {
        self.token.is_some_and(|token| served.repo.tokens.iter().any(|known| known == token))
    }
}

/// What follows the question mark.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let pair = |part: &str| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (decoded(&name.replace('+', " ")), decoded(&value.replace('+', " ")))
        };
        Self(text.split('&').filter(|part| !part.is_empty()).map(pair).collect())
    }

    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn first(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    pub(crate) fn is(&self, name: &str) -> bool {
        self.first(name).is_some_and(|value| matches!(value, "true" | "True" | "1"))
    }

    pub(crate) fn with(&self, name: &str, value: &str) -> String {
        let others = self.0.iter().filter(|(known, _)| known != name);
        let mut parts: Vec<String> =
            others.map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
        parts.push(format!("{name}={}", encoded(value)));
        parts.join("&")
    }
}

pub(crate) fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

pub(crate) fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// An answer before anything goes wrong with it.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<&'static str, String>,
    pub(crate) payload: Payload,
}

/// What an answer carries.
#[derive(Debug)]
pub(crate) enum Payload {
    Text(String),
    /// A part of a file, which is called `org/name/path`.
    Part {
        file: String,
        content: Content,
        range: Range<u64>,
    },
}

impl Reply {
    pub(crate) fn text(status: u16, text: impl Into<String>) -> Self {
        Self { status, headers: BTreeMap::new(), payload: Payload::Text(text.into()) }
            .header("content-type", "text/plain; charset=utf-8")
    }

    pub(crate) fn json(value: &Value) -> Self {
        Self::text(200, value.to_string()).header("content-type", "application/json; charset=utf-8")
    }

    /// As the hub says it: in the body and in headers, which is where a HEAD request finds it.
    pub(crate) fn error(status: u16, code: Option<&str>, message: &str) -> Self {
        let reply = Self::text(status, json!({ "error": message }).to_string())
            .header("content-type", "application/json; charset=utf-8")
            .header("x-error-message", message);
        match code {
            Some(code) => reply.header("x-error-code", code),
            None => reply,
        }
    }

    pub(crate) fn redirect(status: u16, to: impl Into<String>) -> Self {
        let to = to.into();
        Self::text(status, format!("Redirecting to {to}")).header("location", to)
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.insert(name, value.into());
        self
    }

    /// A file, or the part of it that was asked for.
    pub(crate) fn content(file: String, content: &Content, etag: &str, visitor: &Visitor<'_>) -> Self {
        let bytes = content.len();
        let fresh = visitor.if_range.is_none_or(|wanted| wanted == etag);
        let asked = visitor.range.filter(|_| fresh).and_then(|range| part(range, bytes));
        let headers = |reply: Self| {
            reply
                .header("content-type", "application/octet-stream")
                .header("accept-ranges", "bytes")
                .header("etag", etag)
        };
        match asked {
            Some(Some(range)) => {
                let place = format!("bytes {}-{}/{bytes}", range.start, range.end - 1);
                let payload = Payload::Part { file, content: content.clone(), range };
                headers(Self { status: 206, headers: BTreeMap::new(), payload }).header("content-range", place)
            }
            Some(None) => {
                Self::text(416, "Requested Range Not Satisfiable").header("content-range", format!("bytes */{bytes}"))
            }
            None => {
                let payload = Payload::Part { file, content: content.clone(), range: 0..bytes };
                headers(Self { status: 200, headers: BTreeMap::new(), payload })
            }
        }
    }
}

/// The bytes that a `Range` header means: `None` if it is to be ignored, `Some(None)` if it cannot be satisfied.
fn part(header: &str, bytes: u64) -> Option<Option<Range<u64>>> {
    let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
    let range = match (first.trim(), last.trim()) {
        ("", last) => {
            let count: u64 = last.parse().ok()?;
            bytes.saturating_sub(count)..bytes
        }
        (first, "") => first.parse().ok()?..bytes,
        (first, last) => {
            let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
            if last < first {
                return None;
            }
            first..last.saturating_add(1).min(bytes)
        }
    };
    Some((range.start < range.end).then_some(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_mean_what_http_says() {
        let cases = [
            ("bytes=0-0", Some(Some(0..1))),
            ("bytes=5-", Some(Some(5..10))),
            ("bytes=-3", Some(Some(7..10))),
            ("bytes=-30", Some(Some(0..10))),
            ("bytes=8-99", Some(Some(8..10))),
            ("bytes=10-", Some(None)),
            ("bytes=-0", Some(None)),
            ("bytes=5-4", None),
            ("bytes=0-1,3-4", None),
            ("lines=0-1", None),
            ("bytes=x-", None),
        ];
        for (header, meant) in cases {
            assert_eq!(part(header, 10), meant, "{header}");
        }
    }

    #[test]
    fn queries_are_decoded_and_written_again() {
        let query = Query::parse("search=a+b%2Fc&filter=x&filter=y&full=true&cursor=1");
        assert_eq!(query.first("search"), Some("a b/c"));
        assert_eq!(query.all("filter").collect::<Vec<_>>(), ["x", "y"]);
        assert!(query.is("full") && !query.is("blobs"));
        assert_eq!(query.with("cursor", "2"), "search=a%20b%2Fc&filter=x&filter=y&full=true&cursor=2");
    }
}

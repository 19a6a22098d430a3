//! How the hub may misbehave, and when; must not know how it is done.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// What kind of answer a request gets; a rule may be for one of them only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// JSON: `/api/…`.
    Api,
    /// A file's own address: `/org/repo/resolve/…`.
    Resolve,
    /// Where that leads to: the CDN for files in LFS, the resolve cache for others.
    Content,
}

/// One kind of misbehaviour.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Another status, with the hub's headers for it.
    Status {
        /// Which.
        status: u16,
        /// `X-Error-Code`: `GatedRepo`, `RepoNotFound`, ….
        code: Option<&'static str>,
        /// `X-Error-Message`, and `error` in the body.
        message: String,
        /// `Retry-After`, verbatim.
        retry_after: Option<String>,
    },
    /// The connection is closed without an answer.
    Hangup,
    /// Nothing is ever answered.
    Silence,
    /// The answer begins only after this time.
    Delay(Duration),
    /// After this many bytes of content the connection is closed.
    Cut(u64),
    /// After this many bytes of content nothing comes any more.
    Stall(u64),
    /// At most this many bytes of content a second.
    Throttle(u64),
    /// The byte at this offset of the file is another one, in whatever range it is sent.
    Corrupt(u64),
    /// `Content-Length` says this much more (or less) than there is. HTTP then ends the answer short, or cut.
    Length(i64),
    /// The whole file, whatever range was asked for.
    IgnoreRange,
    /// The wrong part of the file: a range starts this many bytes later than `Content-Range` says.
    ShiftRange(u64),
    /// Another etag, verbatim: quoted, weak or nonsense.
    Etag(String),
    /// A redirect to here, verbatim. To the request's own path with [`Fault::REDIRECT_TO_ITSELF`].
    Redirect(String),
    /// The answer lacks this header.
    Without(&'static str),
    /// Another body.
    Body(String),
    /// A JSON list that goes on until it has this many bytes.
    HugeJson(u64),
}

impl Fault {
    /// What [`Fault::Redirect`] takes for a loop.
    pub const REDIRECT_TO_ITSELF: &'static str = "";

    /// A status with nothing beside.
    pub fn status(status: u16) -> Self {
        Self::Status { status, code: None, message: format!("status {status} by rule"), retry_after: None }
    }

    /// 429, with the seconds to wait.
    pub fn rate_limited(seconds: u64) -> Self {
        let message = "We had to rate limit you. To continue, wait or authenticate.".to_owned();
        Self::Status { status: 429, code: None, message, retry_after: Some(seconds.to_string()) }
    }

    /// 403 of a gated repository.
    pub fn gated() -> Self {
        let message = "Access to this model is restricted and you are not in the authorized list.".to_owned();
        Self::Status { status: 403, code: Some("GatedRepo"), message, retry_after: None }
    }

    /// Whether it can only happen to an answer that carries a file's bytes.
    fn needs_content(&self) -> bool {
        match self {
            Self::Cut(_) | Self::Stall(_) | Self::Throttle(_) | Self::Corrupt(_) => true,
            Self::Length(_) | Self::IgnoreRange | Self::ShiftRange(_) => true,
            Self::Status { .. } | Self::Hangup | Self::Silence | Self::Delay(_) | Self::Etag(_) => false,
            Self::Redirect(_) | Self::Without(_) | Self::Body(_) | Self::HugeJson(_) => false,
        }
    }
}

/// When which misbehaviour happens. Rules are looked through in their order; every one that applies has its effect.
#[derive(Debug)]
pub struct Rule {
    fault: Fault,
    path: String,
    method: Option<&'static str>,
    stage: Option<Stage>,
    range: Option<String>,
    from: u64,
    to: u64,
    seen: AtomicU64,
}

impl Rule {
    /// For every request whose decoded path contains `path`.
    pub fn new(path: impl Into<String>, fault: Fault) -> Self {
        let (from, to) = (1, u64::MAX);
        let (method, stage, range) = (None, None, None);
        Self { fault, path: path.into(), method, stage, range, from, to, seen: AtomicU64::new(0) }
    }

    /// Only for this method: `GET`, `HEAD`, `POST`.
    #[must_use]
    pub fn method(mut self, method: &'static str) -> Self {
        self.method = Some(method);
        self
    }

    /// Only for this kind of request.
    #[must_use]
    pub fn stage(mut self, stage: Stage) -> Self {
        self.stage = Some(stage);
        self
    }

    /// Only for requests whose `Range` begins like this: `bytes=1048576-`.
    #[must_use]
    pub fn range(mut self, range: impl Into<String>) -> Self {
        self.range = Some(range.into());
        self
    }

    /// Only for the n-th request that it would be for, counted from 1.
    #[must_use]
    pub fn nth(mut self, n: u64) -> Self {
        (self.from, self.to) = (n, n);
        self
    }

    /// Only for the first n of them.
    #[must_use]
    pub fn first(mut self, n: u64) -> Self {
        (self.from, self.to) = (1, n);
        self
    }

    /// Only after the first n of them.
    #[must_use]
    pub fn after(mut self, n: u64) -> Self {
        (self.from, self.to) = (n + 1, u64::MAX);
        self
    }

    /// Counts the request if it is one for this rule, and says whether it is its turn.
    pub(crate) fn applies(&self, method: &str, stage: Stage, path: &str, range: Option<&str>) -> Option<&Fault> {
        let content = !self.fault.needs_content() || (stage == Stage::Content && method == "GET");
        let meant = path.contains(&self.path)
            && self.method.is_none_or(|wanted| wanted == method)
            && self.stage.is_none_or(|wanted| wanted == stage)
            && self.range.as_ref().is_none_or(|wanted| range.is_some_and(|range| range.starts_with(wanted)));
        if !content || !meant {
            return None;
        }
        let turn = self.seen.fetch_add(1, Ordering::Relaxed) + 1;
        (self.from..=self.to).contains(&turn).then_some(&self.fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(rule: &Rule) -> Vec<bool> {
        (0..4).map(|_| rule.applies("GET", Stage::Content, "/cdn/a/b/x.gguf", Some("bytes=10-19")).is_some()).collect()
    }

    #[test]
    fn a_rule_counts_the_requests_that_it_is_for() {
        let rule = || Rule::new("x.gguf", Fault::Cut(1));
        assert_eq!(turns(&rule()), [true; 4]);
        assert_eq!(turns(&rule().nth(2)), [false, true, false, false]);
        assert_eq!(turns(&rule().first(2)), [true, true, false, false]);
        assert_eq!(turns(&rule().after(2)), [false, false, true, true]);
        let second = rule().nth(2);
        assert!(second.applies("GET", Stage::Resolve, "/a/b/resolve/main/x.gguf", None).is_none(), "no content there");
        assert!(second.applies("HEAD", Stage::Content, "/cdn/a/b/x.gguf", None).is_none());
        assert_eq!(turns(&rule().range("bytes=10-").first(1)), [true, false, false, false]);
        assert_eq!(turns(&rule().range("bytes=1-")), [false; 4]);
        assert_eq!(turns(&second), [false, true, false, false]);
    }
}

//! One request to the hub: redirects, refusals, and what may be asked again; must not know the disk.
//!
//! Redirects are followed here and not by the HTTP client, since one rule matters more than convenience: the token goes
//! to the hub's own origin and nowhere else, and once a redirect left it, not even back.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use reqwest::{
    Response, StatusCode, Url,
    header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER},
    redirect::Policy,
};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::{HubConfig, HubError, Tuning};

/// Redirects followed at most. The hub needs one or two. (reqwest's and curl's habit)
const REDIRECTS: usize = 10;
/// Longest wait that the hub may ask for; one that wants more is told to the user, who decides. (the number)
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest pause of our own between two tries. The fifth try would otherwise wait as long as all before.
const PAUSE: Duration = Duration::from_secs(8);

/// What a request is about, for error messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About<'a> {
    pub(crate) repo: &'a str,
    pub(crate) revision: &'a str,
    pub(crate) file: Option<&'a str>,
}

impl About<'_> {
    pub(crate) fn what(&self) -> String {
        match self.file {
            Some(file) => format!("{}: {}", self.repo, super::names::shown(file)),
            None => self.repo.to_owned(),
        }
    }
}

/// Why a request failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Asking again may help; `wait`: what the hub asked for.
    Again { error: HubError, wait: Option<Duration> },
    /// It will not.
    Final(HubError),
}

impl Failure {
    pub(crate) fn cut(about: About<'_>, cause: impl ToString) -> Self {
        let error = HubError::Connection { what: about.what(), cause: cause.to_string(), tries: 0 };
        Self::Again { error, wait: None }
    }
}

#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    pub(crate) endpoint: Url,
    authorization: Option<HeaderValue>,
    pub(crate) tuning: Tuning,
    /// One permit for each connection that brings content.
    pub(crate) lines: Semaphore,
}

impl Client {
    pub(crate) fn new(config: &HubConfig) -> Result<Self, HubError> {
        // The address itself stays out of the message: somebody may have put a password into it.
        let bad = |why: &str| HubError::Config(format!("the hub's address (HF_ENDPOINT) {why}"));
        let mut endpoint = Url::parse(&config.endpoint).map_err(|error| bad(&format!("is no URL: {error}")))?;
        if !matches!(endpoint.scheme(), "http" | "https") || endpoint.host_str().is_none() {
            return Err(bad("must begin with https:// or http://"));
        }
        if !endpoint.username().is_empty() || endpoint.password().is_some() || endpoint.query().is_some() {
            return Err(bad("must have no user, password or query; a token belongs into HF_TOKEN"));
        }
        endpoint.set_fragment(None);
        let path = endpoint.path().trim_end_matches('/').to_owned();
        endpoint.set_path(&path);
        let authorization = config.token.as_ref().map(|token| {
            let value = HeaderValue::from_str(&format!("Bearer {}", token.expose()));
            let mut value = value.map_err(|_| HubError::Config("HF_TOKEN has characters that no token has".into()))?;
            value.set_sensitive(true);
            Ok::<_, HubError>(value)
        });
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(endpoint.scheme() == "https")?)
            .redirect(Policy::none())
            .connect_timeout(config.tuning.stall)
            .user_agent(concat!("mesh-llm/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| HubError::Config(format!("no HTTP client: {}", root(&error))))?;
        let tuning = config.tuning.clone();
        let lines = Semaphore::new(tuning.connections.clamp(1, Semaphore::MAX_PERMITS));
        Ok(Self { http, endpoint, authorization: authorization.transpose()?, tuning, lines })
    }

    pub(crate) fn has_token(&self) -> bool {
        self.authorization.is_some()
    }

    /// The hub's address with this path, which is encoded already.
    pub(crate) fn url(&self, path: &str) -> Result<Url, HubError> {
        let text = format!("{}/{path}", self.endpoint.as_str().trim_end_matches('/'));
        Url::parse(&text).map_err(|error| HubError::Config(format!("no usable URL: {error}")))
    }

    /// Asks once. An answer is a success or a 416; all else is a failure.
    pub(crate) async fn get(&self, url: &Url, extra: &HeaderMap, about: About<'_>) -> Result<Response, Failure> {
        let home = self.endpoint.origin();
        let mut url = url.clone();
        let mut at_home = true;
        for _ in 0..=REDIRECTS {
            at_home = at_home && url.origin() == home;
            let mut request = self.http.get(url.clone()).headers(extra.clone());
            // Bytes are counted and checked as stored.
            request = request.header(ACCEPT_ENCODING, "identity");
            if let (true, Some(token)) = (at_home, &self.authorization) {
                request = request.header(AUTHORIZATION, token.clone());
            }
            let response = match timeout(self.tuning.stall, request.send()).await {
                Err(_) => return Err(Failure::cut(about, self.silent())),
                Ok(Err(error)) => return Err(Failure::cut(about, root(&error.without_url()))),
                Ok(Ok(response)) => response,
            };
            if !is_redirect(response.status()) {
                return self.judge(response, at_home, about);
            }
            url = target(&url, &response)
                .map_err(|why| Failure::Final(HubError::Redirect { what: about.what(), why }))?;
        }
        Err(Failure::Final(HubError::Redirect { what: about.what(), why: "the hub redirects in a circle" }))
    }

    /// The next bytes of an answer; `None`: its end.
    pub(crate) async fn chunk(&self, response: &mut Response, about: About<'_>) -> Result<Option<Bytes>, Failure> {
        match timeout(self.tuning.stall, response.chunk()).await {
            Err(_) => Err(Failure::cut(about, self.silent())),
            Ok(Err(error)) => Err(Failure::cut(about, root(&error.without_url()))),
            Ok(Ok(chunk)) => Ok(chunk),
        }
    }

    /// A whole small answer.
    pub(crate) async fn body(
        &self,
        mut response: Response,
        limit: usize,
        about: About<'_>,
    ) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk(&mut response, about).await? {
            if body.len() + chunk.len() > limit {
                let why = format!("more than {limit} bytes");
                return Err(Failure::Final(HubError::Nonsense { what: about.what(), why }));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn silent(&self) -> String {
        format!("nothing came for {} s", self.tuning.stall.as_secs_f32())
    }

    fn judge(&self, response: Response, at_home: bool, about: About<'_>) -> Result<Response, Failure> {
        let status = response.status();
        if status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(response);
        }
        let repo = about.repo.to_owned();
        if status == StatusCode::TOO_MANY_REQUESTS {
            let wait = patience(response.headers());
            let error = HubError::RateLimited { repo, wait: wait.map(|wait| wait.as_secs()) };
            return Err(Failure::Again { error, wait });
        }
        let plain = HubError::Status { what: about.what(), status: status.as_u16() };
        if status.is_server_error() || matches!(status.as_u16(), 408 | 425) {
            return Err(Failure::Again { error: plain, wait: patience(response.headers()) });
        }
        if !at_home {
            // A store of files where the hub sent us with a signed address that may have grown old: the hub signs anew.
            return Err(Failure::Again { error: plain, wait: None });
        }
        let code = response.headers().get("x-error-code").and_then(|code| code.to_str().ok()).unwrap_or_default();
        let token = self.has_token();
        Err(Failure::Final(match (status.as_u16(), code, about.file) {
            (401 | 403, "GatedRepo", _) => {
                let page = self.url(about.repo).map(String::from).unwrap_or_default();
                HubError::Gated { repo, page, token }
            }
            (401, ..) => HubError::Unauthorized { repo, token },
            (403, ..) => HubError::Forbidden { repo },
            (404, "RevisionNotFound", _) => HubError::NoRevision { repo, revision: about.revision.to_owned() },
            (404, "EntryNotFound", Some(file)) | (404, "", Some(file)) => {
                HubError::NoFile { repo, file: super::names::shown(file) }
            }
            (404, ..) => HubError::NoRepository { repo, endpoint: self.endpoint.as_str().to_owned() },
            _ => plain,
        }))
    }
}

/// How many failures in a row are borne, and the pauses between.
#[derive(Debug)]
pub(crate) struct Tries<'a> {
    tuning: &'a Tuning,
    failed: u32,
}

impl<'a> Tries<'a> {
    pub(crate) fn new(tuning: &'a Tuning) -> Self {
        Self { tuning, failed: 0 }
    }

    /// There was progress: what failed before is forgotten.
    pub(crate) fn forget(&mut self) {
        self.failed = 0;
    }

    /// Waits until it may be asked again, or says why not any more.
    pub(crate) async fn after(&mut self, failure: Failure) -> Result<(), HubError> {
        let pause = self.count(failure)?;
        sleep(pause).await;
        Ok(())
    }

    /// Counts a failure: the pause that it is good for, or why it may not be asked again.
    pub(crate) fn count(&mut self, failure: Failure) -> Result<Duration, HubError> {
        let (error, wait) = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Again { error, wait } => (error, wait),
        };
        self.failed += 1;
        if self.failed >= self.tuning.tries || wait.is_some_and(|wait| wait > PATIENCE) {
            return Err(match error {
                HubError::Connection { what, cause, .. } => HubError::Connection { what, cause, tries: self.failed },
                other => other,
            });
        }
        Ok(wait.unwrap_or_else(|| self.pause()))
    }

    /// Doubles each time; the jitter keeps ten nodes that lost one hub from coming back in step.
    fn pause(&self) -> Duration {
        let doubled = self.tuning.pause.saturating_mul(1 << self.failed.saturating_sub(1).min(16)).min(PAUSE);
        doubled.mul_f64(0.5 + rand::random::<f64>())
    }
}

fn tls(needed: bool) -> Result<rustls::ClientConfig, HubError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let failed = |error: rustls::Error| HubError::Config(format!("no TLS: {error}"));
    let versions = || {
        let builder = rustls::ClientConfig::builder_with_provider(provider.clone());
        builder.with_safe_default_protocol_versions().map_err(failed)
    };
    match versions()?.with_platform_verifier() {
        Ok(config) => Ok(config.with_no_client_auth()),
        // A machine without certificates can still talk to a mirror on its own network.
        Err(_) if !needed => {
            Ok(versions()?.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
        }
        Err(error) => Err(failed(error)),
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn target(from: &Url, response: &Response) -> Result<Url, &'static str> {
    let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
    let to = from.join(location.ok_or("a redirect to nowhere")?).map_err(|_| "a redirect to what is no URL")?;
    match (from.scheme(), to.scheme()) {
        ("http" | "https", "https") | ("http", "http") => Ok(to),
        ("https", "http") => Err("a redirect from https to http, which anybody on the way could read and change"),
        _ => Err("a redirect to what is not HTTP"),
    }
}

/// What the hub asks to wait: `Retry-After` in seconds, or the reset of the draft `RateLimit` header, which it also sends.
fn patience(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let seconds = text(RETRY_AFTER.as_str()).and_then(|value| value.trim().parse().ok());
    let reset = || text("ratelimit")?.split(';').find_map(|part| part.trim().strip_prefix("t=")?.parse().ok());
    seconds.or_else(reset).map(Duration::from_secs)
}

/// The deepest cause: what reqwest says around it is of no use to a user.
fn root(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hubs_wish_is_read_from_either_header() {
        let wait = |name: &'static str, value: &str| {
            patience(&HeaderMap::from_iter([(reqwest::header::HeaderName::from_static(name), value.parse().unwrap())]))
        };
        assert_eq!(wait("retry-after", "7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("ratelimit", "\"api\";r=0;t=55"), Some(Duration::from_secs(55)));
        for nonsense in ["", "soon", "-1", "Wed, 21 Oct 2015 07:28:00 GMT"] {
            assert_eq!(wait("retry-after", nonsense), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_and_end() {
        let tuning = Tuning::default();
        let mut tries = Tries::new(&tuning);
        let about = About { repo: "a/b", revision: "main", file: None };
        let begun = tokio::time::Instant::now();
        for _ in 0..4 {
            tries.after(Failure::cut(about, "cut")).await.unwrap();
        }
        let waited = begun.elapsed();
        // 0.5 + 1 + 2 + 4 s, each by half more or less.
        assert!((Duration::from_millis(3750)..Duration::from_millis(11_300)).contains(&waited), "{waited:?}");
        let said = tries.after(Failure::cut(about, "cut")).await.unwrap_err().to_string();
        assert!(said.contains("tried 5 times"), "{said}");
        tries.forget();
        tries.after(Failure::cut(about, "cut")).await.unwrap();
    }
}

//! API keys; must not know what they protect, and never holds one in clear.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::ApiError;

/// The keys that open this node; none: it is open.
///
/// Only hashes are kept, so that a key cannot reach a log, and `blake3::Hash` compares in constant time, so that
/// answers do not tell how much of a guess was right.
#[derive(Clone, Debug, Default)]
pub struct Keys(Arc<[blake3::Hash]>);

impl Keys {
    /// Any of these opens the node.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        Self(keys.into_iter().map(|key| blake3::hash(key.as_bytes())).collect())
    }

    /// Whether everybody may come in.
    pub fn is_open(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this is one of them.
    pub(crate) fn opens(&self, key: &[u8]) -> bool {
        let hash = blake3::hash(key);
        // `|`, not `any`: looks at every key, whichever fits.
        self.0.iter().fold(false, |found, known| found | (*known == hash))
    }
}

/// Lets a request through if it carries a key of ours, as OpenAI's clients or as Anthropic's send it.
pub(super) async fn check(State(keys): State<Keys>, request: Request, next: Next) -> Response {
    let free = keys.is_open() || request.uri().path() == "/health";
    if free || presented(request.headers()).any(|key| keys.opens(key)) {
        next.run(request).await
    } else {
        ApiError::unauthorized().into_response()
    }
}

fn presented(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let bearer = headers.get_all(header::AUTHORIZATION).iter().filter_map(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(key.trim_ascii())
    });
    bearer.chain(headers.get_all("x-api-key").iter().map(|value| value.as_bytes().trim_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(name: &str, value: &str) -> bool {
        let keys = Keys::new(["sk-one", "sk-two"]);
        let mut headers = HeaderMap::new();
        headers.insert(axum::http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        presented(&headers).any(|key| keys.opens(key))
    }

    #[test]
    fn any_of_the_keys_opens_in_either_header_and_nothing_else_does() {
        for (name, value) in
            [("authorization", "Bearer sk-one"), ("authorization", "bearer  sk-two"), ("x-api-key", "sk-two")]
        {
            assert!(admits(name, value), "{name}: {value}");
        }
        for (name, value) in [
            ("authorization", "Bearer sk-on"),
            ("authorization", "Bearer sk-one1"),
            ("authorization", "Bearer "),
            ("authorization", "Bearer"),
            ("authorization", "Basic sk-one"),
            ("authorization", "sk-one"),
            ("x-api-key", ""),
            ("cookie", "sk-one"),
        ] {
            assert!(!admits(name, value), "{name}: {value}");
        }
    }

    #[test]
    fn a_key_does_not_show_in_debug_output() {
        assert!(!format!("{:?}", Keys::new(["sk-secret"])).contains("sk-secret"));
    }
}

//! Who may talk to the management API; must not know what is asked.
//!
//! The address is loopback, so what comes is from this machine, but not all of it is from its operator: pages in a
//! browser can send requests here. A page's name that resolves to 127.0.0.1 (DNS rebinding) shows in `Host`, a page
//! elsewhere in `Origin`; both are refused before anything is read.

use std::net::SocketAddr;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::Next,
    response::Response,
};

use super::{Token, routes::problem};
use crate::hosts::{self, only};

/// What opens this API, and what it is called.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    token: Token,
    port: u16,
}

impl Guard {
    pub(super) fn new(token: Token, address: SocketAddr) -> Self {
        Self { token, port: address.port() }
    }

    /// Whether this is what a browser or a program calls this server, port and all.
    fn is_us(&self, host: &str) -> bool {
        hosts::split(host).is_some_and(|(name, port)| {
            let names = ["127.0.0.1", "localhost", "[::1]"];
            names.iter().any(|ours| ours.eq_ignore_ascii_case(name)) && port == Some(self.port)
        })
    }

    fn check(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
        let host = only(headers, header::HOST);
        if !host.is_some_and(|host| self.is_us(host)) {
            return Err((
                StatusCode::FORBIDDEN,
                "this host name is not the console's: use http://127.0.0.1 and its port",
            ));
        }
        let ours = |origin: &str| origin.strip_prefix("http://").is_some_and(|host| self.is_us(host));
        if headers.contains_key(header::ORIGIN) && !only(headers, header::ORIGIN).is_some_and(ours) {
            return Err((StatusCode::FORBIDDEN, "pages of other origins may not use the console"));
        }
        let free = path == "/api/status" && matches!(*method, Method::GET | Method::HEAD);
        if free || self.opens(headers) {
            return Ok(());
        }
        let message =
            "this needs \"Authorization: Bearer TOKEN\" with the token in console.token of the node's state folder";
        Err((StatusCode::UNAUTHORIZED, message))
    }

    fn opens(&self, headers: &HeaderMap) -> bool {
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().split_at_checked(7));
        shown
            .is_some_and(|(scheme, token)| scheme.eq_ignore_ascii_case(b"bearer ") && self.token.is(token.trim_ascii()))
    }
}

pub(super) async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    match guard.check(request.method(), request.uri().path(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err((status, message)) => problem(status, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status of a request with these headers; 0: it comes through. `TOKEN` stands for the token.
    fn asked(method: Method, path: &str, headers: &[(&'static str, &str)]) -> u16 {
        let state = tempfile::tempdir().unwrap();
        let guard = Guard::new(Token::keep(state.path()).unwrap(), "127.0.0.1:3131".parse().unwrap());
        let token = Token::read(state.path()).unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.replace("TOKEN", &token).parse().unwrap());
        }
        guard.check(&method, path, &map).map_or_else(|(status, _)| status.as_u16(), |()| 0)
    }

    #[test]
    fn only_the_consoles_own_names_are_answered() {
        for host in ["127.0.0.1:3131", "localhost:3131", "LOCALHOST:3131", "[::1]:3131"] {
            assert_eq!(asked(Method::GET, "/api/status", &[("host", host)]), 0, "{host}");
        }
        let wrong = [
            "127.0.0.1",
            "127.0.0.1:80",
            "evil.example:3131",
            "localhost.evil:3131",
            "localhost:31310",
            "::1:3131",
            "",
        ];
        for host in wrong {
            assert_eq!(asked(Method::GET, "/api/status", &[("host", host)]), 403, "{host}");
        }
        assert_eq!(asked(Method::GET, "/api/status", &[]), 403);
        let twice = [("host", "localhost:3131"), ("host", "localhost:3131")];
        assert_eq!(asked(Method::GET, "/api/status", &twice), 403);
    }

    #[test]
    fn pages_of_other_origins_are_refused_even_with_the_token() {
        let with = |origin| {
            let headers = [("host", "localhost:3131"), ("authorization", "Bearer TOKEN"), ("origin", origin)];
            [asked(Method::GET, "/api/status", &headers), asked(Method::POST, "/api/stop", &headers)]
        };
        for origin in ["http://127.0.0.1:3131", "http://localhost:3131", "http://[::1]:3131"] {
            assert_eq!(with(origin), [0, 0], "{origin}");
        }
        for origin in
            ["null", "http://evil.example", "https://localhost:3131", "http://localhost:9337", "http://localhost"]
        {
            assert_eq!(with(origin), [403, 403], "{origin}");
        }
    }

    #[test]
    fn everything_but_reading_the_status_needs_the_token() {
        let host = ("host", "127.0.0.1:3131");
        for (method, path) in [
            (Method::POST, "/api/status"),
            (Method::GET, "/api/tickets"),
            (Method::GET, "/api/tickets/x"),
            (Method::POST, "/api/stop"),
            (Method::DELETE, "/api/tickets/x"),
            (Method::GET, "/"),
        ] {
            assert_eq!(asked(method.clone(), path, &[host]), 401, "{path}");
            assert_eq!(asked(method.clone(), path, &[host, ("authorization", "Bearer TOKEN")]), 0, "{path}");
            for wrong in ["Bearer ", "Bearer TOKENx", "Basic TOKEN", "TOKEN", "Bearer"] {
                assert_eq!(asked(method.clone(), path, &[host, ("authorization", wrong)]), 401, "{path} {wrong}");
            }
        }
        assert_eq!(asked(Method::GET, "/api/status", &[host]), 0);
        assert_eq!(asked(Method::HEAD, "/api/status", &[host]), 0);
    }
}

//! Who may come in, by key and by where he comes from; must not know what he wants.
//!
//! A node without keys on a loopback address is open to this machine, and so to every page that its browsers show: a
//! page elsewhere could send requests (`Origin` tells), and one whose name is made to resolve to 127.0.0.1 could read
//! the answers as its own (DNS rebinding; `Host` tells). Both are refused. Where a key is asked for, the key guards.

use std::net::SocketAddr;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use sysinfo::System;

use super::{ApiError, Keys};
use crate::hosts;

/// Who may come in.
#[derive(Clone, Debug, Default)]
pub struct Door {
    /// With any of these; none: without.
    pub keys: Keys,
    /// Where the door is; `None`: it does not matter.
    pub address: Option<SocketAddr>,
}

impl From<Keys> for Door {
    fn from(keys: Keys) -> Self {
        Self { keys, address: None }
    }
}

/// What looks at `Host` and `Origin`.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    looks: bool,
    /// This machine's name.
    own: Option<String>,
}

impl Guard {
    pub(super) fn new(door: &Door) -> Self {
        let looks = door.keys.is_open() && door.address.is_some_and(|address| address.ip().is_loopback());
        Self { looks, own: System::host_name().ok() }
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        if !self.looks {
            return Ok(());
        }
        // Browsers always send one; who sends none is no page.
        if headers.contains_key(header::HOST)
            && !hosts::only(headers, header::HOST).is_some_and(|host| self.is_us(host))
        {
            let message = "this node is not known by that host name: use http://127.0.0.1 and its port, or start it with --api-key";
            return Err(ApiError::foreign(message));
        }
        if headers.contains_key(header::ORIGIN)
            && !hosts::only(headers, header::ORIGIN).is_some_and(|origin| self.is_ours(origin))
        {
            let message = "pages of other machines may use this node only with a key: start it with --api-key";
            return Err(ApiError::foreign(message));
        }
        Ok(())
    }

    /// An address written out cannot be another's name.
    fn is_us(&self, host: &str) -> bool {
        hosts::split(host)
            .is_some_and(|(name, _)| hosts::address(name).is_some() || hosts::is_here(name, self.own.as_deref()))
    }

    /// A page of this machine, whatever its port, or no page of the web: an extension, an app.
    fn is_ours(&self, origin: &str) -> bool {
        match origin.split_once("://") {
            Some(("http" | "https", host)) => {
                hosts::split(host).is_some_and(|(name, _)| hosts::is_here(name, self.own.as_deref()))
            }
            Some(_) => true,
            // `null`: a page that hides where it is from.
            None => false,
        }
    }
}

pub(super) async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    match guard.check(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(address: &str, keys: &[&str]) -> Guard {
        let door = Door { keys: Keys::new(keys.iter().copied()), address: Some(address.parse().unwrap()) };
        Guard { own: Some("box".into()), ..Guard::new(&door) }
    }

    fn passes(guard: &Guard, headers: &[(&'static str, &str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        guard.check(&map).inspect_err(|error| assert_eq!(error.status, 403)).is_ok()
    }

    #[test]
    fn an_open_node_on_loopback_is_asked_by_its_own_names_only() {
        let guard = guard("127.0.0.1:9337", &[]);
        for host in ["127.0.0.1:9337", "localhost", "[::1]:1", "box:9337", "box.local", "192.168.1.5:80"] {
            assert!(passes(&guard, &[("host", host)]), "{host}");
        }
        for host in ["evil.example", "evil.example:9337", "localhost.evil.example", "", "a b"] {
            assert!(!passes(&guard, &[("host", host)]), "{host}");
        }
        assert!(!passes(&guard, &[("host", "localhost"), ("host", "localhost")]));
        assert!(passes(&guard, &[]));
    }

    #[test]
    fn pages_of_other_machines_may_not_use_an_open_node() {
        let guard = guard("[::1]:9337", &[]);
        let from = |origin| passes(&guard, &[("host", "localhost"), ("origin", origin)]);
        for origin in
            ["http://localhost:5173", "https://127.0.0.1", "http://box:3000", "vscode-webview://abc", "app://x"]
        {
            assert!(from(origin), "{origin}");
        }
        for origin in ["https://evil.example", "http://localhost.evil.example", "http://10.0.0.9", "null", "evil"] {
            assert!(!from(origin), "{origin}");
        }
    }

    #[test]
    fn a_key_or_an_address_for_everybody_stands_for_all_that() {
        let foreign = [("host", "evil.example"), ("origin", "https://evil.example")];
        assert!(passes(&guard("127.0.0.1:9337", &["sk"]), &foreign));
        assert!(passes(&guard("0.0.0.0:9337", &[]), &foreign));
    }
}

//! What this machine is called in a `Host` or an `Origin`; must not know who asks, or for what.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName};

/// What containers call the machine that they run on.
const FROM_CONTAINERS: [&str; 2] = ["host.docker.internal", "host.containers.internal"];

/// A header that is there once, as text.
pub(crate) fn only(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// A host and its port, as `Host` has them: `localhost`, `127.0.0.1:80`, `[::1]:80`. `None`: it is neither.
pub(crate) fn split(host: &str) -> Option<(&str, Option<u16>)> {
    let bracket = host.rfind(']').map_or(0, |at| at + 1);
    let (name, port) = match host.get(bracket..)?.find(':') {
        Some(colon) => {
            let (name, port) = host.split_at(bracket + colon);
            // Digits alone: `parse` would take a sign.
            let digits = port.get(1..).filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))?;
            (name, Some(digits.parse().ok()?))
        }
        None => (host, None),
    };
    (!name.is_empty() && (bracket == 0 || bracket == name.len())).then_some((name, port))
}

/// An address written out; an IPv6 one stands in brackets.
pub(crate) fn address(name: &str) -> Option<IpAddr> {
    match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(v6) => v6.parse().map(IpAddr::V6).ok(),
        None => name.parse().map(IpAddr::V4).ok(),
    }
}

/// Whether a name means this machine whoever answers for names: loopback, or the machine's own. `own`: its host name.
pub(crate) fn is_here(name: &str, own: Option<&str>) -> bool {
    if let Some(address) = address(name) {
        return address.is_loopback();
    }
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let bare = name.strip_suffix(".local").unwrap_or(&name);
    name == "localhost"
        || name.ends_with(".localhost")
        || FROM_CONTAINERS.contains(&name.as_str())
        || own.is_some_and(|own| own.eq_ignore_ascii_case(&name) || own.eq_ignore_ascii_case(bare))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_split_from_their_ports() {
        let whole = [
            ("localhost", ("localhost", None)),
            ("localhost:80", ("localhost", Some(80))),
            ("127.0.0.1:9337", ("127.0.0.1", Some(9337))),
            ("[::1]", ("[::1]", None)),
            ("[::1]:1", ("[::1]", Some(1))),
        ];
        for (host, parts) in whole {
            assert_eq!(split(host), Some(parts), "{host}");
        }
        for host in ["", ":80", "a:", "a:b", "a:+1", "a:99999", "::1:80", "[::1]x", "[::1]x:1", "]:1"] {
            let found = split(host);
            assert!(found.is_none_or(|(name, _)| address(name).is_none() && !is_here(name, None)), "{host}: {found:?}");
        }
    }

    #[test]
    fn this_machine_is_known_by_names_that_no_one_else_can_have() {
        for name in [
            "localhost",
            "LocalHost",
            "localhost.",
            "a.localhost",
            "127.0.0.1",
            "127.9.9.9",
            "[::1]",
            "BOX",
            "box.local",
        ] {
            assert!(is_here(name, Some("box")), "{name}");
        }
        for name in
            ["evil.example", "localhost.evil.example", "box.example", "10.0.0.1", "[fe80::1]", "notlocalhost", ""]
        {
            assert!(!is_here(name, Some("box")), "{name}");
        }
        assert!(!is_here("box", None));
    }
}

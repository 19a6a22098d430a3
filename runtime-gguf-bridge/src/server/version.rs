//! Which version a `llama-server` is, and whether it is new enough; must not know where it was found.

use std::{fmt, path::Path, time::Duration};

use super::{BridgeError, probe::probe};

/// The oldest release that was tried. Unit: version. Default: 0.5.0. Origin: the oldest sources the bridge's facts were
/// read in. Cost of older: flags that do not exist, no load progress, no Unix socket.
const MIN_RELEASE: [u32; 3] = [0, 5, 0];

/// The same for builds that only carry a number, as all did before 0.1. Unit: builds. Default: 9000. Origin: guess,
/// somewhat before 0.5.0. Cost of older: as above.
const MIN_BUILD: u32 = 9000;

/// Both, in words.
const WANTED: &str = "0.5.0 (or build 9000)";

/// How long it may take to say its version. Unit: time. Default: 5 s. Origin: 20 ms measured; a cold disk or a virus
/// scanner can make seconds of it. Cost of less: a good binary refused.
const LIMIT: Duration = Duration::from_secs(5);

/// What `--version` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The version where it has one.
    pub release: Option<[u32; 3]>,
    /// The build's number; 0 where it was built outside of a git checkout.
    pub build: u32,
    /// As it says it.
    pub text: String,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Asks `binary`, and refuses what is too old.
pub async fn version(binary: &Path) -> Result<Version, BridgeError> {
    let said = probe(binary, "--version", LIMIT).await?;
    let Some(version) = Version::parse(&said) else {
        let why = "no line that begins with `version:`".to_owned();
        return Err(BridgeError::NotLlamaServer { binary: binary.to_owned(), asked: "--version", why });
    };
    if !version.new_enough() {
        let found = version.text;
        return Err(BridgeError::TooOld { binary: binary.to_owned(), found, wanted: WANTED });
    }
    if version.release.is_none() {
        tracing::warn!(%version, "this llama-server has a build number only; releases since 0.5.0 were tried");
    }
    Ok(version)
}

impl Version {
    fn parse(said: &str) -> Option<Self> {
        let text = said.lines().find_map(|line| line.trim().strip_prefix("version:"))?.trim();
        let (first, rest) = text.split_once(' ').unwrap_or((text, ""));
        let text = text.chars().take(100).collect();
        let Some((major, minor)) = first.split_once('.') else {
            return Some(Self { release: None, build: first.parse().ok()?, text });
        };
        let (minor, patch) = minor.split_once('.').unwrap_or((minor, "0"));
        let release = [number(major)?, number(minor)?, number(patch)?];
        let build = rest.split_once("build ").and_then(|(_, build)| number(build)).unwrap_or(0);
        Some(Self { release: Some(release), build, text })
    }

    /// A build of number 0 says nothing about its age; if it is too old, its complaint about a flag will tell.
    fn new_enough(&self) -> bool {
        match self.release {
            Some(release) => release >= MIN_RELEASE,
            None => self.build == 0 || self.build >= MIN_BUILD,
        }
    }
}

/// The digits in front.
fn number(text: &str) -> Option<u32> {
    text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    #[test]
    fn every_style_of_version_is_read() {
        let debian = parse("\nversion: 0.7.0 (build 11669, commit Debian)\nbuilt with GNU 16.2.0\n");
        assert_eq!((debian.release, debian.build), (Some([0, 7, 0]), 11669));
        assert_eq!(debian.to_string(), "0.7.0 (build 11669, commit Debian)");
        let dev = parse("version: 0.5.0-dev (build 9876, commit 1a2b3c4)");
        assert_eq!((dev.release, dev.build), (Some([0, 5, 0]), 9876));
        let old = parse("load_backend: loaded\nversion: 6970 (abc123)");
        assert_eq!((old.release, old.build), (None, 6970));
        assert_eq!(Version::parse("usage: something else"), None);
        assert_eq!(Version::parse("version: yes"), None);
    }

    #[test]
    fn older_than_tried_is_refused() {
        for (text, good) in [
            ("version: 0.7.0 (build 11669, commit x)", true),
            ("version: 0.5.0-dev (build 1)", true),
            ("version: 1.0", true),
            ("version: 0.4.9 (build 9999)", false),
            ("version: 6970 (abc)", false),
            ("version: 9001 (abc)", true),
            ("version: 0 (unknown)", true),
        ] {
            assert_eq!(parse(text).new_enough(), good, "{text}");
        }
    }
}

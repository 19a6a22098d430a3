//! What a hub may call things before it touches our disk; must not know the network or the disk.

use super::HubError;

/// Bytes of one path segment at most. Origin: NAME_MAX of every file system in use.
const SEGMENT_BYTES: usize = 255;
/// Bytes of a whole path at most. PATH_MAX is 1,024 on macOS and 4,096 on Linux, and the cache's own path comes before.
const PATH_BYTES: usize = 700;
/// Bytes of a repository's name at most. Origin: the hub allows 96 for each half.
const REPO_BYTES: usize = 193;

/// `org/name`, or the bare name of one of the oldest repositories, as the hub allows them.
pub(crate) fn check_repo(repo: &str) -> Result<(), HubError> {
    let halves: Vec<&str> = repo.split('/').collect();
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let good = |half: &&str| {
        // `--` would make the cache folder's name ambiguous, and the hub forbids it for that reason.
        let edge = half.starts_with(['.', '-']) || half.ends_with(['.', '-']);
        !half.is_empty() && half.chars().all(allowed) && !edge && !half.contains("--") && !half.contains("..")
    };
    if halves.len() <= 2 && repo.len() <= REPO_BYTES && halves.iter().all(good) {
        return Ok(());
    }
    Err(HubError::BadName { what: "repository", name: shown(repo), why: "it is not ORG/NAME as the hub allows it" })
}

/// A branch, tag, commit or `refs/pr/1`.
pub(crate) fn check_revision(revision: &str) -> Result<(), HubError> {
    check(revision, "revision")
}

/// A file's path within its repository.
pub(crate) fn check_path(path: &str) -> Result<(), HubError> {
    check(path, "file")
}

fn check(path: &str, what: &'static str) -> Result<(), HubError> {
    let refuse = |why| Err(HubError::BadName { what, name: shown(path), why });
    if path.starts_with('/') {
        return refuse("it is an absolute path");
    }
    if path.chars().any(|c| c == '\\' || c.is_control()) {
        return refuse("it has a backslash or a control character");
    }
    if path.len() > PATH_BYTES {
        return refuse("it is too long");
    }
    for segment in path.split('/') {
        match segment {
            "" => return refuse("it has an empty segment"),
            "." | ".." => return refuse("it leaves its folder"),
            long if long.len() > SEGMENT_BYTES => return refuse("a segment is longer than 255 bytes"),
            _ => {}
        }
    }
    Ok(())
}

/// Whether this is the full name of a commit, or of a git object.
pub(crate) fn is_oid(text: &str) -> bool {
    is_hex(text, 40)
}

/// Whether this is a SHA-256 in the hub's spelling.
pub(crate) fn is_sha256(text: &str) -> bool {
    is_hex(text, 64)
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A path as a part of an URL; slashes stay if asked for.
pub(crate) fn encoded(path: &str, slashes: bool) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b'/' if slashes => out.push('/'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The folder of a repository in the cache.
pub(crate) fn folder(repo: &str) -> String {
    format!("models--{}", repo.replace('/', "--"))
}

/// The repository of a folder in the cache.
pub(crate) fn repo_of(folder: &str) -> Option<String> {
    let repo = folder.strip_prefix("models--")?.replacen("--", "/", 1);
    check_repo(&repo).is_ok().then_some(repo)
}

/// Whatever a stranger called something, fit for a line on a terminal.
pub(crate) fn shown(name: &str) -> String {
    let mut text: String = name.chars().take(120).collect::<String>().escape_debug().to_string();
    if name.chars().nth(120).is_some() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_leave_their_folder_are_refused() {
        let long = "x".repeat(256);
        for path in ["", "/etc/passwd", "..", "a/../b", "a/./b", "a//b", "a/", "a\\b", "a\0b", "a\nb", &long] {
            assert!(check_path(path).is_err(), "{path:?}");
        }
        for path in ["config.json", "a/b.gguf", "…/ü.json", "..a", "a..b/.gitattributes", &long[1..]] {
            assert!(check_path(path).is_ok(), "{path:?}");
        }
    }

    #[test]
    fn repositories_are_named_as_the_hub_allows() {
        for repo in ["gpt2", "mlx-community/Qwen3-4B-4bit", "a/b_c.d"] {
            assert!(check_repo(repo).is_ok(), "{repo}");
            assert_eq!(repo_of(&folder(repo)).as_deref(), Some(repo));
        }
        for repo in ["", "a/", "/a", "a/b/c", "../a", "a/..", "a--b/c", "a b/c", "a/.hidden", "ü/a"] {
            assert!(check_repo(repo).is_err(), "{repo}");
        }
    }

    #[test]
    fn urls_carry_what_was_meant() {
        assert_eq!(encoded("refs/pr/1", false), "refs%2Fpr%2F1");
        assert_eq!(encoded("a b/ü?#.json", true), "a%20b/%C3%BC%3F%23.json");
    }

    proptest! {
        #[test]
        fn what_is_accepted_stays_below_its_folder(path in "[./a\\\\\u{0}]{0,12}") {
            if check_path(&path).is_ok() {
                let joined = std::path::Path::new("/cache/dir").join(&path);
                let plain = joined.components().all(|c| !matches!(c, std::path::Component::ParentDir));
                prop_assert!(plain && joined.starts_with("/cache/dir") && joined != std::path::Path::new("/cache/dir"));
            }
        }
    }
}

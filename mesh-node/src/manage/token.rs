//! The operator's token, in the state folder; must not know what it opens.

use std::{
    fmt, fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use thiserror::Error;

/// The token's file in the state folder.
const NAME: &str = "console.token";
/// Characters of a token: 32 bytes, hexadecimal.
const LENGTH: usize = 64;

/// What opens the management API: the hash of the token's bytes, so that the token itself reaches no log.
#[derive(Clone)]
pub struct Token(blake3::Hash);

/// Why there is no token.
#[derive(Debug, Error)]
pub enum TokenError {
    /// It cannot be made or read by the node.
    #[error("cannot keep the console's token in {}: {cause} (--state DIR or MESH_LLM_STATE names another folder)", path.display())]
    Keep {
        /// Where.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// It cannot be read by who has a word with the node.
    #[error(
        "cannot read the console's token {}: {cause}; run this as the user who runs the node, with the node's \
         --state DIR or MESH_LLM_STATE",
        path.display()
    )]
    Read {
        /// Where.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

impl Token {
    /// The folder's token; made if there is none, or if others could have read it.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn keep(state: &Path) -> Result<Self, TokenError> {
        let path = state.join(NAME);
        let failed = |cause| TokenError::Keep { path: path.clone(), cause };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(state).map_err(failed)?;
        if let Some(token) = private(&path) {
            return Ok(Self::of(&token));
        }
        let bytes: [u8; 32] = rand::random();
        let token = HEXLOWER.encode(&bytes);
        // Made for its owner only, and moved into place whole.
        let mut file = tempfile::NamedTempFile::new_in(state).map_err(failed)?;
        file.write_all(token.as_bytes()).map_err(failed)?;
        file.persist(&path).map_err(|error| failed(error.error))?;
        Ok(Self::of(&token))
    }

    /// The token itself, to be shown to the node.
    ///
    /// # Errors
    /// When it is not there or somebody else's; says what to do.
    pub(super) fn read(state: &Path) -> Result<String, TokenError> {
        let path = state.join(NAME);
        match fs::read_to_string(&path) {
            Ok(token) => Ok(token.trim().to_owned()),
            Err(cause) => Err(TokenError::Read { path, cause }),
        }
    }

    fn of(token: &str) -> Self {
        Self(blake3::hash(token.as_bytes()))
    }

    /// Whether this is it. Hashes compare in constant time, so that answers do not tell how much of a guess was right.
    pub(super) fn is(&self, shown: &[u8]) -> bool {
        self.0 == blake3::hash(shown)
    }
}

/// A whole token in a file that nobody else can read.
fn private(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.permissions().mode();
    let token = fs::read_to_string(path).ok()?;
    let whole = token.len() == LENGTH && token.bytes().all(|byte| byte.is_ascii_hexdigit());
    (mode & 0o077 == 0 && whole).then_some(token)
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once_and_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("a/b");
        let token = Token::keep(&state).unwrap();
        let text = Token::read(&state).unwrap();
        assert_eq!(text.len(), LENGTH);
        assert!(token.is(text.as_bytes()) && Token::keep(&state).unwrap().is(text.as_bytes()));
        assert!(!token.is(b"") && !token.is(&text.as_bytes()[1..]));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&state), mode(&state.join(NAME))), (0o700, 0o600));
        assert!(!format!("{token:?}").contains(&text));
    }

    #[test]
    fn a_token_that_others_could_read_or_that_is_none_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        Token::keep(dir.path()).unwrap();
        let first = Token::read(dir.path()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let second = Token::keep(dir.path()).unwrap();
        assert!(!second.is(first.as_bytes()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "").unwrap();
        assert!(!Token::keep(dir.path()).unwrap().is(b""));
    }

    #[test]
    fn who_cannot_read_it_learns_what_to_do() {
        let message = Token::read(Path::new("/no/such/folder")).unwrap_err().to_string();
        assert!(message.contains("/no/such/folder/console.token") && message.contains("--state"), "{message}");
    }
}

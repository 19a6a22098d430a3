//! Keys of the API, from wherever they may come; must not know what they open.

use std::{
    ffi::OsString,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use clap::error::ErrorKind;

use super::config::{text, usage};
use crate::api::Keys;

/// How much of a key file is read. Unit: bytes; default 1 MiB: 20,000 keys.
const MAX_KEY_FILE: u64 = 1 << 20;

/// The typed ones and the file's; else the environment's and its file's. No message shows a key.
pub(super) fn meant(
    typed: Vec<String>,
    file: Option<PathBuf>,
    environment: Option<OsString>,
    environment_file: Option<OsString>,
) -> Result<Keys, clap::Error> {
    let mut keys = typed;
    if let Some(path) = &file {
        keys.extend(read("--api-key-file", path)?);
    }
    if keys.is_empty() {
        if let Some(value) = environment {
            let several = text("MESH_LLM_API_KEY", value)?;
            keys.extend(several.split(',').map(str::trim).filter(|key| !key.is_empty()).map(str::to_owned));
        }
        if let Some(path) = environment_file {
            keys.extend(read("MESH_LLM_API_KEY_FILE", Path::new(&path))?);
        }
    }
    Ok(Keys::new(keys.iter().map(String::as_str)))
}

/// One a line; empty lines and those that begin with `#` are none. A file without keys would open the node to all.
fn read(place: &str, path: &Path) -> Result<Vec<String>, clap::Error> {
    let place = format!("{place} {}", path.display());
    let failed = |error| usage(ErrorKind::Io, format!("{place}: {error}"));
    let mut text = String::new();
    fs::File::open(path).and_then(|file| file.take(MAX_KEY_FILE).read_to_string(&mut text)).map_err(failed)?;
    let keys = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Vec<String> = keys.map(str::to_owned).collect();
    if keys.is_empty() {
        return Err(usage(ErrorKind::ValueValidation, format!("{place}: there is no key in it, one a line")));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_flags_and_a_file_or_from_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        fs::write(&path, "# mine\n\n sk-file \nsk-other\n").unwrap();
        let keys = |typed: &[&str], file: bool, env: Option<&str>, env_file: bool| {
            let typed = typed.iter().map(|key| (*key).to_owned()).collect();
            meant(typed, file.then(|| path.clone()), env.map(OsString::from), env_file.then(|| path.clone().into()))
                .unwrap()
        };
        let opens = |keys: &Keys, key: &str| keys.opens(key.as_bytes());
        let both = keys(&["sk-typed"], true, Some("sk-env"), false);
        assert!(["sk-typed", "sk-file", "sk-other"].iter().all(|key| opens(&both, key)));
        assert!(!opens(&both, "sk-env") && !opens(&both, "# mine") && !opens(&both, ""));
        let environment = keys(&[], false, Some("sk-a, sk-b,"), true);
        assert!(["sk-a", "sk-b", "sk-file"].iter().all(|key| opens(&environment, key)) && !opens(&environment, ""));
        assert!(keys(&[], false, None, false).is_open());
    }

    #[test]
    fn a_file_without_keys_or_none_at_all_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let refused = || meant(Vec::new(), Some(path.clone()), None, None).unwrap_err().to_string();
        assert!(refused().contains("--api-key-file") && refused().contains("keys"));
        fs::write(&path, "# none\n").unwrap();
        assert!(refused().contains("there is no key in it"));
    }
}

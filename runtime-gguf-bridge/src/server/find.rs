//! Which `llama-server` it is; must not run it.

use std::{
    env,
    ffi::OsStr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::BridgeError;

const PROGRAM: &str = "llama-server";

/// The one given, else the one beside this binary, else the first in `PATH`.
pub fn find(given: Option<&Path>) -> Result<PathBuf, BridgeError> {
    let beside = env::current_exe().and_then(|exe| exe.canonicalize()).ok();
    search(given, beside.as_deref().and_then(Path::parent), env::var_os("PATH").as_deref())
}

fn search(given: Option<&Path>, beside: Option<&Path>, path: Option<&OsStr>) -> Result<PathBuf, BridgeError> {
    if let Some(given) = given {
        // A wrong path is the user's to correct: silently taking another one would hide it.
        let found = runnable(given).then(|| given.to_owned());
        return found.ok_or_else(|| BridgeError::NotFound { looked_at: format!("{}, as given", given.display()) });
    }
    let in_path = path.map(env::split_paths).into_iter().flatten().filter(|folder| folder.is_absolute());
    let folders: Vec<PathBuf> = beside.map(Path::to_owned).into_iter().chain(in_path).collect();
    let found = folders.iter().map(|folder| folder.join(PROGRAM)).find(|file| runnable(file));
    found.ok_or_else(|| {
        let beside = beside.map_or_else(String::new, |folder| format!("{}, beside this binary; ", folder.display()));
        let path = path.map_or_else(|| "PATH, which is not set".to_owned(), |path| format!("PATH={}", path.display()));
        BridgeError::NotFound { looked_at: beside + &path }
    })
}

fn runnable(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn put(folder: &Path, mode: u32) -> PathBuf {
        fs::create_dir_all(folder).unwrap();
        let file = folder.join(PROGRAM);
        fs::write(&file, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn the_given_one_wins_then_the_one_beside_then_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let [given, beside, path] = ["given", "beside", "path"].map(|name| dir.path().join(name));
        let files = [&given, &beside, &path].map(|folder| put(folder, 0o755));
        let var = Some(path.as_os_str());
        assert_eq!(search(Some(&files[0]), Some(&beside), var).unwrap(), files[0]);
        assert_eq!(search(None, Some(&beside), var).unwrap(), files[1]);
        assert_eq!(search(None, None, var).unwrap(), files[2]);
    }

    #[test]
    fn what_is_not_found_or_not_executable_is_named_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let file = put(dir.path(), 0o644);
        let told = search(Some(&file), None, None).unwrap_err().to_string();
        assert!(told.contains(&file.display().to_string()), "{told}");
        let told = search(None, Some(dir.path()), Some(OsStr::new("/nowhere"))).unwrap_err().to_string();
        for part in ["beside this binary", "/nowhere", "brew install llama.cpp", "--llama-server"] {
            assert!(told.contains(part), "{told}");
        }
    }
}

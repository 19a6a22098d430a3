//! The one reader of the environment; must not know what its values are for.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::hub::HubEnvironment;

/// What the environment says, read once at the start. Empty variables are as good as none.
#[derive(Clone, Default)]
pub struct Environment {
    /// `MESH_LLM_API_KEY`.
    pub(super) api_key: Option<OsString>,
    /// `MESH_LLM_API_KEY_FILE`.
    pub(super) api_key_file: Option<OsString>,
    /// `MESH_LLM_JOIN`.
    pub(super) join: Option<OsString>,
    /// `MESH_LLM_LOG`, or `RUST_LOG`.
    pub(super) log: Option<OsString>,
    /// Where files may lie that can be made again; `None` where there is no home.
    pub(super) cache: Option<PathBuf>,
    /// Where files lie that must not be lost; `None` where there is no home.
    pub(super) state: Option<PathBuf>,
    /// `HF_HOME` and its kin.
    pub(super) hub: HubEnvironment,
}

impl Environment {
    /// The process's own.
    pub fn read() -> Self {
        Self::of(|name| env::var_os(name))
    }

    fn of(var: impl Fn(&str) -> Option<OsString>) -> Self {
        let var = |name: &str| var(name).filter(|value| !value.is_empty());
        // Ours, else the system's, else the home's.
        let folder = |own: &str, system: &str, home: &str| {
            let xdg = || var(system).map(PathBuf::from).filter(|path| path.is_absolute());
            let at_home = || var("HOME").map(|dir| Path::new(&dir).join(home));
            let ours = || xdg().or_else(at_home).map(|dir| dir.join("mesh-llm"));
            var(own).map(PathBuf::from).or_else(ours)
        };
        Self {
            api_key: var("MESH_LLM_API_KEY"),
            api_key_file: var("MESH_LLM_API_KEY_FILE"),
            join: var("MESH_LLM_JOIN"),
            log: var("MESH_LLM_LOG").or_else(|| var("RUST_LOG")),
            cache: folder("MESH_LLM_CACHE", "XDG_CACHE_HOME", ".cache"),
            state: folder("MESH_LLM_STATE", "XDG_STATE_HOME", ".local/state"),
            hub: HubEnvironment::of(var),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(vars: &[(&str, &str)]) -> Option<String> {
        let find = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v));
        Environment::of(find).cache.map(|path| path.display().to_string())
    }

    #[test]
    fn the_cache_is_ours_then_the_systems_then_the_homes() {
        let all = [("MESH_LLM_CACHE", "/a"), ("XDG_CACHE_HOME", "/b"), ("HOME", "/c")];
        assert_eq!(cache(&all).as_deref(), Some("/a"));
        assert_eq!(cache(&all[1..]).as_deref(), Some("/b/mesh-llm"));
        assert_eq!(cache(&all[2..]).as_deref(), Some("/c/.cache/mesh-llm"));
        assert_eq!(
            cache(&[("MESH_LLM_CACHE", ""), ("XDG_CACHE_HOME", "relative"), ("HOME", "/c")]).as_deref(),
            Some("/c/.cache/mesh-llm")
        );
        assert_eq!(cache(&[]), None);
    }

    #[test]
    fn the_state_lies_apart_from_the_cache() {
        let state = |vars: &[(&str, &str)]| {
            let find = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v));
            Environment::of(find).state.map(|path| path.display().to_string())
        };
        let all = [("MESH_LLM_STATE", "/a"), ("XDG_STATE_HOME", "/b"), ("HOME", "/c"), ("MESH_LLM_CACHE", "/d")];
        assert_eq!(state(&all).as_deref(), Some("/a"));
        assert_eq!(state(&all[1..]).as_deref(), Some("/b/mesh-llm"));
        assert_eq!(state(&all[2..]).as_deref(), Some("/c/.local/state/mesh-llm"));
        assert_eq!(state(&all[3..]), None);
    }
}

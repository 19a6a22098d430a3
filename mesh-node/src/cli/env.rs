//! The one reader of the environment; must not know what its values are for.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

/// What the environment says, read once at the start. Empty variables are as good as none.
#[derive(Clone, Default)]
pub struct Environment {
    /// `MESH_LLM_API_KEY`.
    pub(super) api_key: Option<OsString>,
    /// `MESH_LLM_LOG`, or `RUST_LOG`.
    pub(super) log: Option<OsString>,
    /// Where files may lie that can be made again; `None` where there is no home.
    pub(super) cache: Option<PathBuf>,
}

impl Environment {
    /// The process's own.
    pub fn read() -> Self {
        Self::of(|name| env::var_os(name))
    }

    fn of(var: impl Fn(&str) -> Option<OsString>) -> Self {
        let var = |name: &str| var(name).filter(|value| !value.is_empty());
        let xdg = || var("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let home = || var("HOME").map(|home| Path::new(&home).join(".cache"));
        Self {
            api_key: var("MESH_LLM_API_KEY"),
            log: var("MESH_LLM_LOG").or_else(|| var("RUST_LOG")),
            cache: var("MESH_LLM_CACHE")
                .map(PathBuf::from)
                .or_else(|| xdg().or_else(home).map(|cache| cache.join("mesh-llm"))),
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
}

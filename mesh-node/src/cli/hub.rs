//! What the environment says about the hub that models are downloaded from, as its own tools read it; must not know models.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use catalog::hub::{HUB, HubConfig, Secret};

/// The hub's variables, and where its cache and token lie by default.
#[derive(Clone, Default)]
pub(super) struct HubEnvironment {
    endpoint: Option<OsString>,
    token: Option<OsString>,
    token_file: Option<PathBuf>,
    cache: Option<PathBuf>,
    offline: bool,
}

impl HubEnvironment {
    pub(super) fn of(var: impl Fn(&str) -> Option<OsString>) -> Self {
        let own = var("HF_HOME").map(PathBuf::from);
        let system = || var("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let at_home = || var("HOME").map(|home| Path::new(&home).join(".cache"));
        let home = own.or_else(|| system().or_else(at_home).map(|cache| cache.join("huggingface")));
        let under = |name: &str| home.as_ref().map(|home| home.join(name));
        let offline = var("HF_HUB_OFFLINE").map(|value| value.to_string_lossy().to_ascii_lowercase());
        Self {
            endpoint: var("HF_ENDPOINT"),
            token: var("HF_TOKEN"),
            token_file: var("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| under("token")),
            cache: var("HF_HUB_CACHE").map(PathBuf::from).or_else(|| under("hub")),
            offline: offline.is_some_and(|value| ["1", "true", "yes", "on"].contains(&value.as_str())),
        }
    }

    /// The hub to ask; `None` where there is no place for what it sends. Reads the token's file, if there is one.
    pub(super) fn meant(&self, offline: bool) -> Option<HubConfig> {
        let mut config = HubConfig::new(self.cache.clone()?);
        config.endpoint = self.endpoint.as_ref().map_or(HUB.to_owned(), |url| url.to_string_lossy().into_owned());
        let file = || self.token_file.as_ref().and_then(|path| fs::read_to_string(path).ok());
        let token = self.token.as_ref().map(|token| token.to_string_lossy().into_owned());
        config.token = token.or_else(file).and_then(Secret::new);
        config.offline = offline || self.offline;
        Some(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(vars: &[(&str, &str)]) -> HubConfig {
        let find = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v));
        HubEnvironment::of(find).meant(false).unwrap()
    }

    #[test]
    fn its_cache_is_where_its_other_tools_have_it() {
        let all = [("HF_HUB_CACHE", "/a"), ("HF_HOME", "/b"), ("XDG_CACHE_HOME", "/c"), ("HOME", "/d")];
        let places = ["/a", "/b/hub", "/c/huggingface/hub", "/d/.cache/huggingface/hub"];
        for (from, place) in places.into_iter().enumerate() {
            assert_eq!(of(&all[from..]).cache, Path::new(place));
        }
        assert!(HubEnvironment::of(|_| None).meant(false).is_none());
    }

    #[test]
    fn its_address_token_and_silence_are_honoured() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("token"), "hf_from_file\n").unwrap();
        let home = ("HF_HOME", home.path().to_str().unwrap());
        let found = of(&[home]);
        assert_eq!((found.endpoint.as_str(), found.offline, found.token.is_some()), (HUB, false, true));
        assert!(!format!("{found:?}").contains("hf_from_file"));
        let found = of(&[home, ("HF_ENDPOINT", "http://127.0.0.1:1"), ("HF_HUB_OFFLINE", "TRUE")]);
        assert_eq!((found.endpoint.as_str(), found.offline), ("http://127.0.0.1:1", true));
        assert!(of(&[("HOME", "/nowhere")]).token.is_none());
        assert!(!of(&[home, ("HF_HUB_OFFLINE", "0")]).offline);
    }
}

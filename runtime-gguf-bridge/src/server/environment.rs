//! What of the node's environment the child may see; must not know what the variables are for.

use std::{env, ffi::OsStr, process::Command};

/// Prefixes that stay here: the node's own settings, which may be secrets; llama-server's, which would change what the
/// arguments mean; its modes as a router's child and on Vertex AI.
const KEPT_PREFIXES: [&str; 4] = ["MESH_LLM_", "LLAMA_ARG_", "LLAMA_SERVER_", "AIP_"];

/// And names: a key would close the socket to its owner, and a token is for downloads, which the child makes none of.
const KEPT_NAMES: [&str; 4] = ["LLAMA_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN"];

/// Whether a variable is kept from the child.
fn kept(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    KEPT_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || KEPT_NAMES.contains(&name)
}

/// Takes out of `command`'s inherited environment what its program must not have.
pub(super) fn clean(command: &mut Command) {
    for (name, _) in env::vars_os().filter(|(name, _)| kept(name)) {
        command.env_remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_and_secrets_stay_here_and_the_rest_goes_on() {
        for name in ["MESH_LLM_KEY", "LLAMA_ARG_PORT", "LLAMA_API_KEY", "HF_TOKEN", "AIP_MODE"] {
            assert!(kept(OsStr::new(name)), "{name}");
        }
        for name in ["PATH", "HOME", "GGML_METAL_NO_RESIDENCY", "CUDA_VISIBLE_DEVICES", "HF_HOME"] {
            assert!(!kept(OsStr::new(name)), "{name}");
        }
    }
}

//! Which engine serves what, and how it parts memory; must not know models by name.

use catalog::{Entry, Format, fit::Rules};

/// Of the machine's memory, what models may take. Unit: thousandths. Origin: `DEFAULT_SHARE` of `runtime-mlx`,
/// `MEMORY_SHARE` of `runtime-gguf-bridge`.
const MACHINE_SHARE: u64 = 800;
/// Of that, what MLX keeps free to compute in. Unit: thousandths. Origin: `WORKSPACE_SHARE` of `runtime-mlx`.
const MLX_WORKSPACE: u64 = 100;
/// Of what weights and workspace leave, what one answer can fill in MLX. Unit: thousandths. Origin: `PREFIX_SHARE` (a
/// quarter is for ended answers) and `ALLOCATION_FACTOR` (half, since rows grow in powers of two) of `runtime-mlx`.
const MLX_KV: u64 = 375;
/// The same of llama-server. Guess: its activations and masks depend on the model, and are below this for the models
/// that the catalog has.
const LLAMA_WORKSPACE: u64 = 100;
/// It allocates the whole of a slot at once, and gives up its cache of prompts where that is what is missing.
const LLAMA_KV: u64 = 1000;

/// Answers at once that a model is planned with. Unit: 1. Origin: the default of `--parallel`.
pub(super) const PARALLEL: u32 = 64;

/// What this build and this machine can compute with.
#[derive(Clone, Debug)]
pub(super) struct Engines {
    pub(super) mlx_families: Vec<&'static str>,
    /// Whether a llama-server is beside this binary or in `PATH`.
    pub(super) llama_server: bool,
}

/// As JSON and tables call it.
pub(super) fn word(format: Format) -> &'static str {
    match format {
        Format::Mlx => "mlx",
        Format::Gguf => "gguf",
    }
}

/// Of so many bytes of memory, what models may take.
pub(super) fn usable(memory: u64) -> u64 {
    (u128::from(memory) * u128::from(MACHINE_SHARE) / 1000) as u64
}

pub(super) fn rules(format: Format) -> Rules {
    match format {
        Format::Mlx => Rules { machine_share: MACHINE_SHARE, workspace_share: MLX_WORKSPACE, kv_share: MLX_KV },
        Format::Gguf => Rules { machine_share: MACHINE_SHARE, workspace_share: LLAMA_WORKSPACE, kv_share: LLAMA_KV },
    }
}

impl Engines {
    pub(super) fn of_this_machine() -> Self {
        Self {
            mlx_families: runtime_mlx::families(),
            llama_server: runtime_gguf_bridge::find_llama_server(None).is_ok(),
        }
    }

    /// Why no engine of this version serves an entry; `None`: one does.
    pub(super) fn refusal_of(&self, entry: &Entry) -> Option<&'static str> {
        self.refusal(entry.format, &entry.family)
    }

    /// Why no engine of this version serves a model of this family; `None`: one does, as far as this word tells.
    pub(super) fn refusal(&self, format: Format, family: &str) -> Option<&'static str> {
        match format {
            // What llama-server knows is llama.cpp's to say; it is asked when the model is loaded.
            Format::Gguf => None,
            Format::Mlx if !self.mlx_families.contains(&family) => {
                Some("MLX does not compute this family yet; as GGUF it runs in llama-server")
            }
            Format::Mlx => None,
        }
    }

    /// What is missing on this machine to compute such a model.
    pub(super) fn missing(&self, format: Format) -> Option<&'static str> {
        let missing = format == Format::Gguf && !self.llama_server;
        missing.then_some("no llama-server is beside this binary or in PATH")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_engine_follows_from_the_family_and_the_format() {
        let engines = Engines::of_this_machine();
        let served = |id: &str| engines.refusal_of(catalog::entry(id).unwrap()).is_none();
        for id in [
            "Qwen3-4B-MLX",
            "SmolLM2-135M-Instruct-MLX",
            "Qwen3-30B-A3B-MLX",
            "gpt-oss-20b-MLX",
            "Qwen3-4B-GGUF",
            "gpt-oss-20b-GGUF",
            "Qwen3-Embedding-0.6B-GGUF",
        ] {
            assert!(served(id), "{id}");
        }
    }

    #[test]
    fn a_missing_llama_server_is_missed_by_gguf_alone() {
        for (llama_server, missed) in [(true, false), (false, true)] {
            let engines = Engines { mlx_families: Vec::new(), llama_server };
            assert_eq!(engines.missing(Format::Gguf).is_some(), missed);
            assert_eq!(engines.missing(Format::Mlx), None);
        }
    }

    #[test]
    fn all_that_the_catalog_has_for_mlx_is_served_but_for_families_that_nobody_wrote() {
        let engines = Engines::of_this_machine();
        let unserved: BTreeSet<&str> = catalog::entries()
            .iter()
            .filter(|entry| engines.refusal_of(entry).is_some())
            .map(|entry| entry.family.as_str())
            .collect();
        assert_eq!(unserved, BTreeSet::from(["gemma3n", "granite"]));
    }
}

//! llama-server's command line from what was asked for; must not know processes.

use std::ffi::OsString;

use crate::{GgufError, GgufOptions, kind::Kind, plan::Plan};

/// How keys and values of the cache are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvBits {
    /// 16 bits (`f16`): as computed.
    #[default]
    F16,
    /// 8.5 bits (`q8_0`).
    Q8,
    /// 4.5 bits (`q4_0`).
    Q4,
}

impl KvBits {
    /// llama-server's name for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Q8 => "q8_0",
            Self::Q4 => "q4_0",
        }
    }
}

/// Arguments that the bridge sets itself or that would open the child to others, and what to use instead.
const OURS: &[(&[&str], &str)] = &[
    (&["--host", "--port", "--reuse-port", "--api-prefix", "--path"], "llama-server listens for this node alone"),
    (
        &["--api-key", "--api-key-file", "--ssl-key-file", "--ssl-cert-file"],
        "no key is needed: it listens on a private socket",
    ),
    (
        &[
            "-m",
            "--model",
            "-mu",
            "--model-url",
            "-hf",
            "-hfr",
            "--hf-repo",
            "-hff",
            "--hf-file",
            "-dr",
            "--docker-repo",
        ],
        "use --model or --gguf-file",
    ),
    (
        &["--models-dir", "--models-preset", "--models-max", "--models-autoload"],
        "this node has a model list of its own",
    ),
    (&["-cram", "--cache-ram", "-ctxcp", "--ctx-checkpoints", "--swa-checkpoints"], "use --max-memory of mesh-llm"),
    (&["-c", "--ctx-size"], "use --ctx-size of mesh-llm"),
    (&["-np", "--parallel", "-kvu", "--kv-unified", "--kv-unified-per-slot"], "use --parallel of mesh-llm"),
    (&["-ctk", "--cache-type-k", "-ctv", "--cache-type-v"], "use --kv-bits of mesh-llm"),
    (&["-ngl", "--gpu-layers", "--n-gpu-layers"], "use --gpu-layers of mesh-llm"),
    (&["-mm", "--mmproj", "-mmu", "--mmproj-url"], "put the projector beside the model"),
    (&["-md", "--model-draft", "--spec-draft-model"], "use --draft of mesh-llm"),
    (
        &["--tools", "--ui-mcp-proxy", "--webui-mcp-proxy", "--mcp-config", "--sleep-idle-seconds"],
        "this node does not offer that",
    ),
    (
        &["--embedding", "--embeddings", "--rerank", "--reranking", "--pooling", "--embd-normalize"],
        "models that were made for embeddings or reranking are known by their header",
    ),
    (&["-n", "--predict", "--n-predict", "--context-shift"], "answers have the length that requests ask for"),
    (&["-h", "--help", "--version", "--list-devices", "--cache-list", "--completion-bash"], "ask llama-server itself"),
];

/// Whether `--llama-arg` may hand these on.
///
/// # Errors
/// Names the argument, and what to use instead.
pub fn check(extra: &[String]) -> Result<(), String> {
    for argument in extra {
        let name = argument.split_once('=').map_or(argument.as_str(), |(name, _)| name);
        if let Some((_, instead)) = OURS.iter().find(|(names, _)| names.contains(&name)) {
            return Err(format!("--llama-arg {name} cannot be given: {instead}"));
        }
    }
    Ok(())
}

/// Everything but where to listen. What was handed on comes last, so that it counts where both say something.
pub(crate) fn arguments(
    options: &GgufOptions,
    plan: &Plan,
    kind: Kind,
    threads: usize,
) -> Result<Vec<OsString>, GgufError> {
    check(&options.extra).map_err(GgufError::Argument)?;
    let gguf = options.files.gguf.as_ref();
    let model = gguf.and_then(|gguf| gguf.parts.first()).cloned().unwrap_or_default();
    let mut arguments: Vec<OsString> = vec!["--model".into(), model.into()];
    let mut add = |name: &str, value: &str| arguments.extend([OsString::from(name), OsString::from(value)]);
    add("--alias", options.files.id.as_str());
    // `--ctx-size` is what all slots have together.
    add("--ctx-size", &(u64::from(plan.context_tokens) * u64::from(plan.slots)).to_string());
    add("--parallel", &plan.slots.to_string());
    add("--cache-type-k", plan.kv.name());
    add("--cache-type-v", plan.kv.name());
    if plan.kv != KvBits::F16 {
        // Quantised values are read by flash attention alone.
        add("--flash-attn", "on");
    }
    add("--gpu-layers", &plan.gpu_layers.to_string());
    add("--cache-ram", &plan.prompt_cache_mib.to_string());
    add("--ctx-checkpoints", &plan.checkpoints.to_string());
    // Streams hold a thread each, as long as they last; /health and /tokenize need some beside them.
    add("--threads-http", &plan.slots.saturating_add(SPARE_HTTP_THREADS).to_string());
    add("--threads", &threads.to_string());
    if let Some(tokens) = plan.whole_texts {
        add("--batch-size", &tokens.to_string());
        add("--ubatch-size", &tokens.to_string());
    }
    match kind {
        Kind::Answers => {}
        Kind::Vectors { unsaid, .. } => {
            arguments.push("--embeddings".into());
            // Of those that do not say, llama-server would hand out every token's.
            arguments.extend(["--pooling", "mean"].iter().filter(|_| unsaid).map(OsString::from));
        }
        Kind::Scores { .. } => arguments.push("--reranking".into()),
    }
    arguments.extend(["--no-webui", "--no-context-shift", "--offline"].map(OsString::from));
    match gguf.and_then(|gguf| gguf.mmproj.as_ref()) {
        Some(projector) => arguments.extend(["--mmproj".into(), projector.clone().into()]),
        None => arguments.push("--no-mmproj".into()),
    }
    if let Some(draft) = options.draft.as_ref().filter(|_| kind == Kind::Answers) {
        arguments.extend(["--model-draft".into(), draft.clone().into()]);
        arguments.extend(["--spec-type", "draft-simple"].map(OsString::from));
    }
    arguments.extend(options.extra.iter().map(OsString::from));
    Ok(arguments)
}

/// HTTP threads beside one for each slot. Unit: threads; 16: what asks beside streams is bounded by this crate to
/// fewer ([`crate::engine`]). Cost: stack, each.
const SPARE_HTTP_THREADS: u32 = 16;

/// Threads that compute. A core stays free for the node and for llama-server's own HTTP threads: its compute threads
/// wait for each other by spinning, and where all cores are taken two are slower than one. (measured)
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_to_set_is_refused_with_what_to_use_instead() {
        let refusal = |argument: &str| check(&[argument.to_owned()]).unwrap_err();
        assert!(refusal("--host").contains("--host"));
        assert!(refusal("--api-key=secret").contains("no key is needed"));
        assert!(!refusal("--api-key=secret").contains("secret"));
        assert!(refusal("-c").contains("--ctx-size"));
        assert_eq!(check(&["--rope-scaling".into(), "yarn".into(), "-t".into(), "4".into()]), Ok(()));
    }
}

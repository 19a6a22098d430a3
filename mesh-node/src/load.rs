//! From model files to a serving engine; the one place that knows which runtimes there are.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use engine::{Engine, pool::Skills, text::TextModel};
use mesh_proto::{Sampling, TokenId, record::Capabilities};
use runtime_gguf_bridge::{GgufError, GgufOptions};
use runtime_mlx::{MlxError, MlxOptions};
use serde::Deserialize;
use thiserror::Error;

use crate::{
    local::Served,
    shelf::{LoadJob, Loader, ServingOptions},
};

/// Requests that may wait for each model; more are refused with a 429. A waiting one costs its prompt. (guess)
const MAX_WAITING: u32 = 1024;

/// Why a model cannot be served. One line.
#[derive(Debug, Error)]
pub(crate) enum LoadError {
    /// The runtime says why.
    #[error(transparent)]
    Mlx(#[from] MlxError),
    /// The other one says why.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// This process's own file is gone.
    #[error("llama-server cannot be started: where this program's file lies is not known ({0})")]
    NoGuard(io::Error),
    /// A file that is there, but cannot be used.
    #[error("{}: {message}", path.display())]
    BadFile {
        /// Which.
        path: PathBuf,
        /// Why.
        message: String,
    },
}

/// Hidden first argument of the process that stands between a node and its llama-server.
pub const GUARD: &str = "__llama-guard";

/// Loads models by the runtime that their files are for.
pub(crate) struct Runtimes(pub(crate) ServingOptions);

impl Loader for Runtimes {
    fn load(&self, job: LoadJob, stage: &mut dyn FnMut(&str)) -> Result<Served, String> {
        let loaded = if job.files.gguf.is_some() { gguf(job, &self.0, stage) } else { mlx(job, &self.0, stage) };
        loaded.map_err(|error| error.to_string())
    }
}

/// By llama-server, in a process of its own.
fn gguf(mut job: LoadJob, serving: &ServingOptions, stage: &mut dyn FnMut(&str)) -> Result<Served, LoadError> {
    let own = std::env::current_exe().map_err(LoadError::NoGuard)?;
    // No API of this node takes images yet: a projector that merely lies there would take memory for nothing.
    if let Some(files) = job.files.gguf.as_mut().filter(|_| serving.gguf.mmproj.is_none()) {
        files.mmproj = None;
    }
    let beside = recommended(&job.files.dir)?;
    let options = GgufOptions {
        files: job.files,
        llama_server: serving.gguf.llama_server.clone(),
        guard: vec![own.into(), GUARD.into()],
        context_tokens: serving.context_tokens,
        parallel: serving.parallel,
        max_waiting: MAX_WAITING,
        max_memory: serving.max_memory,
        sharers: job.sharers,
        kv_bits: serving.gguf.kv_bits,
        gpu_layers: serving.gguf.gpu_layers,
        draft: serving.gguf.draft.clone(),
        extra: serving.gguf.extra.clone(),
    };
    // Loads run on threads that may block.
    let started = tokio::runtime::Handle::current().block_on(runtime_gguf_bridge::start(options, stage))?;
    let capabilities = capabilities(started.engine.text(), started.engine.skills());
    let defaults = started.recommended.unwrap_or(beside);
    Ok(Served { engine: Arc::new(started.engine), defaults, max_concurrency: started.slots, capabilities })
}

/// By MLX, in this process.
fn mlx(job: LoadJob, serving: &ServingOptions, stage: &mut dyn FnMut(&str)) -> Result<Served, LoadError> {
    let defaults = recommended(&job.files.dir)?;
    let options = MlxOptions {
        dir: job.files.dir,
        id: job.files.id,
        context_tokens: serving.context_tokens,
        max_memory: serving.max_memory,
        sharers: job.sharers,
        max_running: serving.parallel,
        max_waiting: MAX_WAITING,
    };
    let engine = runtime_mlx::start(options, stage)?;
    let capabilities = capabilities(engine.text(), engine.skills());
    Ok(Served { engine: Arc::new(engine), defaults, max_concurrency: serving.parallel, capabilities })
}

/// What can be asked of this model. Every local model's generation can be taken over from its tokens.
fn capabilities(text: &TextModel, skills: Skills) -> Capabilities {
    let mut found = Capabilities::default();
    if skills.embeds {
        found = found.and(Capabilities::EMBEDDINGS);
    }
    if skills.reranks {
        found = found.and(Capabilities::RERANK);
    }
    if !skills.generates {
        return found;
    }
    found = found.and(Capabilities::RESUME);
    if text.has_chat_template() {
        found = found.and(Capabilities::CHAT).and(Capabilities::TOOLS);
    }
    // A model that was taught to think has a token for the end of it.
    if (0..text.vocab_size()).any(|id| text.token_name(TokenId(id)).is_some_and(|name| name == "</think>")) {
        found = found.and(Capabilities::REASONING);
    }
    found
}

/// What the model's makers recommend where a request is silent, as vLLM and LM Studio do; without a recommendation,
/// OpenAI's default: temperature 1, nothing cut off.
fn recommended(dir: &Path) -> Result<Sampling, LoadError> {
    #[derive(Default, Deserialize)]
    struct GenerationConfig {
        do_sample: Option<bool>,
        temperature: Option<f32>,
        top_p: Option<f32>,
        top_k: Option<u32>,
        min_p: Option<f32>,
    }
    let path = dir.join("generation_config.json");
    let config: GenerationConfig = match fs::read(&path) {
        Ok(json) => serde_json::from_slice(&json).map_err(|e| bad(&path, e))?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => GenerationConfig::default(),
        Err(e) => return Err(bad(&path, e)),
    };
    let sampling = Sampling {
        temperature: if config.do_sample == Some(false) { 0.0 } else { config.temperature.unwrap_or(1.0) },
        top_p: config.top_p.unwrap_or(1.0),
        top_k: config.top_k.unwrap_or(0),
        min_p: config.min_p.unwrap_or(0.0),
        ..Sampling::default()
    };
    let checks = [
        ("temperature", sampling.temperature >= 0.0),
        ("top_p", sampling.top_p > 0.0 && sampling.top_p <= 1.0),
        ("min_p", (0.0..=1.0).contains(&sampling.min_p)),
    ];
    match checks.into_iter().find(|(_, valid)| !valid) {
        Some((field, _)) => Err(bad(&path, format!("{field} is out of range"))),
        None => Ok(sampling),
    }
}

fn bad(path: &Path, error: impl ToString) -> LoadError {
    LoadError::BadFile { path: path.to_owned(), message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: Option<&str>) -> Result<(f32, f32, u32), String> {
        let dir = tempfile::tempdir().unwrap();
        if let Some(json) = json {
            fs::write(dir.path().join("generation_config.json"), json).unwrap();
        }
        recommended(dir.path()).map(|s| (s.temperature, s.top_p, s.top_k)).map_err(|e| e.to_string())
    }

    #[test]
    fn a_models_makers_set_the_defaults() {
        assert_eq!(read(None).unwrap(), (1.0, 1.0, 0));
        assert_eq!(read(Some(r#"{"eos_token_id":[1,2]}"#)).unwrap(), (1.0, 1.0, 0));
        let qwen = r#"{"do_sample":true,"temperature":0.6,"top_p":0.95,"top_k":20,"eos_token_id":1}"#;
        assert_eq!(read(Some(qwen)).unwrap(), (0.6, 0.95, 20));
        assert_eq!(read(Some(r#"{"do_sample":false,"temperature":0.6,"top_p":null}"#)).unwrap(), (0.0, 1.0, 0));
    }

    #[test]
    fn a_bad_recommendation_names_file_and_field() {
        let error = read(Some(r#"{"top_p":7}"#)).unwrap_err();
        assert!(error.contains("generation_config.json: top_p"), "{error}");
        assert!(read(Some("{")).unwrap_err().contains("generation_config.json"));
    }
}

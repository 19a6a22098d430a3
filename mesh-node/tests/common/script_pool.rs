//! The scripted engine's vectors and scores: known functions of the text, and of words that ask for trouble.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::SeqCst},
};

use engine::pool;
use mesh_proto::{GenerateError, PoolInputs, PoolRequest, PoolTask, Pooled, TokenId};

/// Values of a vector.
pub const WIDTH: usize = 8;

/// A text's vector, of unit length.
pub fn vector(text: &str) -> Vec<f32> {
    let values = (0..WIDTH).map(|at| text.bytes().map(|byte| f32::from(byte % (at as u8 + 5))).sum::<f32>() + 1.0);
    pool::finish(values.collect(), None, true)
}

/// How well a document answers: the part of the query's words that it has.
pub fn score(query: &str, document: &str) -> f32 {
    let words: Vec<&str> = query.split_whitespace().collect();
    words.iter().filter(|word| document.contains(**word)).count() as f32 / words.len().max(1) as f32
}

fn text_of(tokens: &[TokenId]) -> String {
    tokens.iter().map(|token| char::from(token.0 as u8)).collect()
}

/// One that runs; if it is dropped before its end, it was cancelled.
struct Running(Arc<AtomicU32>, Option<Arc<AtomicU32>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
        if let Some(cancelled) = &self.1 {
            cancelled.fetch_add(1, SeqCst);
        }
    }
}

pub(super) async fn make(
    request: PoolRequest,
    running: Arc<AtomicU32>,
    cancelled: Arc<AtomicU32>,
) -> Result<Pooled, GenerateError> {
    running.fetch_add(1, SeqCst);
    let mut alive = Running(running, Some(cancelled));
    let task = request.task;
    pool::check(&task)?;
    pool::check_dimensions(&task, WIDTH as u32)?;
    let texts: Vec<String> = match &task {
        PoolTask::Embed { inputs: PoolInputs::Texts(texts), .. } => texts.clone(),
        PoolTask::Embed { inputs: PoolInputs::Tokens(lists), .. } => lists.iter().map(|list| text_of(list)).collect(),
        PoolTask::Rerank { documents, .. } => documents.clone(),
    };
    let prompt_tokens = texts.iter().map(|text| text.len() as u32).sum();
    let ended = match texts[0].as_str() {
        "#HANG" => std::future::pending().await,
        "#FAIL" => Err(GenerateError::Engine("scripted".into())),
        "#BUSY" => Err(GenerateError::Busy { waiting: 9, retry_after_s: 2 }),
        _ if texts.iter().any(|text| text.len() > 4096) => {
            Err(GenerateError::ContextOverflow { prompt_tokens, context_tokens: 4096 })
        }
        _ => Ok(()),
    };
    alive.1 = None;
    ended?;
    let row = |text: &String| match &task {
        PoolTask::Embed { dimensions: None, .. } => vector(text),
        PoolTask::Embed { dimensions, .. } => pool::finish(vector(text), *dimensions, true),
        PoolTask::Rerank { query, .. } => vec![score(query, text)],
    };
    Ok(Pooled { rows: texts.iter().map(row).collect(), prompt_tokens })
}

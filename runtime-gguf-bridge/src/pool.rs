//! Texts made into vectors and scores by llama-server, one text a call, a slot each; must not know processes.
//!
//! One text a call: so each that ends is progress, one child's death costs no more than those in its slots, and a client
//! that hangs up leaves no more than these behind.

use std::{sync::Arc, time::Duration};

use engine::{house::Place, pool};
use futures_util::{StreamExt, TryStreamExt, stream};
use mesh_proto::{GenerateError, PoolInputs, PoolRequest, PoolTask, Pooled};
use serde_json::{Value, json};
use tokio::time::{interval, sleep};

use crate::{engine::Shared, kind::Kind, run::MOST_RETRIES, server::CallError};

/// How long one text may take. Unit: time; default 15 min, a guess: a long text, a large model, a CPU, other texts before it.
const LIMIT: Duration = Duration::from_secs(900);
/// Between two signs of life while llama-server computes: whether it hangs is watched where its processes are.
const SIGN: Duration = Duration::from_secs(5);

/// All rows of a task. `place`: the request's, until its end.
pub(crate) async fn make(
    shared: Arc<Shared>,
    kind: Kind,
    request: PoolRequest,
    place: Place,
) -> Result<Pooled, GenerateError> {
    let task = request.task;
    pool::check(&task)?;
    if let Kind::Vectors { width, .. } = kind {
        pool::check_dimensions(&task, width)?;
    }
    if let PoolTask::Embed { inputs: PoolInputs::Tokens(lists), .. } = &task {
        pool::fit(lists, shared.text.vocab_size(), u32::MAX)?;
    }
    let call = |at: usize| {
        let (path, body) = call(&task, at);
        one(shared.clone(), path, body)
    };
    let calls: Vec<_> = (0..task.rows()).map(call).collect();
    let at_once = shared.slot_count.max(1) as usize;
    let made: Vec<(Vec<f32>, u32)> = stream::iter(calls).buffered(at_once).try_collect().await?;
    drop(place);
    let prompt_tokens = made.iter().fold(0_u32, |sum, (_, tokens)| sum.saturating_add(*tokens));
    let rows = made.into_iter().map(|(values, _)| row(values, kind, &task)).collect::<Result<_, _>>()?;
    Ok(Pooled { rows, prompt_tokens })
}

/// What is asked for one text.
fn call(task: &PoolTask, at: usize) -> (&'static str, Value) {
    match task {
        PoolTask::Embed { inputs: PoolInputs::Texts(texts), .. } => ("/v1/embeddings", json!({"input": texts.get(at)})),
        PoolTask::Embed { inputs: PoolInputs::Tokens(lists), .. } => {
            ("/v1/embeddings", json!({"input": lists.get(at)}))
        }
        PoolTask::Rerank { query, documents } => {
            ("/v1/rerank", json!({"query": query, "documents": documents.get(at..=at)}))
        }
    }
}

/// One text: its values, and its tokens.
async fn one(shared: Arc<Shared>, path: &'static str, body: Value) -> Result<(Vec<f32>, u32), GenerateError> {
    let slot = shared.slots.clone().acquire_owned().await;
    let _slot = slot.map_err(|_| GenerateError::ShuttingDown)?;
    let _part = shared.house.part();
    let running = shared.running(0);
    let mut tries = 0;
    loop {
        shared.ready().await.map_err(|error| GenerateError::Engine(error.to_string()))?;
        let calling = shared.server.call(path, &body, LIMIT);
        tokio::pin!(calling);
        let mut signs = interval(SIGN);
        let answer = loop {
            tokio::select! {
                answer = &mut calling => break answer,
                _ = signs.tick() => shared.house.stepped(0),
            }
        };
        match answer {
            Ok(answer) => {
                shared.house.stepped(0);
                drop(running);
                let unread = || GenerateError::Engine(format!("llama-server's answer to {path} cannot be read"));
                return read(&answer).ok_or_else(unread);
            }
            Err(CallError::Unreachable(message)) if tries < MOST_RETRIES => {
                tries += 1;
                tracing::warn!(message, tries, "a text is pooled by a new llama-server");
                sleep(Duration::from_millis(10)).await;
            }
            Err(error) => return Err(refused(error)),
        }
    }
}

/// `{"data": [{"embedding": […]}], "usage"}` or `{"results": [{"relevance_score"}], "usage"}`.
fn read(answer: &Value) -> Option<(Vec<f32>, u32)> {
    let tokens = u32::try_from(answer["usage"]["prompt_tokens"].as_u64()?).ok()?;
    let number = |value: &Value| value.as_f64().map(|value| value as f32);
    let values = match answer.get("results") {
        Some(results) => vec![number(&results[0]["relevance_score"])?],
        None => answer["data"][0]["embedding"].as_array()?.iter().map(number).collect::<Option<_>>()?,
    };
    Some((values, tokens))
}

fn row(values: Vec<f32>, kind: Kind, task: &PoolTask) -> Result<Vec<f32>, GenerateError> {
    let row = match (kind, task) {
        (Kind::Scores { raw: true }, _) => values.into_iter().map(|score| 1.0 / (1.0 + (-score).exp())).collect(),
        // llama-server gives unit length to all.
        (_, PoolTask::Embed { dimensions, .. }) => pool::finish(values, *dimensions, true),
        _ => values,
    };
    if !row.is_empty() && row.iter().all(|value| value.is_finite()) {
        return Ok(row);
    }
    Err(GenerateError::Engine("llama-server's values are no numbers".to_owned()))
}

/// A refusal, as every engine words it.
fn refused(error: CallError) -> GenerateError {
    let CallError::Status { code, message, kind, error: told } = &error else {
        return GenerateError::Engine(error.to_string());
    };
    let number = |name: &str| told.get(name).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok());
    // "input (600 tokens) is too large to process. … (current batch size: 512)", and others like it.
    let mut numbers = message.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse::<u32>().ok());
    let too_long = kind == "exceed_context_size_error" || message.contains("too large to process");
    let (first, last) = (numbers.next(), numbers.next_back());
    if let (true, Some(prompt_tokens), Some(context_tokens)) =
        (too_long, number("n_prompt_tokens").or(first), number("n_ctx").or(last))
    {
        return GenerateError::ContextOverflow { prompt_tokens, context_tokens };
    }
    match code {
        400 => GenerateError::invalid("input", message.clone()),
        _ => GenerateError::Engine(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16, kind: &str, message: &str, error: Value) -> CallError {
        CallError::Status { code, message: message.into(), kind: kind.into(), error: Box::new(error) }
    }

    #[test]
    fn refusals_are_told_as_every_engine_tells_them() {
        let overflow = GenerateError::ContextOverflow { prompt_tokens: 600, context_tokens: 512 };
        let whole =
            "input (600 tokens) is too large to process. increase the physical batch size (current batch size: 512)";
        assert_eq!(refused(status(500, "server_error", whole, json!({}))), overflow);
        let told = json!({"n_prompt_tokens": 600, "n_ctx": 512});
        assert_eq!(refused(status(400, "exceed_context_size_error", "request (1 tokens)", told)), overflow);
        let bare = "request (600 tokens) exceeds the available context size (512 tokens), try increasing it";
        assert_eq!(refused(status(400, "exceed_context_size_error", bare, json!({}))), overflow);
        let invalid = refused(status(400, "invalid_request_error", "no", json!({})));
        assert_eq!(invalid, GenerateError::invalid("input", "no"));
        assert!(matches!(refused(status(500, "server_error", "no", json!({}))), GenerateError::Engine(_)));
        assert!(matches!(refused(CallError::Timeout { ms: 1 }), GenerateError::Engine(_)));
    }

    #[test]
    fn answers_are_read_and_scores_brought_between_0_and_1() {
        let embedded = json!({"data": [{"embedding": [0.6, 0.8, 0.0]}], "usage": {"prompt_tokens": 3}});
        let (values, tokens) = read(&embedded).unwrap();
        assert_eq!((values.as_slice(), tokens), (&[0.6, 0.8, 0.0][..], 3));
        let ranked = json!({"results": [{"index": 0, "relevance_score": 2.0}], "usage": {"prompt_tokens": 9}});
        assert_eq!(read(&ranked), Some((vec![2.0], 9)));
        assert_eq!(read(&json!({"data": []})), None);
        let task = PoolTask::Rerank { query: "q".into(), documents: vec!["d".into()] };
        assert!((row(vec![2.0], Kind::Scores { raw: true }, &task).unwrap()[0] - 0.880_797).abs() < 1e-6);
        assert_eq!(row(vec![0.25], Kind::Scores { raw: false }, &task).unwrap(), [0.25]);
        assert!(row(vec![f32::NAN], Kind::Scores { raw: false }, &task).is_err());
        let cut = PoolTask::Embed { inputs: PoolInputs::Texts(vec!["a".into()]), dimensions: Some(1) };
        assert_eq!(row(values, Kind::Vectors { width: 3, unsaid: false }, &cut).unwrap(), [1.0]);
    }
}

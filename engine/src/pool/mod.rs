//! What a model makes of texts beside answers, vectors and scores, and how; must not know devices, threads or HTTP.

mod judge;

use mesh_proto::{GenerateError, PoolInputs, PoolTask, TokenId};

pub use judge::Judge;

use crate::{arrival, text::TextModel};

/// What can be asked of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skills {
    /// Answers to prompts.
    pub generates: bool,
    /// Vectors of texts.
    pub embeds: bool,
    /// Scores of documents.
    pub reranks: bool,
}

impl Default for Skills {
    fn default() -> Self {
        Self { generates: true, embeds: false, reranks: false }
    }
}

impl Skills {
    /// Whether a task is one of them.
    ///
    /// # Errors
    /// `Invalid`, naming `model`.
    pub fn check(&self, task: &PoolTask, model: &str) -> Result<(), GenerateError> {
        let (can, lack) = match task {
            PoolTask::Embed { .. } => (self.embeds, "makes no embeddings: ask a model that was made for them"),
            PoolTask::Rerank { .. } => (self.reranks, "does not rerank: ask a model that was made for it"),
        };
        if can { Ok(()) } else { Err(GenerateError::invalid("model", format!("{model} {lack}"))) }
    }

    /// Whether answers are.
    ///
    /// # Errors
    /// `Invalid`, naming `model`.
    pub fn check_generates(&self, model: &str) -> Result<(), GenerateError> {
        if self.generates {
            return Ok(());
        }
        let what = if self.reranks { "reranks documents (/v1/rerank)" } else { "makes embeddings (/v1/embeddings)" };
        Err(GenerateError::invalid("model", format!("{model} {what} and does not answer prompts")))
    }
}

/// What a decoder makes of a sequence instead of choosing a token. Hidden states are those behind the last norm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The last token's hidden state.
    Last,
    /// The first token's.
    First,
    /// The mean of all tokens'.
    Mean,
    /// The logits of these tokens, as the next one after the last.
    Logits(Vec<TokenId>),
}

impl Pooling {
    /// Whether every token must be computed, so that no earlier sequence's KV is of use.
    pub fn reads_all(&self) -> bool {
        matches!(self, Self::First | Self::Mean)
    }
}

/// How a model's vectors are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Embedding {
    /// Of which hidden states.
    pub pooling: Pooling,
    /// Whether they are brought to unit length.
    pub normalise: bool,
    /// Values of a vector.
    pub width: u32,
}

/// What a model makes of texts.
#[derive(Clone, Debug)]
pub enum Pools {
    /// Vectors. `alone`: the model was made for them, and its answers to prompts are no good.
    Embeds {
        /// How.
        embedding: Embedding,
        /// See above.
        alone: bool,
    },
    /// Scores; the model was made for them.
    Reranks(Judge),
}

impl Pools {
    /// What can be asked of a model that does this.
    pub fn skills(&self) -> Skills {
        match self {
            Self::Embeds { alone, .. } => Skills { generates: !alone, embeds: true, reranks: false },
            Self::Reranks(_) => Skills { generates: false, embeds: false, reranks: true },
        }
    }

    /// What is asked of the decoder.
    pub fn pooling(&self) -> Pooling {
        match self {
            Self::Embeds { embedding, .. } => embedding.pooling.clone(),
            Self::Reranks(judge) => judge.pooling(),
        }
    }

    /// A task as sequences. Takes milliseconds for long texts: not for an async thread. `ceiling_tokens`: the most of one.
    ///
    /// # Errors
    /// `Invalid` names the field; `ContextOverflow`, of the first that is too long.
    pub fn sequences(
        &self,
        task: &PoolTask,
        text: &TextModel,
        vocab_size: u32,
        ceiling_tokens: u32,
    ) -> Result<Vec<Vec<TokenId>>, GenerateError> {
        check(task)?;
        let sequences: Vec<Vec<TokenId>> = match (task, self) {
            (PoolTask::Embed { inputs: PoolInputs::Texts(texts), .. }, _) => {
                texts.iter().map(|input| text.encode(input, true)).collect::<Result<_, _>>()?
            }
            (PoolTask::Embed { inputs: PoolInputs::Tokens(lists), .. }, _) => lists.clone(),
            (PoolTask::Rerank { query, documents }, Self::Reranks(judge)) => {
                documents.iter().map(|document| judge.sequence(query, document, text)).collect::<Result<_, _>>()?
            }
            (PoolTask::Rerank { .. }, Self::Embeds { .. }) => Vec::new(),
        };
        fit(&sequences, vocab_size, ceiling_tokens)?;
        Ok(sequences)
    }

    /// A row of the answer from what the decoder made.
    ///
    /// # Errors
    /// `Engine` where it made no numbers.
    pub fn row(&self, pooled: Vec<f32>, task: &PoolTask) -> Result<Vec<f32>, GenerateError> {
        let row = match (self, task) {
            (Self::Embeds { embedding, .. }, PoolTask::Embed { dimensions, .. }) => {
                finish(pooled, *dimensions, embedding.normalise)
            }
            (Self::Reranks(judge), _) => vec![judge.score(&pooled)],
            (Self::Embeds { .. }, PoolTask::Rerank { .. }) => pooled,
        };
        if row.iter().all(|value| value.is_finite()) {
            return Ok(row);
        }
        Err(GenerateError::Engine("the model's values are no numbers".into()))
    }
}

/// What holds of a task on every engine; peers' tasks come here too.
///
/// # Errors
/// `Invalid`, naming the field.
pub fn check(task: &PoolTask) -> Result<(), GenerateError> {
    let most = PoolTask::MAX_INPUTS;
    let field = match task {
        PoolTask::Embed { .. } => "input",
        PoolTask::Rerank { .. } => "documents",
    };
    if task.rows() == 0 || task.rows() > most {
        let message = format!("`{field}` must have 1 to {most} of them, not {}", task.rows());
        return Err(GenerateError::invalid(field, message));
    }
    let empty = match task {
        PoolTask::Embed { inputs: PoolInputs::Texts(texts), .. } => texts.iter().position(String::is_empty),
        PoolTask::Embed { inputs: PoolInputs::Tokens(lists), .. } => lists.iter().position(Vec::is_empty),
        PoolTask::Rerank { query, .. } if query.is_empty() => {
            return Err(GenerateError::invalid("query", "`query` is empty"));
        }
        PoolTask::Rerank { documents, .. } => documents.iter().position(String::is_empty),
    };
    match empty {
        Some(at) => Err(GenerateError::invalid(field, format!("`{field}` number {at} (from 0) is empty"))),
        None => Ok(()),
    }
}

/// Whether an answer can have so many values.
///
/// # Errors
/// `Invalid`, naming `dimensions`.
pub fn check_dimensions(task: &PoolTask, width: u32) -> Result<(), GenerateError> {
    match task {
        PoolTask::Embed { dimensions: Some(wanted), .. } if !(1..=width).contains(wanted) => {
            let message = format!("`dimensions` must be from 1 to the {width} that this model has, not {wanted}");
            Err(GenerateError::invalid("dimensions", message))
        }
        _ => Ok(()),
    }
}

/// Whether each of some sequences can be computed.
///
/// # Errors
/// `Invalid` names `input`; `ContextOverflow`, of the first that is too long.
pub fn fit(sequences: &[Vec<TokenId>], vocab_size: u32, ceiling_tokens: u32) -> Result<(), GenerateError> {
    for sequence in sequences {
        arrival::in_vocabulary("input", sequence, vocab_size)?;
        let prompt_tokens = u32::try_from(sequence.len()).unwrap_or(u32::MAX);
        if prompt_tokens == 0 {
            return Err(GenerateError::invalid("input", "`input` has a text without a token"));
        }
        if prompt_tokens > ceiling_tokens {
            return Err(GenerateError::ContextOverflow { prompt_tokens, context_tokens: ceiling_tokens });
        }
    }
    Ok(())
}

/// A vector cut to its first values, and brought to unit length. One without any length stays as it is.
pub fn finish(mut vector: Vec<f32>, dimensions: Option<u32>, normalise: bool) -> Vec<f32> {
    if let Some(dimensions) = dimensions {
        vector.truncate(dimensions as usize);
    }
    if normalise {
        let length = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        if length > 0.0 {
            vector.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
        }
    }
    vector
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embed(inputs: PoolInputs, dimensions: Option<u32>) -> PoolTask {
        PoolTask::Embed { inputs, dimensions }
    }

    fn field(error: GenerateError) -> String {
        match error {
            GenerateError::Invalid { field, .. } => field,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn what_cannot_be_pooled_is_refused_with_its_fields_name() {
        let texts = |texts: &[&str]| embed(PoolInputs::Texts(texts.iter().map(|&t| t.into()).collect()), None);
        assert_eq!(check(&texts(&["a"])), Ok(()));
        for task in [texts(&[]), texts(&["a", ""]), texts(&["a"; PoolTask::MAX_INPUTS + 1])] {
            assert_eq!(field(check(&task).unwrap_err()), "input");
        }
        assert_eq!(field(check(&embed(PoolInputs::Tokens(vec![vec![]]), None)).unwrap_err()), "input");
        let rerank = |query: &str, documents: &[&str]| PoolTask::Rerank {
            query: query.into(),
            documents: documents.iter().map(|&t| t.into()).collect(),
        };
        assert_eq!(check(&rerank("q", &["a"])), Ok(()));
        assert_eq!(field(check(&rerank("", &["a"])).unwrap_err()), "query");
        assert_eq!(field(check(&rerank("q", &[])).unwrap_err()), "documents");
        assert_eq!(field(check(&rerank("q", &["a", ""])).unwrap_err()), "documents");
        for (wanted, refused) in [(0, true), (1, false), (8, false), (9, true)] {
            let task = embed(PoolInputs::Texts(vec!["a".into()]), Some(wanted));
            assert_eq!(check_dimensions(&task, 8).is_err(), refused, "{wanted}");
        }
        let long = vec![vec![TokenId(1); 9]];
        assert_eq!(fit(&long, 2, 9), Ok(()));
        let overflow = GenerateError::ContextOverflow { prompt_tokens: 9, context_tokens: 8 };
        assert_eq!(fit(&long, 2, 8), Err(overflow));
        assert_eq!(field(fit(&long, 1, 9).unwrap_err()), "input");
    }

    #[test]
    fn a_vector_that_is_cut_has_unit_length_again_where_the_models_have() {
        assert_eq!(finish(vec![3.0, 4.0, 12.0], Some(2), true), [0.6, 0.8]);
        assert_eq!(finish(vec![3.0, 4.0, 12.0], Some(2), false), [3.0, 4.0]);
        assert_eq!(finish(vec![0.0; 3], None, true), [0.0; 3]);
    }
}

//! Texts as vectors and as scores: asked for, and answered; must not know who computes them.

use serde::{Deserialize, Serialize};

use crate::{
    ModelId, RequestId, TokenId,
    codec::{CapError, Wire, at_most, cap},
};

/// What is to be embedded: texts, which the tokenizer gives its own special tokens, or tokens as they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PoolInputs {
    /// As texts.
    Texts(#[serde(deserialize_with = "at_most::<{ PoolTask::MAX_INPUTS }, _, _>")] Vec<String>),
    /// As tokens.
    Tokens(#[serde(deserialize_with = "at_most::<{ PoolTask::MAX_INPUTS }, _, _>")] Vec<Vec<TokenId>>),
}

impl PoolInputs {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::Tokens(lists) => lists.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a model is to make of texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PoolTask {
    /// A vector of each input.
    Embed {
        /// Of what.
        inputs: PoolInputs,
        /// The vectors' first so many values alone, brought back to unit length where the model's have it; `None`: all.
        dimensions: Option<u32>,
    },
    /// How well each document answers a query: one value from 0 to 1 a document.
    Rerank {
        /// The query.
        query: String,
        /// The documents.
        #[serde(deserialize_with = "at_most::<{ PoolTask::MAX_INPUTS }, _, _>")]
        documents: Vec<String>,
    },
}

impl PoolTask {
    /// Most inputs, or documents, of one request. Origin: OpenAI.
    pub const MAX_INPUTS: usize = 2048;
    /// Most tokens of a request that brings tokens. Unit: tokens. Guess: 2,048 inputs of 2,048. Cost: memory, 4 bytes each.
    pub const MAX_TOKENS: usize = 4 << 20;

    /// How many rows the answer has.
    pub fn rows(&self) -> usize {
        match self {
            Self::Embed { inputs, .. } => inputs.len(),
            Self::Rerank { documents, .. } => documents.len(),
        }
    }
}

impl Wire for PoolTask {
    const NAME: &'static str = "pool task";
    /// As much as the API takes of a body, and room for the rest.
    const LIMIT: usize = 33 << 20;
    const VARIANTS: u8 = 2;
    fn check(&self) -> Result<(), CapError> {
        cap("inputs", self.rows(), Self::MAX_INPUTS)?;
        if let Self::Embed { inputs: PoolInputs::Tokens(lists), .. } = self {
            cap("tokens", lists.iter().map(Vec::len).sum(), Self::MAX_TOKENS)?;
        }
        Ok(())
    }
}

/// Everything an engine needs to pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolRequest {
    /// For logs.
    pub id: RequestId,
    /// Which model.
    pub model: ModelId,
    /// What to do.
    pub task: PoolTask,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pooled {
    /// One for each input, in their order: its vector; of a document, its score alone.
    pub rows: Vec<Vec<f32>>,
    /// Tokens that were read for it, all inputs together.
    pub prompt_tokens: u32,
}

//! Models that judge a document by answering yes or no, as Qwen3-Reranker does; must not know who asks.

use mesh_proto::{GenerateError, TokenId};

use super::Pooling;
use crate::text::TextModel;

/// What stands before a query and its document. Origin: the model card of Qwen3-Reranker.
const BEFORE: &str = "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the \
                      Instruct provided. Note that the answer can only be \"yes\" or \"no\".<|im_end|>\n<|im_start|>user\n";
/// What stands behind them. Origin: as above.
const BEHIND: &str = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n";
/// What is asked of the document. Origin: as above, where nobody says anything else.
const INSTRUCT: &str = "Given a web search query, retrieve relevant passages that answer the query";

/// A model that was taught to answer a query and a document with yes or no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judge {
    yes: TokenId,
    no: TokenId,
    before: Vec<TokenId>,
    behind: Vec<TokenId>,
}

impl Judge {
    /// With this model's tokens.
    ///
    /// # Errors
    /// Says what its tokenizer lacks.
    pub fn new(text: &TextModel) -> Result<Self, String> {
        let encode = |part: &str| text.encode(part, false).map_err(|error| error.to_string());
        let word = |word: &str| match encode(word)?.as_slice() {
            [one] => Ok(*one),
            other => Err(format!("its tokenizer makes {} tokens of {word:?}, where one is expected", other.len())),
        };
        Ok(Self { yes: word("yes")?, no: word("no")?, before: encode(BEFORE)?, behind: encode(BEHIND)? })
    }

    /// What is asked of the decoder.
    pub(super) fn pooling(&self) -> Pooling {
        Pooling::Logits(vec![self.no, self.yes])
    }

    /// A query and a document as the model was taught to read them.
    pub(super) fn sequence(
        &self,
        query: &str,
        document: &str,
        text: &TextModel,
    ) -> Result<Vec<TokenId>, GenerateError> {
        let asked = format!("<Instruct>: {INSTRUCT}\n<Query>: {query}\n<Document>: {document}");
        let asked = text.encode(&asked, false)?;
        Ok([self.before.as_slice(), &asked, &self.behind].concat())
    }

    /// The probability of yes, where nothing but yes and no can be said.
    pub(super) fn score(&self, logits: &[f32]) -> f32 {
        let [no, yes] = *logits else { return f32::NAN };
        1.0 / (1.0 + (no - yes).exp())
    }
}

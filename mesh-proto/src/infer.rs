//! The frames of one generation asked of another node, ALPN `mesh-llm/infer/1`; must not know streams or engines.
//!
//! One bidirectional QUIC stream a request. The asking side sends one [`Ask`] and nothing more: it cancels by resetting
//! the stream. The serving side answers with [`Reply`] frames, the last of them `Finished` or `Failed`. A frame is its
//! length (u32, little endian) and so many bytes of [`codec`](crate::codec).
//!
//! A stream may ask for vectors or scores instead ([`Ask::POOL`]): then a [`PoolTask`] follows the ask, and the answer is
//! [`Reply::Rows`] and `Finished`.
//!
//! [`Reply::Tokens`] is the unit of resumption: the tokens of an answer and everything that they settled, at once. Who
//! has taken one can go on elsewhere behind its last token ([`GenerateRequest::resume`]), and nothing is said twice.

use serde::{Deserialize, Serialize};

use crate::{
    Channel, Constraint, Dry, FinishReason, GenerateError, GenerateRequest, ModelId, PoolTask, Prompt, RequestId,
    Sampling, TokenId, TokenLogprob, ToolCallDelta, Usage,
    codec::{CapError, Ext, Wire, at_most, cap, some},
    placement::ModelKey,
    time::Millis,
};

/// The ALPN.
pub const ALPN: &[u8] = b"mesh-llm/infer/1";

/// Bytes before a frame that tell its length.
pub const PREFIX: usize = 4;

/// A generation, asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ask {
    /// What to generate; its `resume` is the resume point.
    pub request: GenerateRequest,
    /// Which model the name must stand for. Another one must not answer.
    pub model: ModelKey,
    /// How long the answer may take, from now; `None`: as long as it moves.
    pub deadline: Option<Millis>,
    /// Later additions. Even tags change the answer: who does not know one refuses the request and names it. Odd ones
    /// are skipped.
    pub ext: Ext,
}

impl Ask {
    /// In `ext`: the seed was drawn by the asking side ([`GenerateRequest::seed_drawn`]). No bytes.
    pub const SEED_DRAWN: u16 = 1;
    /// In `ext`: nothing is to be generated; what to do stands in the [`PoolTask`] that is the stream's next frame. No bytes.
    pub const POOL: u16 = 2;
    /// Tags that change the answer and that this build knows.
    const DEMANDS: [u16; 1] = [Self::POOL];

    /// Asks for this, without a deadline.
    pub fn new(request: GenerateRequest, model: ModelKey) -> Self {
        let ext = if request.seed_drawn { Ext::default().with(Self::SEED_DRAWN, Vec::new()) } else { Ext::default() };
        Self { request, model, deadline: None, ext }
    }

    /// Asks for what the next frame says, by this name of the model.
    pub fn pool(id: RequestId, name: ModelId, model: ModelKey) -> Self {
        let request = GenerateRequest { id, ..GenerateRequest::new(name, Prompt::Tokens(Vec::new())) };
        Self { request, model, deadline: None, ext: Ext::default().with(Self::POOL, Vec::new()) }
    }

    /// Whether a [`PoolTask`] follows.
    pub fn pools(&self) -> bool {
        self.ext.get(Self::POOL).is_some()
    }

    /// The request, with what additions say of it.
    pub fn into_request(self) -> GenerateRequest {
        let seed_drawn = self.ext.get(Self::SEED_DRAWN).is_some();
        GenerateRequest { seed_drawn, ..self.request }
    }

    /// The first addition that this build would have to understand, and does not.
    pub fn unknown_demand(&self) -> Option<u16> {
        self.ext.0.iter().map(|(tag, _)| *tag).find(|tag| tag % 2 == 0 && !Self::DEMANDS.contains(tag))
    }
}

impl Wire for Ask {
    const NAME: &'static str = "ask";
    /// As much as the API takes of a body, and room for the rest.
    const LIMIT: usize = 33 << 20;
    fn check(&self) -> Result<(), CapError> {
        let request = &self.request;
        cap("request id", request.id.0.len(), 128)?;
        cap("model id", request.model.as_str().len(), crate::record::MAX_NAME)?;
        if let Prompt::Chat(chat) = &request.prompt {
            chat.check()?;
        }
        cap("stop", request.stop.len(), GenerateRequest::MAX_STOPS)?;
        cap("logit_bias", request.sampling.logit_bias.len(), Sampling::MAX_BIASES)?;
        let breakers = request.sampling.dry.as_ref().map_or(0, |dry| dry.breakers.len());
        cap("dry breakers", breakers, Dry::MAX_BREAKERS)?;
        let constraint = request.constraint.as_ref().map_or(0, |constraint| constraint.text().len());
        cap("constraint", constraint, Constraint::MAX_BYTES)?;
        cap("logprobs", request.logprobs.unwrap_or(0).into(), GenerateRequest::MAX_LOGPROBS.into())?;
        self.ext.check()
    }
}

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Piece {
    /// More text. Never splits a character; never empty.
    Text {
        /// Where it belongs.
        channel: Channel,
        /// The text.
        text: String,
    },
    /// A piece of a tool call.
    ToolCall(ToolCallDelta),
}

/// What the serving side says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// The request is tokenised and has its place.
    Accepted {
        /// Tokens of the prompt, without the resumed ones.
        prompt_tokens: u32,
        /// Later additions.
        ext: Ext,
    },
    /// It lives, each [`HEARTBEAT`](crate::routing::HEARTBEAT) in which nothing else is said.
    Beat {
        /// Changes when work gets done.
        progress: u64,
    },
    /// Tokens of the answer, and what they settled.
    Tokens {
        /// Index of the first one in the whole answer, resumed part included.
        at: u32,
        /// The tokens, at least one.
        #[serde(deserialize_with = "at_most::<{ Reply::MAX_TOKENS }, _, _>")]
        tokens: Vec<TokenId>,
        /// What can be said now.
        #[serde(deserialize_with = "at_most::<{ Reply::MAX_PIECES }, _, _>")]
        pieces: Vec<Piece>,
        /// How likely the tokens were, where the request asks for it.
        #[serde(deserialize_with = "at_most::<{ Reply::MAX_TOKENS }, _, _>")]
        logprobs: Vec<TokenLogprob>,
    },
    /// The end, as it should be.
    Finished {
        /// What was held back until now.
        #[serde(deserialize_with = "at_most::<{ Reply::MAX_PIECES }, _, _>")]
        pieces: Vec<Piece>,
        /// How likely the tokens were that were held back, where the request asks for it.
        #[serde(deserialize_with = "at_most::<{ Reply::MAX_TOKENS }, _, _>")]
        logprobs: Vec<TokenLogprob>,
        /// Why it ended.
        reason: FinishReason,
        /// The stop string that was met, if one was.
        stop: Option<String>,
        /// What it cost, resumed part included.
        usage: Usage,
        /// Later additions.
        ext: Ext,
    },
    /// The end, as it should not be.
    Failed(GenerateError),
    /// Vectors or scores of some inputs of a [`PoolTask`].
    Rows {
        /// Index of the first one's input.
        at: u32,
        /// One for each input, at least one.
        #[serde(deserialize_with = "at_most::<{ PoolTask::MAX_INPUTS }, _, _>")]
        rows: Vec<Vec<f32>>,
    },
}

impl Reply {
    /// Most tokens of one frame: more of them than any client leaves unread.
    pub const MAX_TOKENS: usize = 65_536;
    /// Most pieces of one frame.
    pub const MAX_PIECES: usize = 4_096;
    /// Most values of one frame of rows, but for a single row that has more. Unit: values; default 128 Ki: half a megabyte.
    pub const MAX_VALUES: usize = 128 << 10;
}

impl Wire for Reply {
    const NAME: &'static str = "reply";
    /// Tool calls come whole.
    const LIMIT: usize = 4 << 20;
    const VARIANTS: u8 = 6;
    fn check(&self) -> Result<(), CapError> {
        match self {
            Self::Accepted { ext, .. } => ext.check(),
            Self::Beat { .. } | Self::Failed(_) => Ok(()),
            Self::Rows { rows, .. } => some("rows", rows.len(), PoolTask::MAX_INPUTS),
            Self::Tokens { tokens, pieces, logprobs, .. } => {
                some("tokens", tokens.len(), Self::MAX_TOKENS)?;
                cap("logprobs", logprobs.len(), Self::MAX_TOKENS)?;
                check_pieces(pieces)
            }
            Self::Finished { pieces, logprobs, ext, .. } => {
                cap("logprobs", logprobs.len(), Self::MAX_TOKENS)?;
                check_pieces(pieces)?;
                ext.check()
            }
        }
    }
}

fn check_pieces(pieces: &[Piece]) -> Result<(), CapError> {
    cap("pieces", pieces.len(), Reply::MAX_PIECES)?;
    pieces.iter().try_for_each(|piece| match piece {
        Piece::Text { text, .. } => some("text", text.len(), Reply::LIMIT),
        Piece::ToolCall(_) => Ok(()),
    })
}

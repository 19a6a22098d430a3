//! What crosses a process border in mesh-llm, as plain data; it must not know sockets, clocks or threads.
//!
//! One generation is [`GenerateRequest`] in, [`Event`]s out, [`GenerateError`] when it cannot be; a [`PoolTask`] makes
//! vectors or scores of texts. Around them stand the mesh's machines: [`identity`], [`directory`], [`suspicion`],
//! [`demand`], [`placement`], [`routing`].
//!
//! ```
//! use mesh_proto::{GenerateRequest, ModelId, Prompt};
//!
//! let request = GenerateRequest::new(ModelId::new("mesh-tiny"), Prompt::Text("Once upon".into()));
//! assert!(!request.sampling.draws() && request.max_tokens.is_none());
//! ```

mod chat;
pub mod codec;
pub mod demand;
mod dice;
pub mod directory;
mod error;
mod event;
pub mod files;
mod id;
pub mod identity;
pub mod infer;
mod model;
pub mod placement;
mod pool;
pub mod record;
mod request;
pub mod routing;
mod sampling;
pub mod sim;
pub mod suspicion;
pub mod time;

pub use chat::{ChatPrompt, Message, Role, ToolCall, ToolDefinition};
pub use error::GenerateError;
pub use event::{Channel, Event, FinishReason, Likelihood, TokenLogprob, ToolCallDelta, Usage};
pub use id::{ModelId, RequestId, TokenId};
pub use model::ModelDescriptor;
pub use pool::{PoolInputs, PoolRequest, PoolTask, Pooled};
pub use request::{Constraint, GenerateRequest, Prompt, ToolChoice};
pub use sampling::{Dry, LogitBias, Sampling};

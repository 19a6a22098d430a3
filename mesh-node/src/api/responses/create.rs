//! `POST /v1/responses`: its request, and the way through; must not know how fields become sampling.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use axum::{
    Extension, Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use mesh_proto::{Event, GenerateError, GenerateRequest, ModelId, Prompt, RequestId};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, value::RawValue};

use super::{
    Head,
    item::{Input, Kind},
    lower::{self, Asked},
    not_found,
    raise::{Told, Writer},
    store::{Kept, Store},
};
use crate::{
    api::{
        ApiError,
        answer::Answer,
        body, named,
        openai::{
            parse::{parse, parse_at},
            wire::{Number, Object, Whole},
        },
        turns,
    },
    router::{Router, Target},
};

/// The request. Every field that clients may send stands here: those that work, those that are refused unless they ask
/// for nothing, and those that change nothing for the caller. Any other is a 400.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct CreateRequest {
    pub(super) model: String,
    pub(super) input: Option<Input>,
    pub(super) instructions: Option<String>,
    pub(super) previous_response_id: Option<String>,
    pub(super) stream: Option<bool>,
    pub(super) store: Option<bool>,
    pub(super) tools: Option<Vec<Box<RawValue>>>,
    pub(super) tool_choice: Option<Value>,
    pub(super) parallel_tool_calls: Option<bool>,
    pub(super) text: Option<Object<TextDto>>,
    pub(super) reasoning: Option<Object<ReasoningDto>>,
    pub(super) max_output_tokens: Option<Whole>,
    pub(super) temperature: Option<Number>,
    pub(super) top_p: Option<Number>,
    pub(super) top_logprobs: Option<Whole>,
    pub(super) include: Option<Vec<String>>,
    pub(super) truncation: Option<String>,
    pub(super) metadata: Option<BTreeMap<String, String>>,
    /// Names the conversation: its requests go where its KV is.
    pub(super) prompt_cache_key: Option<String>,
    // Told back, and nothing else.
    pub(super) user: Option<String>,
    pub(super) safety_identifier: Option<String>,
    /// Calls of tools that a service runs; there are none here to be limited.
    pub(super) max_tool_calls: Option<Whole>,

    // Refused by name, but for the values that ask for nothing.
    pub(super) background: Option<Value>,
    pub(super) conversation: Option<Value>,
    pub(super) prompt: Option<Value>,
    pub(super) context_management: Option<Value>,
    pub(super) moderation: Option<Value>,

    // Harmless: accounting and caching of a service that this is not. No answer depends on them.
    #[serde(rename = "stream_options")]
    _stream_options: Option<Object<StreamOptions>>,
    #[serde(rename = "client_metadata")]
    _client_metadata: Option<IgnoredAny>,
    #[serde(rename = "service_tier")]
    _service_tier: Option<IgnoredAny>,
    #[serde(rename = "prompt_cache_retention")]
    _prompt_cache_retention: Option<IgnoredAny>,
    #[serde(rename = "prompt_cache_options")]
    _prompt_cache_options: Option<IgnoredAny>,
}

/// `stream_options`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StreamOptions {
    // Padding against eavesdroppers on the length of chunks; we never send it, which clients must bear.
    #[serde(rename = "include_obfuscation")]
    _include_obfuscation: Option<bool>,
}

/// `text`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TextDto {
    pub(super) format: Option<Object<FormatDto>>,
    // How long it should be, which no model here can be told.
    #[serde(rename = "verbosity")]
    _verbosity: Option<IgnoredAny>,
}

/// `text.format`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FormatDto {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) name: Option<String>,
    pub(super) description: Option<String>,
    pub(super) schema: Option<Box<RawValue>>,
    pub(super) strict: Option<bool>,
}

/// `reasoning`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReasoningDto {
    pub(super) effort: Option<String>,
    /// Reasoning comes whole; nobody here sums it up, and a response need not have a summary.
    pub(super) summary: Option<String>,
    // The older name of it.
    #[serde(rename = "generate_summary")]
    _generate_summary: Option<IgnoredAny>,
    // How much of earlier reasoning is seen again, which the model's template decides.
    #[serde(rename = "context")]
    _context: Option<IgnoredAny>,
}

/// Answers.
pub(super) async fn serve(
    State(router): State<Router>,
    Extension(store): Extension<Arc<Store>>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Result<Response, ApiError> {
    let mut dto: CreateRequest = parse(&body::read(request).await?)?;
    let target = router.find(&ModelId::new(&dto.model)).await?;
    let head = Head::new(&id.0, &target);
    let earlier = earlier(&store, dto.previous_response_id.as_deref())?;
    let input = dto.input.take().map_or_else(|| Ok(Vec::new()), |input| items(input, &store))?;
    let session = dto.prompt_cache_key.clone();
    let asked = lower::response(dto, &earlier, &input, id, &target.defaults)?;
    let (stream, previous) = (asked.stream, asked.echo.previous_response_id.clone());
    let keep = asked.echo.store.then(|| {
        let input = lower::resources(&head.number, &input);
        Keep { store, previous, input }
    });
    let Asked { request, echo, names, seals, truncates, .. } = asked;
    let writer = Writer::new(head, echo, names, seals);
    let mut answer = begin(&router, &target, request, session.as_deref(), truncates).await?;
    let mut keeping = Keeping { writer, keep };
    if stream {
        return Ok((answer.origin(), named::respond(answer, keeping)).into_response());
    }
    while let Some(event) = answer.next().await {
        named::Raise::event(&mut keeping, event)?;
    }
    Ok((answer.origin(), Json(keeping.writer.response())).into_response())
}

/// All items of the conversation before this request, oldest first.
fn earlier(store: &Store, previous: Option<&str>) -> Result<Vec<Box<RawValue>>, ApiError> {
    let Some(previous) = previous else { return Ok(Vec::new()) };
    let chain = store.chain(previous, Instant::now()).map_err(|missing| {
        let message = if missing == previous {
            format!("Previous response with id '{previous}' not found.")
        } else {
            format!("Previous response with id '{previous}' goes on from '{missing}', which is no longer kept.")
        };
        not_found(message, Some("previous_response_id"), Some("previous_response_not_found"))
    })?;
    let mut items = Vec::new();
    for kept in chain {
        items.extend(kept.input.iter().map(|item| item.json.clone()));
        items.extend(kept.output());
    }
    Ok(items)
}

/// The request's own items, references replaced by what they refer to.
fn items(input: Input, store: &Store) -> Result<Vec<Box<RawValue>>, ApiError> {
    let items = match input {
        Input::Text(text) => return Ok(vec![lower::said(&text)?]),
        Input::Items(items) => items,
    };
    let known = |(at, item): (usize, Box<RawValue>)| {
        let path = format!("input[{at}]");
        let kind: Kind = parse_at(&path, item.get())?;
        match (kind.word(), &kind.id) {
            (Some("item_reference"), Some(id)) => {
                store.item(id).ok_or_else(|| not_found(format!("Item with id '{id}' not found."), Some(&path), None))
            }
            _ => Ok(item),
        }
    };
    items.into_iter().enumerate().map(known).collect()
}

/// Begins; where the prompt is too long and may be shortened, with what is left of it.
async fn begin(
    router: &Router,
    target: &Target,
    mut request: GenerateRequest,
    session: Option<&str>,
    truncates: bool,
) -> Result<Answer, GenerateError> {
    if !truncates {
        return Answer::begin(router, target, request, session).await;
    }
    loop {
        let error = match Answer::begin(router, target, request.clone(), session).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let (GenerateError::ContextOverflow { prompt_tokens, context_tokens }, Prompt::Chat(chat)) =
            (&error, &mut request.prompt)
        else {
            return Err(error);
        };
        // Each round drops an exchange at least, so it ends.
        if !turns::shorten(&mut chat.messages, *prompt_tokens, *context_tokens) {
            return Err(error);
        }
    }
}

/// Where a response is kept once it is whole.
struct Keep {
    store: Arc<Store>,
    previous: Option<String>,
    input: Vec<super::store::Item>,
}

/// A response as it comes, kept when it is whole. One that failed, or whose client left, is not.
struct Keeping {
    writer: Writer,
    keep: Option<Keep>,
}

impl named::Raise for Keeping {
    type Chunk = Told;

    fn name(chunk: &Told) -> &'static str {
        chunk.name()
    }

    fn opening(&mut self) -> Vec<Told> {
        self.writer.opening()
    }

    fn event(&mut self, event: Event) -> Result<Vec<Told>, GenerateError> {
        let told = self.writer.event(event)?;
        if self.writer.is_whole()
            && let Some(Keep { store, previous, input }) = self.keep.take()
        {
            let response = self.writer.response();
            let (id, output_ids) = (response.id().to_owned(), response.item_ids());
            match serde_json::to_string(&response) {
                Ok(response) => store.put(Kept { id, previous, input, output_ids, response }, Instant::now()),
                Err(error) => tracing::warn!(%error, id, "a response could not be kept"),
            }
        }
        Ok(told)
    }

    fn failure(&mut self, error: ApiError) -> Told {
        self.writer.failure(error)
    }
}

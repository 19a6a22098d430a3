//! `POST /tokenize` and `/detokenize`, in llama-server's shapes; must not know how a tokenizer works.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
};
use engine::Engine;
use mesh_proto::{GenerateError, ModelId, TokenId};
use serde::{Deserialize, Serialize};

use super::{
    ApiError, body,
    openai::{
        lower::check::{only, token},
        parse::parse,
        wire::Whole,
    },
};
use crate::router::Router;

/// `POST /tokenize`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenizeRequest {
    model: Option<String>,
    content: String,
    /// Whether the tokenizer's own tokens are added, such as a beginning-of-sequence token.
    add_special: Option<bool>,
    parse_special: Option<bool>,
    with_pieces: Option<bool>,
}

/// Its answer.
#[derive(Debug, Serialize)]
pub(super) struct Tokenized {
    tokens: Vec<TokenDto>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum TokenDto {
    Id(u32),
    WithPiece { id: u32, piece: Piece },
}

/// What a token stands for; bytes where that is no whole character.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Piece {
    Text(String),
    Bytes(Vec<u8>),
}

/// `POST /detokenize`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DetokenizeRequest {
    model: Option<String>,
    tokens: Vec<Whole>,
}

/// Its answer.
#[derive(Debug, Serialize)]
pub(super) struct Detokenized {
    content: String,
}

/// A text's tokens.
pub(super) async fn tokenize(State(router): State<Router>, request: Request) -> Result<Json<Tokenized>, ApiError> {
    let asked: TokenizeRequest = parse(&body::read(request).await?)?;
    only("parse_special", asked.parse_special != Some(false), "true")?;
    let engine = engine(&router, asked.model).await?;
    let ids = engine.tokenize(asked.content, asked.add_special.unwrap_or(false)).await?;
    let mut tokens = Vec::with_capacity(ids.len());
    for id in ids {
        tokens.push(match asked.with_pieces {
            Some(true) => TokenDto::WithPiece { id: id.0, piece: piece(&engine, id).await? },
            _ => TokenDto::Id(id.0),
        });
    }
    Ok(Json(Tokenized { tokens }))
}

/// The text of some tokens.
pub(super) async fn detokenize(State(router): State<Router>, request: Request) -> Result<Json<Detokenized>, ApiError> {
    let asked: DetokenizeRequest = parse(&body::read(request).await?)?;
    let engine = engine(&router, asked.model).await?;
    let vocab_size = engine.descriptor().vocab_size;
    let tokens = asked.tokens.into_iter().enumerate();
    let tokens = tokens.map(|(at, id)| token(&format!("tokens[{at}]"), Some(id.0), vocab_size));
    let tokens = tokens.collect::<Result<Vec<TokenId>, GenerateError>>()?;
    Ok(Json(Detokenized { content: engine.detokenize(tokens).await? }))
}

/// Who has the model, in this process. A node with one model need not be told which.
async fn engine(router: &Router, model: Option<String>) -> Result<Arc<dyn Engine>, ApiError> {
    let id = match model {
        Some(model) => ModelId::new(model),
        None => only_model(router)?,
    };
    router.find(&id).await?;
    let served = router.locals().find(&id).ok_or_else(|| ApiError::elsewhere(id.as_str()))?;
    Ok(served.engine)
}

/// The model of a node that answers for just one.
pub(super) fn only_model(router: &Router) -> Result<ModelId, ApiError> {
    let mut listed = router.list().into_iter().map(|model| model.id);
    match (listed.next(), listed.next()) {
        (Some(only), None) => Ok(ModelId::new(only)),
        _ => {
            let message = "`model` is missing, and this node does not answer for just one";
            Err(GenerateError::invalid("model", message).into())
        }
    }
}

async fn piece(engine: &Arc<dyn Engine>, token: TokenId) -> Result<Piece, ApiError> {
    let bytes = engine.text_model().and_then(|model| model.token_bytes(token));
    Ok(match bytes.map(|bytes| String::from_utf8(bytes.to_vec())) {
        Some(Ok(text)) => Piece::Text(text),
        Some(Err(half)) => Piece::Bytes(half.into_bytes()),
        // Markup, and tokens that read differently beside others.
        None => Piece::Text(engine.detokenize(vec![token]).await?),
    })
}

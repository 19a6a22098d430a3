//! `/v1/responses/{id}` and what is below it: responses that were kept; must not know how they came to be.

use std::{sync::Arc, time::Instant};

use axum::{
    Extension, Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use mesh_proto::GenerateError;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    not_found,
    store::{Item, Kept, Store},
};
use crate::api::{
    ApiError, ErrorBody,
    uri::{self, Id, Pairs, pairs},
};

/// Items of a list where nothing is said, and at most. Origin: OpenAI.
const LIMIT: (usize, usize) = (20, 100);

fn find(store: &Store, id: &str) -> Result<Arc<Kept>, ApiError> {
    store.get(id, Instant::now()).ok_or_else(|| unknown(id))
}

fn unknown(id: &str) -> ApiError {
    not_found(format!("Response with id '{id}' not found."), None, None)
}

/// A response, once more.
pub(super) async fn show(Extension(store): Extension<Arc<Store>>, id: Id, query: Pairs) -> Result<Response, ApiError> {
    for (name, value) in pairs(query)? {
        match name.as_str() {
            // What may be included is as it was asked for at first.
            "include" | "include[]" | "include_obfuscation" => {}
            "stream" if value == "false" => {}
            "stream" => return Err(refuse("stream", "goes with responses made in the background")),
            _ => return Err(refuse(&name, "is not a parameter that works here; leave it out")),
        }
    }
    let kept = find(&store, &uri::id(id)?)?;
    let headers = [(header::CONTENT_TYPE, "application/json")];
    Ok((headers, kept.response.clone()).into_response())
}

#[derive(Debug, Serialize)]
pub(super) struct Deleted {
    id: String,
    object: &'static str,
    deleted: bool,
}

/// Forgets a response.
pub(super) async fn forget(Extension(store): Extension<Arc<Store>>, id: Id) -> Result<Json<Deleted>, ApiError> {
    let id = uri::id(id)?;
    if !store.remove(&id) {
        return Err(unknown(&id));
    }
    Ok(Json(Deleted { id, object: "response", deleted: true }))
}

/// Only what runs in the background can be cancelled so, and nothing does; other clients hang up.
pub(super) async fn cancel(Extension(store): Extension<Arc<Store>>, id: Id) -> Result<Response, ApiError> {
    let kept = find(&store, &uri::id(id)?)?;
    let message = format!("Cannot cancel '{}': only responses made in the background can be cancelled.", kept.id);
    let body = ErrorBody { message, kind: "invalid_request_error", param: None, code: None };
    Err(ApiError { status: StatusCode::BAD_REQUEST, retry_after_s: None, body })
}

#[derive(Debug, Serialize)]
pub(super) struct Items {
    object: &'static str,
    data: Vec<Box<RawValue>>,
    first_id: Option<String>,
    last_id: Option<String>,
    has_more: bool,
}

/// What a response's request added to the conversation.
pub(super) async fn input_items(
    Extension(store): Extension<Arc<Store>>,
    id: Id,
    query: Pairs,
) -> Result<Json<Items>, ApiError> {
    let page = page(pairs(query)?)?;
    let kept = find(&store, &uri::id(id)?)?;
    Ok(Json(list(&kept.input, page)?))
}

#[derive(Debug, Default)]
struct Page {
    ascending: bool,
    limit: Option<usize>,
    after: Option<String>,
}

fn page(query: Vec<(String, String)>) -> Result<Page, ApiError> {
    let mut page = Page::default();
    for (name, value) in query {
        match (name.as_str(), value.as_str()) {
            ("include" | "include[]", _) => {}
            ("order", "asc") => page.ascending = true,
            ("order", "desc") => page.ascending = false,
            ("order", _) => return Err(refuse("order", "must be asc or desc")),
            ("limit", text) => {
                let limit = text.parse().ok().filter(|limit| (1..=LIMIT.1).contains(limit));
                let refusal = || refuse("limit", &format!("must be from 1 to {}, not {text:?}", LIMIT.1));
                page.limit = Some(limit.ok_or_else(refusal)?);
            }
            ("after", id) => page.after = Some(id.to_owned()),
            _ => return Err(refuse(&name, "is not a parameter that works here; leave it out")),
        }
    }
    Ok(page)
}

fn list(items: &[Item], page: Page) -> Result<Items, ApiError> {
    let mut items: Vec<&Item> = items.iter().collect();
    if !page.ascending {
        items.reverse();
    }
    let start = match &page.after {
        None => 0,
        Some(id) => {
            1 + items.iter().position(|item| item.id == *id).ok_or_else(|| refuse("after", "is none of the items"))?
        }
    };
    let rest = items.get(start..).unwrap_or_default();
    let shown = &rest[..rest.len().min(page.limit.unwrap_or(LIMIT.0))];
    Ok(Items {
        object: "list",
        data: shown.iter().map(|item| item.json.clone()).collect(),
        first_id: shown.first().map(|item| item.id.clone()),
        last_id: shown.last().map(|item| item.id.clone()),
        has_more: shown.len() < rest.len(),
    })
}

/// A query's names and values.
fn refuse(name: &str, what: &str) -> ApiError {
    GenerateError::invalid(name, format!("`{name}` {what}")).into()
}

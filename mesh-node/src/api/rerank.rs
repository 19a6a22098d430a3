//! `POST /v1/rerank` (and `/rerank`), as Jina and Cohere shape it: documents by how well they answer a query; must not know
//! how scores are made.

use axum::{
    Extension, Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use mesh_proto::{ModelId, PoolRequest, PoolTask, Pooled, RequestId};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::Value;

use super::{
    ApiError, body,
    openai::{
        lower::check::{Checked, absent, whole},
        parse::parse,
        wire::Whole,
    },
    pooled,
};
use crate::router::Router;

/// The request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RerankRequest {
    model: String,
    query: String,
    documents: Vec<Document>,
    top_n: Option<Whole>,
    return_documents: Option<bool>,

    // Refused by name: documents are read whole, and have no fields but their text.
    max_chunks_per_doc: Option<Value>,
    max_tokens_per_doc: Option<Value>,
    rank_fields: Option<Value>,

    // Harmless.
    #[serde(rename = "user")]
    _user: Option<IgnoredAny>,
}

/// A text, bare or in an object.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "a string or {\"text\": a string}")]
enum Document {
    Bare(String),
    Object(Text),
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Text {
    text: String,
}

impl Document {
    fn into_text(self) -> String {
        match self {
            Self::Bare(text) | Self::Object(Text { text }) => text,
        }
    }
}

#[derive(Debug, Serialize)]
struct Reranked {
    id: String,
    object: &'static str,
    model: String,
    results: Vec<Ranked>,
    usage: pooled::Cost,
}

#[derive(Debug, Serialize)]
struct Ranked {
    index: usize,
    relevance_score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Text>,
}

/// How the answer is told.
#[derive(Debug)]
struct Told {
    most: usize,
    /// The documents, where they are told again.
    texts: Option<Vec<String>>,
}

/// Answers.
pub(super) async fn serve(
    State(router): State<Router>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Result<Response, ApiError> {
    let dto: RerankRequest = parse(&body::read(request).await?)?;
    let target = router.find(&ModelId::new(&dto.model)).await?;
    let name = format!("rerank-{}", id.0);
    let (asked, told) = lower(dto, id)?;
    let (pooled, origin) = pooled::answer(&router, &target, asked).await?;
    Ok((origin, Json(raise(pooled, told, (name, target.id.to_string())))).into_response())
}

fn lower(dto: RerankRequest, id: RequestId) -> Checked<(PoolRequest, Told)> {
    absent("max_chunks_per_doc", dto.max_chunks_per_doc.as_ref())?;
    absent("max_tokens_per_doc", dto.max_tokens_per_doc.as_ref())?;
    absent("rank_fields", dto.rank_fields.as_ref())?;
    let most = whole("top_n", dto.top_n, 1..=u32::MAX)?.map_or(usize::MAX, |most| most as usize);
    let documents: Vec<String> = dto.documents.into_iter().map(Document::into_text).collect();
    let texts = dto.return_documents.unwrap_or(false).then(|| documents.clone());
    let task = PoolTask::Rerank { query: dto.query, documents };
    engine::pool::check(&task)?;
    Ok((PoolRequest { id, model: ModelId::new(dto.model), task }, Told { most, texts }))
}

/// The best first; of equals, the one that was named first.
fn raise(pooled: Pooled, told: Told, (id, model): (String, String)) -> Reranked {
    let usage = pooled::Cost::of(&pooled);
    let scores = pooled.rows.iter().map(|row| row.first().copied().unwrap_or(f32::NEG_INFINITY));
    let mut scores: Vec<(usize, f32)> = scores.enumerate().collect();
    scores.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let mut texts = told.texts;
    let mut text = |index: usize| texts.as_mut()?.get_mut(index).map(std::mem::take);
    let results = scores.into_iter().take(told.most).map(|(index, relevance_score)| Ranked {
        index,
        relevance_score,
        document: text(index).map(|text| Text { text }),
    });
    Reranked { id, object: "list", model, results: results.collect(), usage }
}

/// Both paths.
pub(super) fn table() -> Vec<super::Route> {
    let post = || axum::routing::post(serve);
    vec![("/v1/rerank", &["POST"], post()), ("/rerank", &["POST"], post())]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::api::fields::any_json;

    fn lowered(body: &Value) -> Result<(PoolTask, Told), (Option<String>, String)> {
        let told = |error: ApiError| (error.body.param, error.body.message);
        let dto: RerankRequest = parse(body.to_string().as_bytes()).map_err(told)?;
        let lowered = lower(dto, RequestId::default());
        lowered.map(|(request, how)| (request.task, how)).map_err(|error| told(error.into()))
    }

    #[test]
    fn documents_are_texts_or_objects_with_one() {
        let body = json!({"model": "m", "query": "q", "documents": ["a", {"text": "b"}], "top_n": 5,
            "return_documents": true, "max_chunks_per_doc": null, "user": "u"});
        let (task, how) = lowered(&body).unwrap();
        let documents = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(task, PoolTask::Rerank { query: "q".into(), documents: documents.clone() });
        assert_eq!((how.most, how.texts), (5, Some(documents)));
    }

    #[test]
    fn what_cannot_be_ranked_is_refused_with_its_fields_name() {
        let with = |field: &str, value: Value| {
            let mut body = json!({"model": "m", "query": "q", "documents": ["a"]});
            body[field] = value;
            body
        };
        for (body, field) in [
            (json!({"model": "m", "documents": ["a"]}), "query"),
            (json!({"model": "m", "query": "q"}), "documents"),
            (with("query", json!("")), "query"),
            (with("documents", json!([])), "documents"),
            (with("documents", json!(["a", ""])), "documents"),
            (with("documents", json!(["a", 1])), "documents"),
            (with("documents", json!([{"text": "a", "title": "b"}])), "documents"),
            (with("documents", json!(vec!["a"; PoolTask::MAX_INPUTS + 1])), "documents"),
            (with("top_n", json!(0)), "top_n"),
            (with("max_tokens_per_doc", json!(100)), "max_tokens_per_doc"),
            (with("rank_fields", json!(["title"])), "rank_fields"),
            (with("priority", json!(1)), "priority"),
        ] {
            let (param, message) = lowered(&body).unwrap_err();
            let named = param.as_deref().is_some_and(|param| param.split(['.', '[']).next() == Some(field));
            assert!(named, "{body}: {param:?} {message}");
        }
    }

    #[test]
    fn results_come_the_best_first_and_equals_as_they_were_named() {
        let pooled = |scores: &[f32]| Pooled { rows: scores.iter().map(|s| vec![*s]).collect(), prompt_tokens: 9 };
        let texts = Some(["a", "b", "c", "d"].map(String::from).to_vec());
        let how = Told { most: 3, texts };
        let told = raise(pooled(&[0.5, 0.75, 0.25, 0.75]), how, ("rerank-1".into(), "m".into()));
        let wanted = json!({"id": "rerank-1", "object": "list", "model": "m", "results": [
            {"index": 1, "relevance_score": 0.75, "document": {"text": "b"}},
            {"index": 3, "relevance_score": 0.75, "document": {"text": "d"}},
            {"index": 0, "relevance_score": 0.5, "document": {"text": "a"}},
        ], "usage": {"prompt_tokens": 9, "total_tokens": 9}});
        assert_eq!(serde_json::to_value(told).unwrap(), wanted);
        let bare = raise(pooled(&[0.5]), Told { most: 9, texts: None }, Default::default());
        assert_eq!(serde_json::to_value(bare).unwrap()["results"], json!([{"index": 0, "relevance_score": 0.5}]));
    }

    proptest! {
        #[test]
        fn any_json_is_lowered_or_refused(body in any_json(&["model", "query", "documents", "top_n", "text"])) {
            if let Err((_, message)) = lowered(&body) {
                prop_assert!(!message.is_empty());
            }
        }
    }
}

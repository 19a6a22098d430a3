//! `POST /v1/embeddings`: its request, its answer, and the way between; must not know how vectors are made.

use axum::{
    Extension, Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use data_encoding::BASE64;
use mesh_proto::{ModelId, Pooled, RequestId};
use serde::{Deserialize, Serialize, de::IgnoredAny};

use super::{
    lower::{self, Facts},
    parse::parse,
    wire::{Prompts, Whole},
};
use crate::{
    api::{ApiError, body, pooled},
    router::Router,
};

/// The request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct EmbeddingsRequest {
    pub(super) model: String,
    pub(super) input: Prompts,
    pub(super) encoding_format: Option<Encoding>,
    pub(super) dimensions: Option<Whole>,

    // Harmless.
    #[serde(rename = "user")]
    _user: Option<IgnoredAny>,
    #[serde(rename = "metadata")]
    _metadata: Option<IgnoredAny>,
    #[serde(rename = "safety_identifier")]
    _safety_identifier: Option<IgnoredAny>,
}

/// How vectors are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::api) enum Encoding {
    /// As an array of numbers.
    #[default]
    Float,
    /// As the base64 of their f32s, little endian: what the official SDKs ask for.
    Base64,
}

#[derive(Debug, Serialize)]
struct Embeddings {
    object: &'static str,
    data: Vec<Embedding>,
    model: String,
    usage: pooled::Cost,
}

#[derive(Debug, Serialize)]
struct Embedding {
    object: &'static str,
    embedding: Vector,
    index: usize,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Vector {
    Float(Vec<f32>),
    Base64(String),
}

/// Answers all inputs.
pub async fn serve(
    State(router): State<Router>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Result<Response, ApiError> {
    let dto: EmbeddingsRequest = parse(&body::read(request).await?)?;
    let target = router.find(&ModelId::new(&dto.model)).await?;
    let encoding = dto.encoding_format.unwrap_or_default();
    let asked = lower::embeddings(dto, id, &Facts::of(&target))?;
    let (pooled, origin) = pooled::answer(&router, &target, asked).await?;
    Ok((origin, Json(raise(pooled, encoding, target.id.to_string()))).into_response())
}

fn raise(pooled: Pooled, encoding: Encoding, model: String) -> Embeddings {
    let usage = pooled::Cost::of(&pooled);
    let write = |row: Vec<f32>| match encoding {
        Encoding::Float => Vector::Float(row),
        Encoding::Base64 => {
            Vector::Base64(BASE64.encode(&row.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<_>>()))
        }
    };
    let data = pooled.rows.into_iter().enumerate();
    let data = data.map(|(index, row)| Embedding { object: "embedding", embedding: write(row), index });
    Embeddings { object: "list", data: data.collect(), model, usage }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn vectors_are_written_as_numbers_or_as_base64_of_little_endian_f32() {
        let pooled = || Pooled { rows: vec![vec![1.0, -0.5], vec![0.1, 0.0]], prompt_tokens: 5 };
        let told = |encoding| serde_json::to_value(raise(pooled(), encoding, "m".into())).unwrap();
        let wanted = json!({"object": "list", "model": "m", "usage": {"prompt_tokens": 5, "total_tokens": 5}, "data": [
            {"object": "embedding", "index": 0, "embedding": [1.0, -0.5]},
            {"object": "embedding", "index": 1, "embedding": [0.1_f32, 0.0]},
        ]});
        assert_eq!(told(Encoding::Float), wanted);
        let base64 = told(Encoding::Base64);
        assert_eq!(base64["data"][0]["embedding"], "AACAPwAAAL8=");
        assert_eq!(base64["data"][1]["embedding"], "zczMPQAAAAA=");
    }
}

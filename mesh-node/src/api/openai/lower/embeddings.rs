//! A request for embeddings as a task; must not know how vectors are written.

use mesh_proto::{GenerateError, ModelId, PoolInputs, PoolRequest, PoolTask, RequestId, TokenId};

use super::{
    super::{
        embeddings::EmbeddingsRequest,
        wire::{Prompts, Whole},
    },
    Facts,
    check::{Checked, token, whole},
};

pub(in super::super) fn embeddings(dto: EmbeddingsRequest, id: RequestId, facts: &Facts) -> Checked<PoolRequest> {
    let dimensions = whole("dimensions", dto.dimensions, 1..=u32::MAX)?;
    let inputs = match dto.input {
        Prompts::Texts(texts) => PoolInputs::Texts(texts),
        Prompts::Tokens(lists) => PoolInputs::Tokens(tokens(&lists, facts)?),
    };
    let task = PoolTask::Embed { inputs, dimensions };
    engine::pool::check(&task)?;
    Ok(PoolRequest { id, model: ModelId::new(dto.model), task })
}

fn tokens(lists: &[Vec<Whole>], facts: &Facts) -> Checked<Vec<Vec<TokenId>>> {
    let count: usize = lists.iter().map(Vec::len).sum();
    let most = PoolTask::MAX_TOKENS;
    if count > most {
        return Err(GenerateError::invalid("input", format!("`input` may have {most} tokens in all, not {count}")));
    }
    let id = |at: usize, id: &Whole| token(&format!("input[{at}]"), Some(id.0), facts.vocab_size);
    let list = |(at, list): (usize, &Vec<Whole>)| list.iter().map(|one| id(at, one)).collect::<Checked<Vec<_>>>();
    lists.iter().enumerate().map(list).collect()
}

#[cfg(test)]
mod tests {
    use mesh_proto::Sampling;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::api::{fields::any_json, openai::parse::parse};

    fn lowered(body: Value) -> Result<PoolTask, (Option<String>, String)> {
        let facts = Facts { vocab_size: 100, defaults: Sampling::default() };
        let told = |error: crate::api::ApiError| (error.body.param, error.body.message);
        let dto: EmbeddingsRequest = parse(body.to_string().as_bytes()).map_err(told)?;
        embeddings(dto, RequestId::default(), &facts).map(|request| request.task).map_err(|error| told(error.into()))
    }

    #[test]
    fn inputs_are_texts_or_tokens_one_or_several() {
        let task = |input: Value| lowered(json!({"model": "m", "input": input}));
        let texts = |texts: &[&str]| PoolTask::Embed {
            inputs: PoolInputs::Texts(texts.iter().map(|&text| text.into()).collect()),
            dimensions: None,
        };
        let lists = |lists: &[&[u32]]| PoolTask::Embed {
            inputs: PoolInputs::Tokens(lists.iter().map(|ids| ids.iter().copied().map(TokenId).collect()).collect()),
            dimensions: None,
        };
        assert_eq!(task(json!("a")).unwrap(), texts(&["a"]));
        assert_eq!(task(json!(["a", "b"])).unwrap(), texts(&["a", "b"]));
        assert_eq!(task(json!([1, 2])).unwrap(), lists(&[&[1, 2]]));
        assert_eq!(task(json!([[1, 2], [3]])).unwrap(), lists(&[&[1, 2], &[3]]));
        let all = json!({"model": "m", "input": "a", "encoding_format": "base64", "dimensions": 3, "user": "u",
            "metadata": {}, "safety_identifier": null});
        assert!(matches!(lowered(all), Ok(PoolTask::Embed { dimensions: Some(3), .. })));
    }

    #[test]
    fn what_cannot_be_embedded_is_refused_with_its_fields_name() {
        let many = vec!["a"; PoolTask::MAX_INPUTS + 1];
        for (body, field) in [
            (json!({"model": "m"}), "input"),
            (json!({"input": "a"}), "model"),
            (json!({"model": "m", "input": ""}), "input"),
            (json!({"model": "m", "input": []}), "input"),
            (json!({"model": "m", "input": ["a", ""]}), "input"),
            (json!({"model": "m", "input": [[]]}), "input"),
            (json!({"model": "m", "input": [100]}), "input"),
            (json!({"model": "m", "input": [-1]}), "input"),
            (json!({"model": "m", "input": ["a", 1]}), "input"),
            (json!({"model": "m", "input": many}), "input"),
            (json!({"model": "m", "input": "a", "dimensions": 0}), "dimensions"),
            (json!({"model": "m", "input": "a", "dimensions": 1.5}), "dimensions"),
            (json!({"model": "m", "input": "a", "encoding_format": "int8"}), "encoding_format"),
            (json!({"model": "m", "input": "a", "input_type": "query"}), "input_type"),
        ] {
            let (param, message) = lowered(body.clone()).unwrap_err();
            let named = param.as_deref().is_some_and(|param| param.split(['.', '[']).next() == Some(field));
            assert!(named, "{body}: {param:?} {message}");
        }
    }

    proptest! {
        #[test]
        fn any_json_is_lowered_or_refused(body in any_json(&["model", "input", "dimensions", "encoding_format", "float"])) {
            if let Err((_, message)) = lowered(body) {
                prop_assert!(!message.is_empty());
            }
        }
    }
}

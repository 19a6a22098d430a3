//! `GET /openapi.json`: what is served, for tools that read it; must not know how it is served.

use std::sync::LazyLock;

use axum::Json;
use serde_json::Value;

/// Written by hand beside the DTOs; the tests hold it against them and against the routes.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let mut document: Value = serde_json::from_str(include_str!("openapi.json")).unwrap_or_default();
    if let Some(info) = document.get_mut("info") {
        info["version"] = env!("CARGO_PKG_VERSION").into();
    }
    document
});

pub(super) async fn serve() -> Json<&'static Value> {
    Json(&DOCUMENT)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde::de::DeserializeOwned;

    use super::*;
    use crate::api::{anthropic, llama, openai, responses, table};

    /// Of each path, its methods in capitals.
    type Paths = BTreeMap<String, BTreeSet<String>>;

    fn documented() -> Paths {
        let paths = DOCUMENT["paths"].as_object().unwrap().iter();
        let methods = |path: &Value| path.as_object().unwrap().keys().map(|m| m.to_uppercase()).collect();
        paths.map(|(path, item)| (path.clone(), methods(item))).collect()
    }

    #[test]
    fn every_route_is_documented_and_nothing_else_is() {
        let served = table().into_iter().map(|(path, methods, _)| {
            (path.replace("{*", "{"), methods.iter().map(|method| (*method).to_owned()).collect())
        });
        assert_eq!(documented(), served.collect::<Paths>());
    }

    /// The fields that a DTO knows, as serde lists them to who sends another.
    fn fields<T: DeserializeOwned>() -> BTreeSet<String> {
        let Err(error) = serde_json::from_str::<T>(r#"{"no such field":1}"#) else { panic!("it takes anything") };
        let text = error.to_string();
        text.split('`').skip(3).step_by(2).map(str::to_owned).collect()
    }

    #[test]
    fn the_requests_fields_are_those_of_the_schemas() {
        for (name, fields) in [
            ("ChatCompletionRequest", fields::<openai::chat::ChatRequest>()),
            ("CompletionRequest", fields::<openai::completions::CompletionRequest>()),
            ("MessagesRequest", fields::<anthropic::messages::MessagesRequest>()),
            ("ResponsesRequest", fields::<responses::create::CreateRequest>()),
            ("LlamaCompletionRequest", fields::<llama::completion::LlamaRequest>()),
            ("EmbeddingsRequest", fields::<openai::embeddings::EmbeddingsRequest>()),
            ("RerankRequest", fields::<crate::api::rerank::RerankRequest>()),
            ("TokenizeRequest", fields::<crate::api::tokens::TokenizeRequest>()),
            ("DetokenizeRequest", fields::<crate::api::tokens::DetokenizeRequest>()),
        ] {
            let schema = &DOCUMENT["components"]["schemas"][name];
            assert_eq!(schema["additionalProperties"], false, "{name}");
            let documented = schema["properties"].as_object().unwrap().keys().cloned().collect();
            assert_eq!(fields, documented, "{name}");
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references(value: &Value, found: &mut BTreeSet<String>) {
            match value {
                Value::Object(object) => {
                    found.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    object.values().for_each(|value| references(value, found));
                }
                Value::Array(all) => all.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let mut found = BTreeSet::new();
        references(&DOCUMENT, &mut found);
        assert!(found.len() > 3);
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(DOCUMENT.pointer(pointer).is_some(), "{reference}");
        }
    }
}

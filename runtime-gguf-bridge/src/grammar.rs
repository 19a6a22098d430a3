//! Answers' grammars for llama-server; must not know how they are followed.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use engine::text::Grammar;
use mesh_proto::GenerateError;
use serde_json::json;

use crate::{engine::Shared, gbnf, server::CallError};

/// How long converting a schema may take: it waits for a slot. (guess)
const SCHEMA: Duration = Duration::from_secs(60);
/// Schemas whose grammar is remembered. Unit: schemas; default 256, a guess at the tools of some agents. Cost: a few
/// kilobytes each.
const MOST_SCHEMAS: usize = 256;

/// Grammars by their schemas.
#[derive(Debug, Default)]
pub(crate) struct Schemas(Mutex<BTreeMap<String, String>>);

impl Schemas {
    fn known(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// A grammar as llama.cpp has it; `field` of the request it comes from.
    pub(crate) async fn grammar(&self, grammar: &Grammar, field: &str) -> Result<String, GenerateError> {
        let unsayable = |error: gbnf::Unsayable| {
            let message = format!("{error}, and this model runs in llama-server: the MLX engine can");
            GenerateError::invalid(field, message)
        };
        let draft = gbnf::Draft::read(&grammar.0).map_err(unsayable)?;
        let mut schemas = Vec::new();
        for schema in draft.schemas() {
            schemas.push(self.schema(schema, field).await?);
        }
        draft.finish(&schemas).map_err(unsayable)
    }

    /// A schema's grammar, from llama-server itself: it tells with an answer which grammar it kept to.
    async fn schema(&self, schema: &serde_json::Value, field: &str) -> Result<String, GenerateError> {
        let text = schema.to_string();
        let known = self.schemas.known().get(&text).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        self.ready().await.map_err(|error| GenerateError::Engine(error.to_string()))?;
        let body = json!({"prompt": [0], "n_predict": 0, "cache_prompt": false, "json_schema": schema});
        let answer = self.server.call("/completion", &body, SCHEMA).await.map_err(|error| match error {
            CallError::Status { code: 400, message, .. } => GenerateError::invalid(field, message),
            error => GenerateError::Engine(format!("llama-server did not read a schema: {error}")),
        })?;
        let grammar = answer["generation_settings"]["grammar"].as_str().filter(|grammar| !grammar.is_empty());
        let grammar = grammar
            .ok_or_else(|| GenerateError::invalid(field, "this llama-server does not tell how it reads schemas"))?;
        let mut known = self.schemas.known();
        if known.len() >= MOST_SCHEMAS {
            known.clear();
        }
        known.insert(text, grammar.to_owned());
        Ok(grammar.to_owned())
    }
}

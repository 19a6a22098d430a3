//! A GGUF header's vocabulary and chat template as the engine's text pipeline; must not know the child process.
//!
//! The tokenizer made here only decodes: texts become tokens in llama-server, whose pre-tokenizers are what the model
//! was converted for. Tokens become text here, so that answers are read as those of MLX are.

use std::{collections::BTreeMap, sync::Arc};

use catalog::gguf::Header;
use engine::text::{ChatTemplates, TextModel};
use mesh_proto::Sampling;
use serde_json::{Map, Value as Json, json};
use tokenizers::Tokenizer;

use crate::GgufError;

/// Kinds of tokens in `tokenizer.ggml.token_type`. Source: `llama_token_type` in llama.cpp's `llama.h`.
mod kind {
    pub(super) const UNKNOWN: i64 = 2;
    pub(super) const CONTROL: i64 = 3;
    pub(super) const USER_DEFINED: i64 = 4;
    pub(super) const UNUSED: i64 = 5;
}

/// Ids that templates know by name: the header's key, and that name.
const NAMED: [(&str, &str); 7] = [
    ("bos_token_id", "bos_token"),
    ("eos_token_id", "eos_token"),
    ("unknown_token_id", "unk_token"),
    ("seperator_token_id", "sep_token"),
    ("padding_token_id", "pad_token"),
    ("cls_token_id", "cls_token"),
    ("mask_token_id", "mask_token"),
];

/// What a GGUF file says about text.
///
/// # Errors
/// When it has no vocabulary, or a chat template that does not parse.
pub(crate) fn text_model(header: &Header) -> Result<Arc<TextModel>, GgufError> {
    let bad = |message: String| GgufError::Vocabulary(message);
    let tokens = header
        .texts("tokenizer.ggml.tokens")
        .filter(|tokens| !tokens.is_empty())
        .ok_or_else(|| bad("it has no vocabulary (tokenizer.ggml.tokens)".to_owned()))?;
    let kinds = header.numbers("tokenizer.ggml.token_type").unwrap_or_default();
    let json = tokenizer(tokens, &kinds, &ending(header), decoder(header, tokens));
    let tokenizer: Tokenizer = serde_json::from_value(json).map_err(|error| bad(format!("its vocabulary: {error}")))?;
    Ok(Arc::new(TextModel::new(tokenizer, templates(header, tokens)?, special_tokens(header, tokens))))
}

/// Tokens that end a text, a turn or a message: markup, even where a converter called them something else.
fn ending(header: &Header) -> Vec<usize> {
    let ids = ["eos", "eot", "eom"].iter().filter_map(|name| header.number(&format!("tokenizer.ggml.{name}_token_id")));
    ids.filter_map(|id| usize::try_from(id).ok()).collect()
}

fn tokenizer(tokens: &[String], kinds: &[i64], ending: &[usize], decoder: Json) -> Json {
    let mut vocab = Map::with_capacity(tokens.len());
    let mut added = Vec::new();
    let mut twins = 0_usize;
    for (id, token) in tokens.iter().enumerate() {
        if vocab.contains_key(token) {
            // Two ids of one text: the first has the name, and the other one says nothing.
            twins += 1;
            continue;
        }
        vocab.insert(token.clone(), json!(id));
        let kind = kinds.get(id).copied().unwrap_or_default();
        let special = matches!(kind, kind::UNKNOWN | kind::CONTROL | kind::UNUSED) || ending.contains(&id);
        if special || kind == kind::USER_DEFINED {
            added.push(json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": special}));
        }
    }
    if twins > 0 {
        tracing::warn!(twins, "tokens of the vocabulary whose text another one has say nothing");
    }
    json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": decoder,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": ""}})
}

/// How tokens become bytes: GPT-2's byte alphabet, or sentencepiece's marks. Told by `tokenizer.ggml.model`; for names
/// that are newer than this, by the vocabulary itself.
fn decoder(header: &Header, tokens: &[String]) -> Json {
    let byte_level = match header.text("tokenizer.ggml.model") {
        Some("gpt2") => true,
        Some("llama" | "t5") => false,
        _ => !tokens.iter().any(|token| token.contains('\u{2581}')),
    };
    if byte_level {
        return json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    }
    let mut steps = vec![
        json!({"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if header.flag("tokenizer.ggml.add_space_prefix").unwrap_or(true) {
        steps.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    json!({"type": "Sequence", "decoders": steps})
}

fn special_tokens(header: &Header, tokens: &[String]) -> BTreeMap<String, String> {
    let named = NAMED.iter().filter_map(|(key, name)| {
        let id = header.number(&format!("tokenizer.ggml.{key}"))?;
        let token = tokens.get(usize::try_from(id).ok()?)?;
        Some(((*name).to_owned(), token.clone()))
    });
    named.collect()
}

/// The default chat template, and those by name, as llama.cpp's converter writes them.
fn templates(header: &Header, tokens: &[String]) -> Result<Option<ChatTemplates>, GgufError> {
    let mut sources = Vec::new();
    if let Some(default) = header.text("tokenizer.chat_template") {
        sources.push(("default".to_owned(), default.to_owned()));
    }
    for name in header.texts("tokenizer.chat_templates").unwrap_or_default() {
        if let Some(source) = header.text(&format!("tokenizer.chat_template.{name}")) {
            sources.push((name.clone(), source.to_owned()));
        }
    }
    if sources.is_empty() {
        return Ok(None);
    }
    let error = match ChatTemplates::compile(sources) {
        Ok(compiled) => return Ok(Some(compiled)),
        Err(error) => error,
    };
    let error = format!("its chat template, line {}: {}", error.line, error.message);
    let has_token = |token: &str| tokens.iter().any(|known| known == token);
    let Some(fallback) = ChatTemplates::fallback(has_token) else { return Err(GgufError::Vocabulary(error)) };
    tracing::warn!(error, "this chat template cannot be used: conversations are written in ChatML");
    Ok(Some(fallback))
}

/// What the model's makers recommend where a request is silent, if the header says so (`general.sampling.*`).
pub(crate) fn recommended(header: &Header) -> Option<Sampling> {
    let float = |name: &str| header.float(&format!("general.sampling.{name}")).map(|value| value as f32);
    let top_k = header.number("general.sampling.top_k").and_then(|k| u32::try_from(k).ok());
    let (temperature, top_p, min_p) = (float("temp"), float("top_p"), float("min_p"));
    if temperature.is_none() && top_p.is_none() && min_p.is_none() && top_k.is_none() {
        return None;
    }
    Some(Sampling {
        temperature: temperature.filter(|value| *value >= 0.0).unwrap_or(1.0),
        top_p: top_p.filter(|value| *value > 0.0 && *value <= 1.0).unwrap_or(1.0),
        min_p: min_p.filter(|value| (0.0..=1.0).contains(value)).unwrap_or(0.0),
        top_k: top_k.unwrap_or(0),
        ..Sampling::default()
    })
}

#[cfg(test)]
#[path = "vocabulary_tests.rs"]
mod tests;

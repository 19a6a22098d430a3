//! A `/completion`'s fields; must not know sampling's ranges.

use std::{fmt, sync::Arc};

use engine::Engine;
use mesh_proto::{GenerateError, GenerateRequest, LogitBias, ModelId, Prompt, RequestId, ToolChoice};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Value, json};

use super::{completion::LlamaRequest, prompt::local, raise::Told};
use crate::api::openai::{
    lower::{
        Facts,
        check::{Checked, only, or_all, token, whole},
        form::schema_text,
        knobs::{Knobs, stops},
    },
    wire::{Number, Whole},
};

/// Most entries of `logit_bias`, as of OpenAI's endpoints; each may be a text of several tokens.
const MAX_BIASES: usize = 4096;

/// `logit_bias`: what is made likelier, and by how much; `None` bans it.
#[derive(Debug)]
pub(super) struct Biases(Vec<(Biased, Option<f64>)>);

#[derive(Debug)]
enum Biased {
    Token(i128),
    Text(String),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a number, or false for a ban")]
enum Bias {
    Number(Number),
    Ban(bool),
}

impl Bias {
    fn value(self) -> Option<Option<f64>> {
        match self {
            Self::Number(Number(bias)) => Some(Some(bias)),
            Self::Ban(false) => Some(None),
            Self::Ban(true) => None,
        }
    }
}

impl<'de> Deserialize<'de> for Biases {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a token id or text")]
        enum Key {
            Token(Whole),
            Text(String),
        }
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Biases;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of pairs, or an object")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Biases, A::Error> {
                let mut all = Vec::new();
                while let Some((key, bias)) = seq.next_element::<(Key, Bias)>()? {
                    let key = match key {
                        Key::Token(Whole(id)) => Biased::Token(id),
                        Key::Text(text) => Biased::Text(text),
                    };
                    all.push((key, bias.value().ok_or_else(|| de::Error::custom("true is no bias"))?));
                }
                Ok(Biases(all))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Biases, A::Error> {
                let mut all = Vec::new();
                while let Some((key, bias)) = map.next_entry::<String, Bias>()? {
                    // A key that is a number names a token.
                    let key = key.parse().map_or(Biased::Text(key), Biased::Token);
                    all.push((key, bias.value().ok_or_else(|| de::Error::custom("true is no bias"))?));
                }
                Ok(Biases(all))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// A `/completion`, lowered: one request for each prompt.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) requests: Vec<GenerateRequest>,
    pub(super) stream: bool,
    pub(super) told: Told,
}

pub(super) async fn completion(
    dto: LlamaRequest,
    id: RequestId,
    facts: &Facts,
    engine: Option<&Arc<dyn Engine>>,
) -> Checked<Asked> {
    refuse_what_does_not_work(&dto)?;
    let n_predict = or_all("n_predict", dto.n_predict)?.flatten();
    let n_probs = whole("n_probs", dto.n_probs, 0..=GenerateRequest::MAX_LOGPROBS.into())?.filter(|n| *n > 0);
    let constraint = dto.json_schema.as_ref().map(|schema| schema_text("json_schema", schema)).transpose()?;
    let mut sampling = Knobs {
        temperature: dto.temperature,
        top_p: dto.top_p,
        top_k: dto.top_k,
        min_p: dto.min_p,
        typical_p: dto.typical_p,
        // -1 asks for a random one.
        seed: dto.seed.filter(|seed| seed.0 != -1),
        logit_bias: None,
        frequency_penalty: dto.frequency_penalty,
        presence_penalty: dto.presence_penalty,
        repetition_penalty: None,
        repeat_penalty: dto.repeat_penalty,
        repeat_last_n: dto.repeat_last_n,
        dry_multiplier: dto.dry_multiplier,
        dry_base: dto.dry_base,
        dry_allowed_length: dto.dry_allowed_length,
        dry_penalty_last_n: dto.dry_penalty_last_n,
        dry_sequence_breakers: dto.dry_sequence_breakers,
        xtc_probability: dto.xtc_probability,
        xtc_threshold: dto.xtc_threshold,
    }
    .sampling(facts)?;
    if let Some(Biases(all)) = dto.logit_bias {
        sampling.logit_bias = biases(all, facts, engine).await?;
    }
    let request = GenerateRequest {
        id,
        sampling,
        tool_choice: ToolChoice::None,
        constraint,
        logprobs: n_probs.and_then(|n| u8::try_from(n).ok()),
        max_tokens: n_predict,
        stop: stops(dto.stop)?,
        ignore_eos: dto.ignore_eos.unwrap_or(false),
        ..GenerateRequest::new(ModelId::new(&dto.model), Prompt::Text(String::new()))
    };
    let stream = dto.stream.unwrap_or(false);
    let settings = settings(&request, n_predict, stream);
    let (sources, many) = dto.prompt.sources()?;
    let mut requests = Vec::with_capacity(sources.len());
    for source in sources {
        let prompt = source.prompt(engine, facts.vocab_size).await?;
        requests.push(GenerateRequest { prompt, ..request.clone() });
    }
    let told = Told {
        model: dto.model,
        prompts: requests.iter().map(|request| said(&request.prompt)).collect(),
        settings,
        n_predict,
        tokens: dto.return_tokens.unwrap_or(false),
        probabilities: n_probs.is_some(),
        fields: dto.response_fields.unwrap_or_default(),
        many,
    };
    Ok(Asked { requests, stream, told })
}

fn refuse_what_does_not_work(dto: &LlamaRequest) -> Checked<()> {
    only("grammar", dto.grammar.as_ref().is_none_or(String::is_empty), "`json_schema`")?;
    only("mirostat", dto.mirostat.is_none_or(|Whole(kind)| kind == 0), "0")?;
    only("dynatemp_range", dto.dynatemp_range.is_none_or(|Number(range)| range == 0.0), "0")?;
    only("top_n_sigma", dto.top_n_sigma.is_none_or(|Number(sigma)| sigma < 0.0), "-1")?;
    only("post_sampling_probs", dto.post_sampling_probs != Some(true), "false")?;
    only("timings_per_token", dto.timings_per_token != Some(true), "false")?;
    only("return_progress", dto.return_progress != Some(true), "false")
}

async fn biases(
    all: Vec<(Biased, Option<f64>)>,
    facts: &Facts,
    engine: Option<&Arc<dyn Engine>>,
) -> Checked<Vec<LogitBias>> {
    let too_many =
        || GenerateError::invalid("logit_bias", format!("`logit_bias` may be of {MAX_BIASES} tokens at most"));
    if all.len() > MAX_BIASES {
        return Err(too_many());
    }
    let mut biases = Vec::new();
    for (biased, bias) in all {
        let bias = bias.map_or(f32::NEG_INFINITY, |bias| bias as f32);
        let tokens = match biased {
            Biased::Token(id) => vec![token(&format!("logit_bias.{id}"), Some(id), facts.vocab_size)?],
            Biased::Text(text) => local("logit_bias", engine)?.tokenize(text, false).await?,
        };
        biases.extend(tokens.into_iter().map(|token| LogitBias { token, bias }));
        if biases.len() > MAX_BIASES {
            return Err(too_many());
        }
    }
    // Of one that is named twice the biases add up, as there.
    biases.sort_by_key(|bias| bias.token);
    biases.dedup_by(|next, kept| {
        let same = next.token == kept.token;
        if same {
            kept.bias += next.bias;
        }
        same
    });
    match biases.iter().find(|bias| bias.bias.is_nan() || bias.bias == f32::INFINITY) {
        Some(bias) => {
            let message = format!("`logit_bias` of token {} cannot be {}", bias.token.0, bias.bias);
            Err(GenerateError::invalid("logit_bias", message))
        }
        None => Ok(biases),
    }
}

/// A prompt as `prompt` tells it: text as it was sent, or token ids.
fn said(prompt: &Prompt) -> Value {
    match prompt {
        Prompt::Text(text) => json!(text),
        Prompt::Tokens(tokens) => tokens.iter().map(|token| token.0).collect(),
        Prompt::Chat(_) => Value::Null,
    }
}

/// `generation_settings`: what counts for this request, by llama.cpp's names.
fn settings(request: &GenerateRequest, n_predict: Option<u32>, stream: bool) -> Value {
    let sampling = &request.sampling;
    let dry = sampling.dry.as_ref();
    let or_all = |count: Option<u32>| count.map_or(-1, i64::from);
    let biases: Vec<Value> =
        sampling.logit_bias.iter().map(|bias| json!({"token": bias.token.0, "bias": bias.bias})).collect();
    json!({
        "n_predict": or_all(n_predict),
        "seed": sampling.seed,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "typical_p": sampling.typical_p,
        "repeat_last_n": or_all(sampling.repeat_last_n),
        "repeat_penalty": sampling.repetition_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "dry_multiplier": dry.map_or(0.0, |dry| dry.multiplier),
        "dry_base": dry.map(|dry| dry.base),
        "dry_allowed_length": dry.map(|dry| dry.allowed_length),
        "dry_penalty_last_n": dry.map(|dry| or_all(dry.last_n)),
        "dry_sequence_breakers": dry.map(|dry| &dry.breakers),
        "xtc_probability": sampling.xtc_probability,
        "xtc_threshold": sampling.xtc_threshold,
        "logit_bias": biases,
        "stop": request.stop,
        "ignore_eos": request.ignore_eos,
        "n_probs": request.logprobs.unwrap_or(0),
        "stream": stream,
    })
}

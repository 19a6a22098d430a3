//! What a request asks of the sampling, as llama-server is told it; must not know streams.

use mesh_proto::{Dry, Sampling};
use serde_json::{Value as Json, json};

/// llama-server's word for "as many as there are".
const ALL: i64 = -1;

/// How tokens are chosen.
pub(crate) fn sampling(sampling: &Sampling, body: &mut Json) {
    let Sampling {
        temperature,
        top_p,
        top_k,
        min_p,
        typical_p,
        repetition_penalty,
        presence_penalty,
        frequency_penalty,
        repeat_last_n,
        dry,
        xtc_probability,
        xtc_threshold,
        // It depends on how far the answer is.
        seed: _,
        logit_bias,
    } = sampling;
    let bias: Vec<Json> = logit_bias.iter().map(|bias| json!([bias.token.0, bias.bias])).collect();
    body["temperature"] = json!(temperature);
    body["top_p"] = json!(top_p);
    body["top_k"] = json!(top_k);
    body["min_p"] = json!(min_p);
    body["typical_p"] = json!(typical_p);
    body["repeat_penalty"] = json!(repetition_penalty);
    body["presence_penalty"] = json!(presence_penalty);
    body["frequency_penalty"] = json!(frequency_penalty);
    body["repeat_last_n"] = json!(repeat_last_n.map_or(ALL, i64::from));
    body["xtc_probability"] = json!(xtc_probability);
    body["xtc_threshold"] = json!(xtc_threshold);
    body["logit_bias"] = json!(bias);
    body["samplers"] = json!(["penalties", "dry", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature"]);
    if let Some(Dry { multiplier, base, allowed_length, last_n, breakers }) = dry {
        body["dry_multiplier"] = json!(multiplier);
        body["dry_base"] = json!(base);
        body["dry_allowed_length"] = json!(allowed_length);
        body["dry_penalty_last_n"] = json!(last_n.map_or(ALL, i64::from));
        body["dry_sequence_breakers"] = json!(breakers);
    }
}

/// Which likelihoods are told with each token. Without a wish for others llama-server tells none, the chosen one neither.
pub(crate) fn likelihoods(logprobs: Option<u8>, body: &mut Json) {
    if let Some(top) = logprobs {
        body["n_probs"] = json!(top.max(1));
    }
}

/// What the answer must look like, in GBNF.
pub(crate) fn grammar(grammar: Option<&str>, body: &mut Json) {
    if let Some(grammar) = grammar {
        body["grammar"] = json!(grammar);
    }
}

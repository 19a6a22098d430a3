//! One pass through every kernel that serving needs, before the first client does; must not know clients.
//!
//! MLX compiles a GPU's kernels at first use: half a minute on CUDA, which would be the first answer's delay.

use engine::{
    Decoder,
    decoder::{DecodeError, PrefillChunk, SeqId, SequenceSpec, Steering, StepPlan, TokenSet},
};
use mesh_proto::{GenerateRequest, LogitBias, Sampling, TokenId};

/// What is computed once before ready: prompts, each as the chunks it comes in, one after the other; after each, all rows so
/// far decode one token.
///
/// A GPU's kernels differ by how many rows they multiply (few, up to eight, many), so its batch grows past eight and its
/// first prompt comes in a chunk as long as a full step. A CPU compiles nothing; there a little shows that all works.
fn plan(gpu: bool) -> Vec<Vec<u32>> {
    match gpu {
        true => [vec![512, 48], vec![33, 16], vec![7]].into_iter().chain((0..9).map(|_| vec![1])).collect(),
        false => vec![vec![32, 16], vec![1], vec![1]],
    }
}

/// What clients ask for, one row of each kind after the other: greedy, seeded, truncated, with penalties, with likelihoods.
fn asked() -> Vec<(Sampling, Option<u8>)> {
    let plain = Sampling { temperature: 1.0, seed: Some(0), ..Sampling::default() };
    let bias = vec![LogitBias { token: TokenId(0), bias: 0.0 }];
    let ranked = Sampling { top_p: 0.9, logit_bias: bias, ..plain.clone() };
    let penalised = Sampling { repetition_penalty: 1.1, ..plain.clone() };
    let rare = Sampling { typical_p: 0.9, xtc_probability: 0.5, ..plain.clone() };
    let odds = (Sampling::default(), Some(GenerateRequest::MAX_LOGPROBS));
    let silent = [Sampling::default(), plain, ranked, penalised, rare].map(|sampling| (sampling, None));
    silent.into_iter().chain([odds]).collect()
}

/// Computes some prompts and decodes them together, as clients may ask for it; one step is held and told what a row may
/// choose. Leaves nothing behind.
pub(crate) fn warm(decoder: &mut impl Decoder, gpu: bool) -> Result<(), DecodeError> {
    let limits = decoder.limits();
    let asked = asked();
    let mut rows = Vec::new();
    for (i, mut chunks) in plan(gpu).into_iter().enumerate() {
        if chunks.iter().sum::<u32>() + 16 > limits.context_tokens {
            chunks = vec![1];
        }
        // At the far end of the ids: no client's sequence is called so.
        let seq = SeqId(u64::MAX - i as u64);
        // Different prompts, or the second would reuse the first.
        let length: u32 = chunks.iter().sum();
        let prompt = (0..length).map(|t| TokenId((t + i as u32) % limits.vocab_size)).collect();
        let (sampling, logprobs) = asked[i % asked.len()].clone();
        decoder.open(SequenceSpec { logprobs, ..SequenceSpec::new(seq, prompt, sampling) })?;
        let mut start = 0;
        for len in chunks {
            let chunk = PrefillChunk { seq, start, len, last: start + len == length };
            run(decoder, &StepPlan { decode: rows.clone(), prefill: vec![chunk], held: false })?;
            start += len;
        }
        rows.push(seq);
        run(decoder, &StepPlan { decode: rows.clone(), prefill: Vec::new(), held: false })?;
    }
    if let Some(&seq) = rows.first() {
        decoder.submit(&StepPlan { decode: rows.clone(), prefill: Vec::new(), held: true })?;
        let addends = vec![(TokenId(0), 0.0)];
        decoder.choose(&[Steering { seq, addends, allowed: Some(TokenSet::only(TokenId(0))) }])?;
        decoder.collect()?;
    }
    for seq in rows {
        decoder.close(seq, None);
    }
    Ok(())
}

fn run(decoder: &mut impl Decoder, plan: &StepPlan) -> Result<(), DecodeError> {
    decoder.submit(plan)?;
    decoder.collect().map(drop)
}

//! One pass through every kernel that serving needs, before the first client does; must not know clients.
//!
//! MLX compiles a GPU's kernels at first use: half a minute on CUDA, which would be the first answer's delay.

use engine::{
    Decoder,
    decoder::{DecodeError, PrefillChunk, SeqId, SequenceSpec, StepPlan},
};
use mesh_proto::{LogitBias, Sampling, TokenId};

/// Tokens of the longest warm-up prompt. Cost: one prefill of this length at start.
const PROMPT: u32 = 64;

/// Computes one prompt in two chunks and a short one, then decodes alone and in company, greedy and sampled. Leaves
/// nothing behind.
pub(crate) fn warm(decoder: &mut impl Decoder) -> Result<(), DecodeError> {
    let limits = decoder.limits();
    let length = PROMPT.min(limits.context_tokens / 2).max(1);
    let plain = Sampling { temperature: 1.0, seed: Some(0), ..Sampling::default() };
    let ranked = Sampling { top_p: 0.9, logit_bias: vec![LogitBias { token: TokenId(0), bias: 0.0 }], ..plain.clone() };
    let mut rows = Vec::new();
    for (i, sampling) in [Sampling::default(), plain, ranked].into_iter().enumerate() {
        // At the far end of the ids: no client's sequence is called so.
        let seq = SeqId(u64::MAX - i as u64);
        let len = if i == 0 { length } else { 1 };
        let prompt = (0..len).map(|t| TokenId(t % limits.vocab_size)).collect();
        decoder.open(SequenceSpec { id: seq, prompt, sampling })?;
        let first = len.div_ceil(2);
        for (start, len) in [(0, first), (first, len - first)] {
            if len > 0 {
                let chunk = PrefillChunk { seq, start, len, last: start + len == if i == 0 { length } else { 1 } };
                run(decoder, &StepPlan { decode: rows.clone(), prefill: vec![chunk] })?;
            }
        }
        rows.push(seq);
        run(decoder, &StepPlan { decode: rows.clone(), prefill: Vec::new() })?;
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

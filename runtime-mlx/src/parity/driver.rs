//! Drives a decoder as the engine does; must not know where models come from.

use engine::{
    Decoder,
    decoder::{PrefillChunk, SeqId, SequenceSpec, StepPlan},
};
use mesh_proto::{Sampling, TokenId};
use mlx_rs::{Array, Dtype};

use crate::decoder::MlxDecoder;

pub(super) fn ids(tokens: &[u32]) -> Vec<TokenId> {
    tokens.iter().copied().map(TokenId).collect()
}

/// Drives a decoder as the engine does: chunks, look-ahead of one step, any number of sequences.
pub(super) struct Driver {
    pub(super) decoder: MlxDecoder,
    pub(super) chunk: u32,
    pub(super) next: u64,
}

pub(super) struct Job {
    pub(super) prompt: Vec<u32>,
    pub(super) sampling: Sampling,
    pub(super) tokens: usize,
}

impl Job {
    pub(super) fn greedy(prompt: &[u32], tokens: usize) -> Self {
        Self { prompt: prompt.to_vec(), sampling: Sampling::default(), tokens }
    }
}

/// What came out, and how much of the prompt was reused.
#[derive(Debug, PartialEq)]
pub(super) struct Outcome {
    pub(super) tokens: Vec<u32>,
    pub(super) cached: u32,
}

impl Driver {
    pub(super) fn new(decoder: MlxDecoder, chunk: u32) -> Self {
        Self { decoder, chunk, next: 0 }
    }

    pub(super) fn run(&mut self, jobs: Vec<Job>) -> Vec<Outcome> {
        let first = self.next;
        self.next += jobs.len() as u64;
        let mut at = Vec::new();
        let mut outcomes: Vec<Outcome> = Vec::new();
        for (i, job) in jobs.iter().enumerate() {
            let id = SeqId(first + i as u64);
            let spec = SequenceSpec::new(id, ids(&job.prompt), job.sampling.clone());
            let cached = self.decoder.open(spec).unwrap();
            at.push(cached);
            outcomes.push(Outcome { tokens: Vec::new(), cached });
        }
        let mut planned = vec![0; jobs.len()];
        let mut uncollected = 0;
        loop {
            let mut plan = StepPlan::default();
            for (i, job) in jobs.iter().enumerate() {
                let (seq, prompt) = (SeqId(first + i as u64), job.prompt.len() as u32);
                if at[i] < prompt {
                    let len = self.chunk.min(prompt - at[i]);
                    let last = at[i] + len == prompt;
                    plan.prefill.push(PrefillChunk { seq, start: at[i], len, last });
                    at[i] += len;
                    planned[i] += usize::from(last);
                } else if planned[i] < job.tokens {
                    plan.decode.push(seq);
                    planned[i] += 1;
                }
            }
            if !plan.is_empty() {
                self.decoder.submit(&plan).unwrap();
                uncollected += 1;
            }
            if uncollected == 0 {
                break;
            }
            if uncollected == 2 || plan.is_empty() {
                uncollected -= 1;
                for sampled in self.decoder.collect().unwrap() {
                    let i = (sampled.seq.0 - first) as usize;
                    outcomes[i].tokens.push(sampled.token.0);
                    if outcomes[i].tokens.len() == jobs[i].tokens {
                        let text = [&jobs[i].prompt[..], &outcomes[i].tokens[..]].concat();
                        self.decoder.close(sampled.seq, Some(&ids(&text)));
                    }
                }
            }
        }
        outcomes
    }

    pub(super) fn one(&mut self, job: Job) -> Outcome {
        self.run(vec![job]).remove(0)
    }
}

/// The largest difference, relative to the largest logit.
pub(super) fn relative_error(ours: &Array, reference: &Array) -> f32 {
    let reference = reference.as_dtype(Dtype::Float32).unwrap();
    assert_eq!(ours.shape(), reference.shape());
    let worst = ours.subtract(&reference).unwrap().abs().unwrap().max(None).unwrap().item_exact::<f32>();
    worst / reference.abs().unwrap().max(None).unwrap().item_exact::<f32>()
}

//! Hidden states gathered while prompts are computed, for sequences of which something else than an answer is made; must
//! not know KV, text or why.

use std::collections::HashMap;

use engine::{
    decoder::{PrefillChunk, SeqId},
    pool::Pooling,
};
use mlx_rs::{Array, Dtype, error::Exception, ops::indexing::take_axis};

use crate::{
    families::Model,
    sys::{self, Result},
};

/// A sequence that is pooled.
struct Pooled {
    pooling: Pooling,
    /// Of the chunks so far: their sum, or the first token's state. `[1, hidden]` f32.
    gathered: Option<Array>,
}

/// All of a decoder's pooled sequences.
#[derive(Default)]
pub(crate) struct Pooler {
    sequences: HashMap<SeqId, Pooled>,
    /// What the step that is being issued makes, until [`issued`](Self::issued).
    fresh: Vec<(SeqId, Array)>,
    /// What was read back.
    made: HashMap<SeqId, Vec<f32>>,
}

impl Pooler {
    pub(crate) fn open(&mut self, seq: SeqId, pooling: Pooling) {
        self.sequences.insert(seq, Pooled { pooling, gathered: None });
    }

    /// Whether a sequence is one of them.
    pub(crate) fn has(&self, seq: SeqId) -> bool {
        self.sequences.contains_key(&seq)
    }

    /// Reads a step's chunks, whose tokens are the last rows of `hidden` `[tokens, hidden]`. Returns what must be computed.
    pub(crate) fn read(&mut self, model: &dyn Model, hidden: &Array, chunks: &[PrefillChunk]) -> Result<Vec<Array>> {
        let mut outputs = Vec::new();
        let mut start = hidden.dim(0) - chunks.iter().map(|chunk| chunk.len as i32).sum::<i32>();
        for chunk in chunks {
            let end = start + chunk.len as i32;
            if let Some(pooled) = self.sequences.get_mut(&chunk.seq) {
                let rows = |from: i32, to: i32| sys::slice(hidden, &[from, 0], &[to, hidden.dim(1)]);
                let states = |from: i32, to: i32| normed(model, &rows(from, to)?);
                let tokens = chunk.start + chunk.len;
                let whole = match &pooled.pooling {
                    Pooling::Last => chunk.last.then(|| states(end - 1, end)).transpose()?,
                    Pooling::Logits(of) => chunk.last.then(|| logits(model, &rows(end - 1, end)?, of)).transpose()?,
                    Pooling::First => {
                        if chunk.start == 0 {
                            pooled.gathered = Some(states(start, start + 1)?);
                        }
                        pooled.gathered.clone().filter(|_| chunk.last)
                    }
                    Pooling::Mean => {
                        let sum = states(start, end)?.sum_axis(0, true)?;
                        let sum = match pooled.gathered.take() {
                            Some(before) => before.add(&sum)?,
                            None => sum,
                        };
                        pooled.gathered = Some(sum.clone());
                        let mean = || sum.divide(Array::from_slice(&[tokens as f32], &[1]));
                        chunk.last.then(mean).transpose()?
                    }
                };
                match whole {
                    Some(whole) => {
                        outputs.push(whole.clone());
                        self.fresh.push((chunk.seq, whole));
                    }
                    None => outputs.extend(pooled.gathered.clone()),
                }
            }
            start = end;
        }
        Ok(outputs)
    }

    /// What the step made that is issued now.
    pub(crate) fn issued(&mut self) -> Vec<(SeqId, Array)> {
        std::mem::take(&mut self.fresh)
    }

    /// Keeps what a step made, which was computed, until somebody asks. Returns whose it was.
    pub(crate) fn keep(&mut self, made: Vec<(SeqId, Array)>) -> std::result::Result<Vec<SeqId>, String> {
        let mut whose = Vec::new();
        for (seq, values) in made.into_iter().filter(|(seq, _)| self.sequences.contains_key(seq)) {
            let values = values.try_as_slice::<f32>().map_err(|error| error.to_string())?.to_vec();
            self.made.insert(seq, values);
            whose.push(seq);
        }
        Ok(whose)
    }

    pub(crate) fn take(&mut self, seq: SeqId) -> Option<Vec<f32>> {
        self.made.remove(&seq)
    }

    pub(crate) fn close(&mut self, seq: SeqId) {
        self.sequences.remove(&seq);
        self.made.remove(&seq);
    }
}

/// `[rows, hidden]` behind the last norm, in f32.
fn normed(model: &dyn Model, hidden: &Array) -> Result<Array> {
    let norm = model.last_norm().ok_or_else(|| Exception::custom("this family's hidden states cannot be had"))?;
    norm.forward(hidden)?.as_dtype(Dtype::Float32)
}

/// The logits of some tokens, `[1, tokens]`.
fn logits(model: &dyn Model, hidden: &Array, of: &[mesh_proto::TokenId]) -> Result<Array> {
    let ids: Vec<i32> = of.iter().map(|token| token.0 as i32).collect();
    let chosen = take_axis(&model.logits(hidden)?, Array::from_slice(&ids, &[ids.len() as i32]), 1)?;
    chosen.as_dtype(Dtype::Float32)
}

//! `MlxDecoder`: one batched step at a time over a loaded model; must not know text, clients or files.

use std::collections::{HashMap, VecDeque};

use engine::{
    Decoder,
    decoder::{
        Ban, DecodeError, DecoderLimits, DecoderMemory, PrefillChunk, Sampled, SeqId, SequenceSpec, Steering, StepPlan,
    },
    pool::Pooling,
};
use mesh_proto::{Sampling, TokenId};
use mlx_rs::{
    Array,
    error::Exception,
    ops,
    ops::indexing::take_axis,
    transforms::{async_eval, eval},
};

use crate::{
    families::Model,
    kv::{Kv, Layout},
    pool::Pooler,
    prefix::{MIN_REUSE, PrefixCache, common},
    sampling::{self, Chosen, OddsArrays, Row},
    step::Step,
    sys::{self, Result},
};

/// Where a sequence's newest token is.
#[derive(Clone, Copy)]
enum Newest {
    /// Not chosen yet.
    Prompt,
    /// Read back.
    Host(TokenId),
    /// Row of a step in flight.
    Device { step: u64, row: usize },
}

struct Sequence {
    /// The prompt, and what was chosen since and read back.
    tokens: Vec<TokenId>,
    prompt: usize,
    sampling: Sampling,
    logprobs: Option<u8>,
    ban: Option<Ban>,
    newest: Newest,
}

struct InFlight {
    step: u64,
    tokens: Array,
    odds: Option<OddsArrays>,
    rows: Vec<SeqId>,
    /// What it makes of pooled sequences.
    pooled: Vec<(SeqId, Array)>,
}

/// A step that waits to be told how its rows choose.
struct Held {
    logits: Array,
    choosers: Choosers,
}

/// See the module's page.
pub(crate) struct MlxDecoder {
    model: Box<dyn Model>,
    limits: DecoderLimits,
    kv: Kv,
    prefixes: PrefixCache,
    sequences: HashMap<SeqId, Sequence>,
    in_flight: VecDeque<InFlight>,
    held: Option<Held>,
    next_step: u64,
    pooler: Pooler,
}

/// The rows of a step that choose a token, and where their hidden states lie in it.
#[derive(Default)]
struct Choosers {
    rows: Vec<SeqId>,
    indices: Vec<i32>,
    positions: Vec<u64>,
}

impl MlxDecoder {
    /// `prefix_budget`: bytes for ended sequences' KV.
    pub(crate) fn new(model: Box<dyn Model>, layout: Layout, limits: DecoderLimits, prefix_budget: u64) -> Self {
        Self {
            model,
            limits,
            kv: Kv::new(layout),
            prefixes: PrefixCache::new(prefix_budget),
            sequences: HashMap::new(),
            in_flight: VecDeque::new(),
            held: None,
            next_step: 0,
            pooler: Pooler::default(),
        }
    }

    fn open_sequence(&mut self, spec: SequenceSpec) -> Result<u32> {
        // The prompt's last token is computed in any case: its logits choose the first token of the answer.
        let reads_all = spec.pool.as_ref().is_some_and(Pooling::reads_all);
        let usable = if reads_all { &[] } else { &spec.prompt[..spec.prompt.len() - 1] };
        let kept = self.prefixes.longest(usable);
        let live = self.longest_live(usable);
        let prefix = match live {
            Some((seq, len)) if len > kept && len >= MIN_REUSE => self.kv.copy(seq, len as i32)?,
            _ if kept >= MIN_REUSE => self.prefixes.take(usable, kept)?,
            _ => None,
        };
        let reused = prefix.as_ref().map_or(0, |prefix| prefix.len);
        self.kv.open(spec.id, spec.prompt.len() as i32 + 1, prefix.as_ref())?;
        let SequenceSpec { id, prompt: tokens, sampling, logprobs, ban, pool } = spec;
        if let Some(pooling) = pool {
            self.pooler.open(id, pooling);
        }
        let prompt = tokens.len();
        self.sequences.insert(id, Sequence { tokens, prompt, sampling, logprobs, ban, newest: Newest::Prompt });
        Ok(reused as u32)
    }

    /// The open sequence of whose computed prompt most can be copied for `prompt`. Ties go to the oldest.
    fn longest_live(&self, prompt: &[TokenId]) -> Option<(SeqId, usize)> {
        let shared = |(seq, sequence): (&SeqId, &Sequence)| {
            let computed = sequence.prompt.min(self.kv.len(*seq) as usize);
            let common = common(&sequence.tokens[..computed], prompt);
            (*seq, self.kv.reach(*seq, common as i32) as usize)
        };
        self.sequences.iter().map(shared).max_by_key(|(seq, len)| (*len, std::cmp::Reverse(*seq)))
    }

    fn submit_step(&mut self, plan: &StepPlan) -> Result<()> {
        let decode = !plan.decode.is_empty();
        if decode {
            self.kv.make_room()?;
        }
        let chunks: Vec<(SeqId, i32, i32)> =
            plan.prefill.iter().map(|chunk| (chunk.seq, chunk.start as i32, chunk.len as i32)).collect();
        let (tokens, choosers) = self.inputs(plan, decode)?;
        let mut step = Step::new(&mut self.kv, &plan.decode, &chunks)?;
        let hidden = self.model.hidden(&tokens, &mut step)?;
        for seq in &plan.decode {
            let home = self.kv.pools().find(|(_, pool)| pool.rows().contains(seq)).map(|(capacity, _)| capacity);
            if let Some(pool) = home.and_then(|capacity| self.kv.pool(capacity)) {
                pool.advance(*seq);
            }
        }
        let mut outputs = self.pooler.read(self.model.as_ref(), &hidden, &plan.prefill)?;
        outputs.extend(self.finish_chunks(&plan.prefill)?);
        if choosers.rows.is_empty() {
            self.issue(Array::from_slice::<u32>(&[], &[0]), None, Vec::new());
        } else {
            let logits = self.logits(&hidden, &choosers)?;
            if plan.held {
                outputs.push(logits.clone());
                self.held = Some(Held { logits, choosers });
            } else {
                outputs.extend(self.choose_rows(&logits, choosers, &[])?);
            }
        }
        async_eval(&outputs)
    }

    /// Counts a step as on its way.
    fn issue(&mut self, tokens: Array, odds: Option<OddsArrays>, rows: Vec<SeqId>) {
        let step = self.next_step;
        self.next_step += 1;
        for (row, seq) in rows.iter().enumerate() {
            if let Some(sequence) = self.sequences.get_mut(seq) {
                sequence.newest = Newest::Device { step, row };
            }
        }
        let pooled = self.pooler.issued();
        self.in_flight.push_back(InFlight { step, tokens, odds, rows, pooled });
    }

    /// The step's input tokens `[tokens]`, and the rows that choose one, in the order of [`Step::new`].
    fn inputs(&self, plan: &StepPlan, decode: bool) -> Result<(Array, Choosers)> {
        // Tokens that were not read back are taken from the steps in flight, on the device. `known` holds the others.
        let mut known: Vec<u32> = Vec::new();
        let mut sources: Vec<i32> = Vec::new();
        let (offsets, ahead) = self.offsets();
        let mut choosers = Choosers::default();
        if decode {
            for seq in self.kv.pools().flat_map(|(_, pool)| pool.rows()) {
                if plan.decode.contains(seq) {
                    choosers.rows.push(*seq);
                    choosers.indices.push(sources.len() as i32);
                    choosers.positions.push(self.kv.len(*seq) as u64 + 1);
                }
                match self.sequences.get(seq).map(|sequence| sequence.newest) {
                    Some(Newest::Device { step, row }) if offsets.contains_key(&step) => {
                        sources.push(offsets[&step] + row as i32);
                    }
                    Some(Newest::Host(token)) => {
                        sources.push(ahead + known.len() as i32);
                        known.push(token.0);
                    }
                    // Nobody reads what such a row computes.
                    _ => {
                        sources.push(ahead + known.len() as i32);
                        known.push(0);
                    }
                }
            }
        }
        for chunk in &plan.prefill {
            let Some(sequence) = self.sequences.get(&chunk.seq) else { continue };
            let (start, end) = (chunk.start as usize, (chunk.start + chunk.len) as usize);
            for token in &sequence.tokens[start..end] {
                sources.push(ahead + known.len() as i32);
                known.push(token.0);
            }
            if chunk.last && !self.pooler.has(chunk.seq) {
                choosers.rows.push(chunk.seq);
                choosers.indices.push(sources.len() as i32 - 1);
                choosers.positions.push(end as u64);
            }
        }
        Ok((self.gather(&known, &sources, ahead)?, choosers))
    }

    /// Where each step in flight begins among all their tokens, one after the other, and how many these are.
    fn offsets(&self) -> (HashMap<u64, i32>, i32) {
        let mut offsets = HashMap::new();
        let mut ahead = 0;
        for step in &self.in_flight {
            offsets.insert(step.step, ahead);
            ahead += step.rows.len() as i32;
        }
        (offsets, ahead)
    }

    /// `sources` index the tokens of all steps in flight, one after the other, and `known` behind them.
    fn gather(&self, known: &[u32], sources: &[i32], ahead: i32) -> Result<Array> {
        let host = Array::from_slice(known, &[known.len() as i32]);
        let in_order = |from: i32| sources.iter().enumerate().all(|(i, source)| *source == from + i as i32);
        if in_order(ahead) {
            return Ok(host);
        }
        let mut from = 0;
        for step in &self.in_flight {
            if in_order(from) && sources.len() == step.rows.len() {
                return Ok(step.tokens.clone());
            }
            from += step.rows.len() as i32;
        }
        let mut all: Vec<Array> =
            self.in_flight.iter().filter(|step| !step.rows.is_empty()).map(|step| step.tokens.clone()).collect();
        if !known.is_empty() {
            all.push(host);
        }
        let all = if all.len() == 1 { all.remove(0) } else { ops::concatenate(&all, 0)? };
        take_axis(&all, Array::from_slice(sources, &[sources.len() as i32]), 0)
    }

    /// Counts what the step wrote into strips; those whose prompt is whole join their pool. Returns what must be
    /// computed although no chosen token depends on it.
    fn finish_chunks(&mut self, chunks: &[PrefillChunk]) -> Result<Vec<Array>> {
        let mut outputs = Vec::new();
        for chunk in chunks {
            let Some(strip) = self.kv.strip(chunk.seq) else { continue };
            strip.len = (chunk.start + chunk.len) as i32;
            if !chunk.last {
                outputs.extend(strip.layers.iter().flatten().cloned());
            }
            self.kv.snapshot(chunk.seq);
            if chunk.last && !self.pooler.has(chunk.seq) {
                self.kv.join(chunk.seq)?;
            }
        }
        Ok(outputs)
    }

    /// Logits of the rows that choose.
    fn logits(&self, hidden: &Array, choosers: &Choosers) -> Result<Array> {
        let all = hidden.dim(0) as usize == choosers.indices.len();
        let count = choosers.indices.len() as i32;
        let hidden = match all {
            true => hidden.clone(),
            false => take_axis(hidden, Array::from_slice(&choosers.indices, &[count]), 0)?,
        };
        self.model.logits(&hidden)
    }

    /// Lets a step's rows choose, and counts it as on its way. Returns what must be computed.
    fn choose_rows(&mut self, logits: &Array, choosers: Choosers, steering: &[Steering]) -> Result<Vec<Array>> {
        let greedy = Sampling::default();
        let (offsets, _) = self.offsets();
        let row = |(seq, position): (&SeqId, &u64)| {
            let sequence = self.sequences.get(seq);
            let ban = sequence.and_then(|sequence| sequence.ban.as_ref()).filter(|ban| *position < ban.before);
            let unread = match sequence.map(|sequence| sequence.newest) {
                Some(Newest::Device { step, row }) => offsets.get(&step).map(|offset| offset + row as i32),
                _ => None,
            };
            Row {
                sampling: sequence.map_or(&greedy, |sequence| &sequence.sampling),
                position: *position,
                before: sequence.map_or(&[], |sequence| &sequence.tokens),
                unread,
                banned: ban.map_or(&[], |ban| &ban.tokens),
                steering: steering.iter().find(|said| said.seq == *seq),
                odds: sequence.is_some_and(|sequence| sequence.logprobs.is_some()),
            }
        };
        let rows: Vec<Row<'_>> = choosers.rows.iter().zip(&choosers.positions).map(row).collect();
        let unread = match rows.iter().any(|row| row.unread.is_some()) {
            true => Some(self.unread()?),
            false => None,
        };
        let Chosen { tokens, odds } = sampling::choose(logits, &rows, unread.as_ref())?;
        let mut outputs = vec![tokens.clone()];
        outputs.extend(odds.iter().flat_map(OddsArrays::arrays));
        self.issue(tokens, odds, choosers.rows);
        Ok(outputs)
    }

    /// The tokens of all steps in flight, one after the other; at least one.
    fn unread(&self) -> Result<Array> {
        let mut all: Vec<Array> =
            self.in_flight.iter().filter(|step| !step.rows.is_empty()).map(|step| step.tokens.clone()).collect();
        if all.len() == 1 { Ok(all.remove(0)) } else { ops::concatenate(&all, 0) }
    }

    /// Lets the held step choose.
    fn choose_held(&mut self, steering: &[Steering]) -> Result<()> {
        let Some(Held { logits, choosers }) = self.held.take() else { return Ok(()) };
        let outputs = self.choose_rows(&logits, choosers, steering)?;
        async_eval(&outputs)
    }

    /// What the oldest step chose, read back.
    fn read(&mut self, done: InFlight) -> std::result::Result<Vec<Sampled>, String> {
        let mut outputs: Vec<Array> = done.pooled.iter().map(|(_, values)| values.clone()).collect();
        if !done.rows.is_empty() {
            outputs.push(done.tokens.clone());
        }
        outputs.extend(done.odds.iter().flat_map(OddsArrays::arrays));
        eval(&outputs).map_err(|error| error.what().to_owned())?;
        let whose = self.pooler.keep(done.pooled)?;
        let pooled = whose.into_iter().map(|seq| Sampled { seq, token: TokenId(0), odds: None });
        if done.rows.is_empty() {
            return Ok(pooled.collect());
        }
        let tokens = done.tokens.try_as_slice::<u32>().map_err(|error| error.to_string())?;
        let odds = done.odds.as_ref().map_or(Ok(Vec::new()), OddsArrays::read).map_err(|error| error.to_string())?;
        let mut odds: HashMap<usize, _> = odds.into_iter().collect();
        let mut sampled = Vec::with_capacity(tokens.len());
        for (row, (seq, token)) in done.rows.iter().zip(tokens).enumerate() {
            let Some(sequence) = self.sequences.get_mut(seq) else { continue };
            let token = TokenId(*token);
            if let Newest::Device { step, row: newest } = sequence.newest
                && step == done.step
                && newest == row
            {
                sequence.newest = Newest::Host(token);
            }
            sequence.tokens.push(token);
            let mut odds = odds.remove(&row);
            if let (Some(odds), Some(wanted)) = (&mut odds, sequence.logprobs) {
                odds.top.truncate(wanted.into());
            }
            sampled.push(Sampled { seq: *seq, token, odds });
        }
        sampled.extend(pooled);
        Ok(sampled)
    }

    /// Keeps what can be reused of a sequence: as much of its text as can be copied; and where that is more than the
    /// prompt and cannot be cut back to it, also of the prompt, for the same question asked again.
    fn keep(&mut self, seq: SeqId, text: &[TokenId], prompt: usize) -> Result<()> {
        // The last token's KV does not exist, and what steps in flight wrote beyond the text is nobody's.
        let whole = self.kv.reach(seq, text.len().saturating_sub(1) as i32);
        let question = self.kv.reach(seq, text.len().min(prompt).saturating_sub(1) as i32);
        for len in [whole, question] {
            let covered = self.prefixes.covers(&text[..len as usize]);
            if (len as usize) < MIN_REUSE || covered {
                continue;
            }
            if let Some(prefix) = self.kv.copy(seq, len)? {
                let bytes = prefix.bytes();
                if bytes > self.prefixes.budget() {
                    continue;
                }
                // Computed now, or the copy would hold the whole pool alive.
                async_eval(prefix.arrays())?;
                self.prefixes.insert(text[..len as usize].to_vec(), prefix, bytes);
            }
        }
        Ok(())
    }

    /// Whether something can be made of this model's hidden states.
    pub(crate) fn pools(&self) -> bool {
        self.model.last_norm().is_some()
    }

    /// After a failure of the device no step is in flight any more, as [`DecodeError::Device`] promises.
    fn lose_steps(&mut self, error: &Exception) -> DecodeError {
        self.in_flight.clear();
        self.held = None;
        self.pooler.issued();
        DecodeError::Device(error.what().to_owned())
    }

    /// What its layers remember.
    #[cfg(test)]
    pub(crate) fn caches(&self) -> &[crate::kv::LayerCache] {
        &self.model.shape().caches
    }

    /// Logits of every position of `tokens`, `[tokens, vocabulary]`, in one step: for comparisons with a reference.
    #[cfg(test)]
    pub(crate) fn logits_of(&mut self, tokens: &[u32]) -> Result<Array> {
        self.logits_of_pieces(&[tokens])
    }

    /// The same for a prompt in pieces, a step each.
    #[cfg(test)]
    pub(crate) fn logits_of_pieces(&mut self, pieces: &[&[u32]]) -> Result<Array> {
        let seq = SeqId(u64::MAX);
        self.kv.open(seq, pieces.iter().map(|piece| piece.len() as i32).sum(), None)?;
        let mut all = Vec::with_capacity(pieces.len());
        let mut at = 0;
        for piece in pieces {
            let n = piece.len() as i32;
            let mut step = Step::new(&mut self.kv, &[], &[(seq, at, n)])?;
            let hidden = self.model.hidden(&Array::from_slice(piece, &[n]), &mut step)?;
            all.push(self.model.logits(&hidden)?);
            at += n;
            if let Some(strip) = self.kv.strip(seq) {
                strip.len = at;
            }
        }
        self.kv.close(seq)?;
        ops::concatenate(&all, 0)?.as_dtype(mlx_rs::Dtype::Float32)
    }
}

impl Drop for MlxDecoder {
    /// Waits for steps that nobody collected: a process that ends while MLX's thread computes them crashes in BLAS.
    fn drop(&mut self) {
        self.in_flight.clear();
        self.held = None;
        if let Err(error) = sys::synchronize() {
            tracing::warn!(%error, "the device may still be computing");
        }
    }
}

impl Decoder for MlxDecoder {
    fn limits(&self) -> DecoderLimits {
        self.limits
    }

    fn open(&mut self, spec: SequenceSpec) -> std::result::Result<u32, DecodeError> {
        let refuse = |message: &str| DecodeError::Sequences { seqs: vec![spec.id], message: message.into() };
        if spec.prompt.is_empty() {
            return Err(refuse("the prompt has no tokens"));
        }
        if spec.prompt.iter().any(|token| token.0 >= self.limits.vocab_size) {
            return Err(refuse("the prompt has a token outside the vocabulary"));
        }
        self.open_sequence(spec).map_err(|error| self.lose_steps(&error))
    }

    fn submit(&mut self, plan: &StepPlan) -> std::result::Result<(), DecodeError> {
        self.submit_step(plan).map_err(|error| self.lose_steps(&error))
    }

    fn choose(&mut self, steering: &[Steering]) -> std::result::Result<(), DecodeError> {
        self.choose_held(steering).map_err(|error| self.lose_steps(&error))
    }

    fn collect(&mut self) -> std::result::Result<Vec<Sampled>, DecodeError> {
        let Some(done) = self.in_flight.pop_front() else { return Ok(Vec::new()) };
        if done.rows.is_empty() && done.pooled.is_empty() {
            return Ok(Vec::new());
        }
        self.read(done).map_err(|message| self.lose_steps(&Exception::custom(message)))
    }

    fn pooled(&mut self, seq: SeqId) -> Option<Vec<f32>> {
        self.pooler.take(seq)
    }

    fn close(&mut self, seq: SeqId, kept: Option<&[TokenId]>) {
        let prompt = self.sequences.remove(&seq).map_or(0, |sequence| sequence.prompt);
        self.pooler.close(seq);
        if let Some(text) = kept
            && let Err(error) = self.keep(seq, text, prompt)
        {
            tracing::warn!(%error, "a sequence's keys and values could not be kept for reuse");
        }
        if let Err(error) = self.kv.close(seq) {
            tracing::error!(%error, "a sequence's place could not be freed");
        }
    }

    fn memory(&self) -> DecoderMemory {
        DecoderMemory { kv_bytes: self.kv.bytes(), prefix_bytes: self.prefixes.bytes() }
    }
}

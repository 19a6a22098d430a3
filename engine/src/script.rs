//! A decoder without weights that follows a script, for tests of everything above it; must not know text or requests.
//!
//! The next token is a pure function of the tokens so far and of how they are sampled, so the right answer to any
//! prompt is known ([`Script::answer`]), whatever else is in the batch. It keeps the `Decoder` contract strictly:
//! what breaks it is a device error and stands in [`Counts::violations`]. A [`Probe`] looks in from outside, holds
//! it, and makes it fail.
//!
//! What a request asks of the choice is honoured as a device would that gives nearly all its probability to the script's
//! token: where that must not come, another does (see [`Script::choose`]). Truncations, penalties and XTC, which only shift
//! probabilities, change nothing.
//!
//! ```
//! use engine::script::{Probe, Script, ScriptDecoder, ScriptOptions};
//! use mesh_proto::{Sampling, TokenId};
//!
//! let (separator, end) = (TokenId(10), TokenId(0));
//! let script = Script::echo(separator, end);
//! let prompt = [TokenId(5), TokenId(6), separator];
//! assert_eq!(script.answer(&prompt, &Sampling::default(), end, 9), [TokenId(5), TokenId(6), end]);
//! let decoder = ScriptDecoder::new(script, ScriptOptions::default(), Probe::default());
//! ```

mod choose;
mod folder;
mod probe;

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use mesh_proto::{ModelDescriptor, ModelId, Sampling, TokenId};

pub use folder::{END, VOCAB_SIZE, byte_tokens, write_text_model};
pub use probe::{Counts, Fault, Hold, Probe};

use crate::{
    decoder::{
        Ban, DecodeError, Decoder, DecoderLimits, DecoderMemory, Sampled, SeqId, SequenceSpec, Steering, StepPlan,
    },
    pool::Pooling,
};

/// Chooses the next token from all tokens so far, prompt and answer alike (a preempted sequence comes back with both
/// as its prompt).
type Next = dyn Fn(&[TokenId], &Sampling) -> TokenId + Send + Sync;

/// What a [`ScriptDecoder`] says.
#[derive(Clone)]
pub struct Script(Arc<Next>);

impl Script {
    /// Any pure function of the tokens so far.
    pub fn new(next: impl Fn(&[TokenId], &Sampling) -> TokenId + Send + Sync + 'static) -> Self {
        Self(Arc::new(next))
    }

    /// The same token for ever.
    pub fn always(token: TokenId) -> Self {
        Self::new(move |_, _| token)
    }

    /// Repeats a prompt that ends with the only `separator` in it, without that, then says `end`. Without a separator
    /// it says `end` at once.
    pub fn echo(separator: TokenId, end: TokenId) -> Self {
        Self::new(move |tokens, _| {
            let Some(at) = tokens.iter().position(|token| *token == separator) else { return end };
            tokens.get(tokens.len() - at - 1).copied().filter(|token| *token != separator).unwrap_or(end)
        })
    }

    /// Answers chats of [`write_text_model`]'s template: `reply` gets the prompt up to the assistant's turn and gives
    /// the whole answer, after which [`END`] comes. Any other prompt gets `END` at once.
    pub fn chat(reply: impl Fn(&[TokenId]) -> Vec<TokenId> + Send + Sync + 'static) -> Self {
        let turn = folder::assistant_turn();
        Self::new(move |tokens, _| {
            let start = tokens.windows(turn.len()).rposition(|window| window == turn);
            let Some((prompt, answer)) = start.map(|start| tokens.split_at(start + turn.len())) else { return END };
            reply(prompt).get(answer.len()).copied().unwrap_or(END)
        })
    }

    /// Says a fixed answer to each of these prompts, then `end`; any other prompt gets `end` at once. Where one
    /// prompt goes on as another's answer does, the longer prompt counts.
    pub fn replay(answers: BTreeMap<Vec<TokenId>, Vec<TokenId>>, end: TokenId) -> Self {
        Self::new(move |tokens, _| {
            let left = |(prompt, answer): (&Vec<TokenId>, &Vec<TokenId>)| {
                let said = tokens.strip_prefix(prompt.as_slice())?;
                answer.strip_prefix(said).map(|left| (prompt.len(), left.first().copied()))
            };
            let next = answers.iter().filter_map(left).max_by_key(|(prompt, _)| *prompt);
            next.and_then(|(_, token)| token).unwrap_or(end)
        })
    }

    /// A token below `below` that depends on every token before it and on the seed, or `end` in about one of
    /// `ends_every` cases (0: never): any slip in what the decoder is told changes the answer.
    pub fn noise(below: u32, end: TokenId, ends_every: u64) -> Self {
        Self::new(move |tokens, sampling| {
            let mut hasher = DefaultHasher::new();
            (tokens, sampling.seed).hash(&mut hasher);
            let hash = hasher.finish();
            let ends = (hash >> 32).checked_rem(ends_every) == Some(0);
            if ends { end } else { TokenId((hash % u64::from(below.max(1))) as u32) }
        })
    }

    /// The right answer to a prompt: up to and with `end`, or `most` tokens.
    pub fn answer(&self, prompt: &[TokenId], sampling: &Sampling, end: TokenId, most: usize) -> Vec<TokenId> {
        let mut tokens = prompt.to_vec();
        while tokens.len() - prompt.len() < most {
            let token = (self.0)(&tokens, sampling);
            tokens.push(token);
            if token == end {
                break;
            }
        }
        tokens.split_off(prompt.len())
    }
}

/// What a [`ScriptDecoder`] can hold, and how slow it is.
#[derive(Clone, Copy, Debug)]
pub struct ScriptOptions {
    /// As a device would say.
    pub limits: DecoderLimits,
    /// How long each step takes; 0 by default.
    pub step_delay: Duration,
    /// KV bytes kept for reuse by later prompts, the oldest forgotten first; 0 switches it off.
    pub prefix_budget_bytes: u64,
}

impl Default for ScriptOptions {
    fn default() -> Self {
        Self {
            limits: DecoderLimits {
                context_tokens: 4096,
                vocab_size: VOCAB_SIZE,
                kv_bytes_per_token: 1024,
                kv_budget_bytes: 64 << 20,
            },
            step_delay: Duration::ZERO,
            prefix_budget_bytes: 4 << 20,
        }
    }
}

/// Values of a pooled vector.
pub const VECTOR: usize = 16;

/// What a scripted model with the default options is, for lists of models.
pub fn descriptor(id: &str) -> ModelDescriptor {
    let limits = ScriptOptions::default().limits;
    ModelDescriptor {
        id: ModelId::new(id),
        engine: "script".to_owned(),
        family: "script".to_owned(),
        quantization: "none".to_owned(),
        context_tokens: limits.context_tokens,
        vocab_size: limits.vocab_size,
        created: 0,
    }
}

/// Tokens for which an open sequence's KV is copied, as a device would: copies have their price.
const LEAST_SHARED: usize = 16;

/// One open sequence.
struct Sequence {
    tokens: Vec<TokenId>,
    sampling: Sampling,
    logprobs: Option<u8>,
    ban: Option<Ban>,
    pool: Option<Pooling>,
    prompt: usize,
    /// Tokens whose KV is held.
    computed: usize,
}

/// The decoder. See the module's page.
pub struct ScriptDecoder {
    script: Script,
    options: ScriptOptions,
    probe: Probe,
    open: BTreeMap<SeqId, Sequence>,
    /// What the uncollected steps chose, oldest first, and whom they named.
    in_flight: VecDeque<(StepPlan, Vec<Sampled>)>,
    /// Whether the newest of them has not chosen yet.
    held: bool,
    kept: VecDeque<Vec<TokenId>>,
    /// What was made of pooled sequences.
    made: BTreeMap<SeqId, Vec<f32>>,
}

impl ScriptDecoder {
    /// A decoder with nothing open. Keep a clone of the probe.
    pub fn new(script: Script, options: ScriptOptions, probe: Probe) -> Self {
        let (open, in_flight, kept) = (BTreeMap::new(), VecDeque::new(), VecDeque::new());
        Self { script, options, probe, open, in_flight, held: false, kept, made: BTreeMap::new() }
    }

    fn publish(&self) {
        let memory = self.memory();
        self.probe.update(|counts| {
            counts.open = self.open.len();
            counts.kv_bytes = memory.kv_bytes;
            counts.peak_kv_bytes = counts.peak_kv_bytes.max(memory.kv_bytes);
            counts.prefix_bytes = memory.prefix_bytes;
        });
    }

    fn lost(&mut self, message: &str) -> DecodeError {
        self.in_flight.clear();
        self.held = false;
        DecodeError::Device(message.to_owned())
    }

    fn violated(&mut self, message: String) -> DecodeError {
        self.probe.update(|counts| counts.violations.push(message.clone()));
        self.lost(&format!("the decoder's contract was broken: {message}"))
    }

    /// Computes a step up to its choice, or says what is wrong with it.
    fn compute(&mut self, plan: &StepPlan) -> Result<(), String> {
        if self.held {
            return Err("a step while the one before has not chosen".to_owned());
        }
        if plan.is_empty() || self.in_flight.len() >= 2 {
            return Err(format!("an empty step, or a third one in flight ({})", self.in_flight.len()));
        }
        let mut named = Vec::new();
        for &seq in &plan.decode {
            let sequence = self.open.get_mut(&seq).ok_or(format!("{seq:?} decodes and is not open"))?;
            if sequence.tokens.len() <= sequence.prompt || sequence.computed + 1 != sequence.tokens.len() {
                return Err(format!("{seq:?} decodes before its prompt is computed"));
            }
            sequence.computed += 1;
            named.push(seq);
        }
        for chunk in &plan.prefill {
            let seq = chunk.seq;
            let sequence = self.open.get_mut(&seq).ok_or(format!("{seq:?} is prefilled and not open"))?;
            let end = chunk.start as usize + chunk.len as usize;
            let contiguous = chunk.start as usize == sequence.computed && chunk.len > 0;
            if !contiguous || end > sequence.prompt || chunk.last != (end == sequence.prompt) {
                return Err(format!("{chunk:?} at {} of {}", sequence.computed, sequence.prompt));
            }
            sequence.computed = end;
            named.push(seq);
        }
        named.sort();
        if named.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("a sequence twice in a step".to_owned());
        }
        if self.memory().kv_bytes > self.options.limits.kv_budget_bytes {
            return Err("the budget of KV bytes is exceeded".to_owned());
        }
        Ok(())
    }

    /// Chooses a step's tokens, or says what is wrong with what is said of them.
    fn choose_all(&mut self, plan: &StepPlan, steering: &[Steering]) -> Result<Vec<Sampled>, String> {
        let choosing: Vec<SeqId> = plan.choosing().collect();
        if let Some(other) = steering.iter().find(|said| !choosing.contains(&said.seq)) {
            return Err(format!("{:?} is steered and does not choose", other.seq));
        }
        let mut sampled = Vec::new();
        for seq in choosing {
            let Some(sequence) = self.open.get_mut(&seq) else { continue };
            if let Some(pooling) = &sequence.pool {
                self.made.insert(seq, vector(&sequence.tokens, pooling));
                sampled.push(Sampled { seq, token: TokenId(0), odds: None });
                continue;
            }
            let said = steering.iter().find(|said| said.seq == seq);
            let ban = sequence.ban.as_ref().filter(|ban| (sequence.tokens.len() as u64) < ban.before);
            let wanted = (self.script.0)(&sequence.tokens, &sequence.sampling);
            let vocab_size = self.options.limits.vocab_size;
            let token = choose::choose(wanted, vocab_size, said, ban).ok_or(format!("{seq:?} may choose nothing"))?;
            let odds = sequence.logprobs.map(|count| choose::odds(wanted, token, vocab_size, count));
            sequence.tokens.push(token);
            if sequence.tokens.len() > self.options.limits.context_tokens as usize {
                return Err(format!("{seq:?} goes past its context"));
            }
            sampled.push(Sampled { seq, token, odds });
        }
        Ok(sampled)
    }
}

impl Decoder for ScriptDecoder {
    fn limits(&self) -> DecoderLimits {
        self.options.limits
    }

    fn open(&mut self, spec: SequenceSpec) -> Result<u32, DecodeError> {
        if self.probe.fails(Fault::Open) {
            return Err(DecodeError::Sequences { seqs: vec![spec.id], message: "scripted: cannot open".to_owned() });
        }
        if self.probe.fails(Fault::OpenDevice) {
            return Err(self.lost("scripted: the device is gone"));
        }
        if spec.prompt.is_empty() || spec.sampling.seed.is_none() || self.open.contains_key(&spec.id) {
            return Err(self.violated(format!("{:?} opened twice, or without prompt or seed", spec.id)));
        }
        let common = |kept: &[TokenId]| kept.iter().zip(&spec.prompt).take_while(|(a, b)| a == b).count();
        let live = |other: &Sequence| common(&other.tokens[..other.computed.min(other.prompt)]);
        let live = self.open.values().map(live).max().filter(|shared| *shared >= LEAST_SHARED).unwrap_or(0);
        let kept = self.kept.iter().map(|kept| common(kept)).max().unwrap_or(0);
        let cached = kept.max(live).min(spec.prompt.len() - 1);
        let (id, prompt) = (spec.id, spec.prompt.len());
        let SequenceSpec { prompt: tokens, sampling, logprobs, ban, pool, .. } = spec;
        let cached = if pool.as_ref().is_some_and(Pooling::reads_all) { 0 } else { cached };
        let sequence = Sequence { tokens, sampling, logprobs, ban, pool, prompt, computed: cached };
        self.open.insert(id, sequence);
        self.probe.update(|counts| counts.opened += 1);
        self.publish();
        Ok(cached as u32)
    }

    fn submit(&mut self, plan: &StepPlan) -> Result<(), DecodeError> {
        if self.probe.fails(Fault::SubmitDevice) {
            return Err(self.lost("scripted: the device is gone"));
        }
        if self.probe.fails(Fault::SubmitSequence) {
            let seqs = named(plan).take(1).collect();
            return Err(DecodeError::Sequences { seqs, message: "scripted: cannot be submitted".to_owned() });
        }
        self.compute(plan).map_err(|message| self.violated(message))?;
        self.held = plan.held;
        let sampled = match plan.held {
            true => Vec::new(),
            false => self.choose_all(plan, &[]).map_err(|message| self.violated(message))?,
        };
        self.in_flight.push_back((plan.clone(), sampled));
        self.probe.update(|counts| {
            counts.steps += 1;
            counts.held += u64::from(plan.held);
            counts.decode_rows += plan.decode.len() as u64;
            counts.prefill_tokens += plan.prefill.iter().map(|chunk| u64::from(chunk.len)).sum::<u64>();
            counts.prefill_peak = counts.prefill_peak.max(plan.prefill.iter().map(|chunk| chunk.len).sum());
        });
        self.publish();
        Ok(())
    }

    fn choose(&mut self, steering: &[Steering]) -> Result<(), DecodeError> {
        if self.probe.fails(Fault::ChooseDevice) {
            return Err(self.lost("scripted: the device is gone"));
        }
        let newest = self.in_flight.back().map(|(plan, _)| plan.clone()).filter(|_| std::mem::take(&mut self.held));
        let Some(plan) = newest else { return Err(self.violated("nothing to choose".to_owned())) };
        let sampled = self.choose_all(&plan, steering).map_err(|message| self.violated(message))?;
        if let Some((_, newest)) = self.in_flight.back_mut() {
            *newest = sampled;
        }
        Ok(())
    }

    fn collect(&mut self) -> Result<Vec<Sampled>, DecodeError> {
        if self.held && self.in_flight.len() == 1 {
            return Err(self.violated("a step is collected that has not chosen".to_owned()));
        }
        self.probe.wait();
        if !self.options.step_delay.is_zero() {
            std::thread::sleep(self.options.step_delay);
        }
        assert!(!self.probe.fails(Fault::Panic), "scripted: the decoder panics");
        if self.probe.fails(Fault::CollectDevice) {
            return Err(self.lost("scripted: the device is gone"));
        }
        let Some((plan, mut sampled)) = self.in_flight.pop_front() else {
            return Err(self.violated("nothing to collect".to_owned()));
        };
        if self.probe.fails(Fault::CollectSequence) {
            let seqs = named(&plan).filter(|seq| self.open.contains_key(seq)).take(1).collect();
            return Err(DecodeError::Sequences { seqs, message: "scripted: a row failed".to_owned() });
        }
        if self.probe.fails(Fault::MissingToken) {
            sampled.pop();
        }
        sampled.retain(|token| self.open.contains_key(&token.seq));
        Ok(sampled)
    }

    fn pooled(&mut self, seq: SeqId) -> Option<Vec<f32>> {
        self.made.remove(&seq)
    }

    fn close(&mut self, seq: SeqId, kept: Option<&[TokenId]>) {
        self.made.remove(&seq);
        let Some(sequence) = self.open.remove(&seq) else {
            self.probe.update(|counts| counts.violations.push(format!("{seq:?} closed and not open")));
            return;
        };
        if let Some(kept) = kept {
            if !sequence.tokens.starts_with(kept) {
                self.probe.update(|counts| counts.violations.push(format!("{seq:?} kept what it never had")));
            }
            self.kept.push_back(kept[..kept.len().min(sequence.computed)].to_vec());
        }
        while self.memory().prefix_bytes > self.options.prefix_budget_bytes {
            self.kept.pop_front();
        }
        self.publish();
    }

    fn memory(&self) -> DecoderMemory {
        let bytes = |tokens: usize| tokens as u64 * self.options.limits.kv_bytes_per_token;
        DecoderMemory {
            kv_bytes: bytes(self.open.values().map(|sequence| sequence.computed).sum()),
            prefix_bytes: bytes(self.kept.iter().map(Vec::len).sum()),
        }
    }
}

/// What is made of these tokens: numbers from -1 to 1 that depend on all of them.
pub fn vector(tokens: &[TokenId], pooling: &Pooling) -> Vec<f32> {
    let values = if let Pooling::Logits(tokens) = pooling { tokens.len() } else { VECTOR };
    let value = |at: usize| {
        let mut hasher = DefaultHasher::new();
        (tokens, at).hash(&mut hasher);
        (hasher.finish() >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..values).map(value).collect()
}

fn named(plan: &StepPlan) -> impl Iterator<Item = SeqId> {
    plan.decode.iter().copied().chain(plan.prefill.iter().map(|chunk| chunk.seq))
}

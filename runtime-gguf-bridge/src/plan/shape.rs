//! What a model costs by layer, from its header; must not know how much memory there is.
//!
//! The rules are llama.cpp's (`llama-hparams.cpp`, `llama-kv-cache*.cpp`, `llama-memory-recurrent.cpp`). Where a header
//! leaves open what they would do, the larger answer is taken: it costs context, and the other one the process.

use catalog::gguf::{Header, Tensor};

use crate::{arguments::KvBits, kind};

/// Tokens computed at once. Unit: tokens. Origin: llama-server's `--ubatch-size` default.
pub(super) const MICRO_BATCH: u64 = 512;
/// Cells are allocated in steps of this. Unit: tokens. Origin: `llama-context.cpp`, `llama-kv-cache-iswa.cpp`.
const CELL_STEP: u64 = 256;
/// Most layers that are looked at. Origin: `LLAMA_MAX_LAYERS` is 512.
const MAX_LAYERS: u64 = 1024;
/// Values in a block of `q8_0` and `q4_0`, and its bytes. Origin: `ggml-common.h`.
const BLOCK: u64 = 32;
const Q8_BLOCK_BYTES: u64 = 34;
const Q4_BLOCK_BYTES: u64 = 18;
/// A recurrent state's element. Unit: bytes. Origin: `GGML_TYPE_F32` in `llama-model.cpp`.
const STATE_BYTES: u64 = 4;
/// Most tokens that a text which is computed in one piece may have unasked: where attention is not fused, its memory grows
/// with the square. Unit: tokens. Guess: most embedding models were trained for 512 to 8,192.
const WHOLE_CONTEXT: u64 = 8192;
/// Context of a file that does not say. Unit: tokens. Origin: llama.cpp's former default.
const DEFAULT_CONTEXT: u64 = 4096;
/// What llama-server takes beside buffers that it names, and for each word of its vocabulary. Unit: bytes. Measured on
/// 0.7.0: 46 MiB of anonymous memory at 151,936 words.
const PROCESS: u64 = 64 << 20;
const WORD: u64 = 256;

/// Families whose layers alternate windowed and full attention, with the period where the header has none; the last
/// layer of each is full. Origin: `load_swa_pattern` in llama.cpp's `src/models`.
const PERIODS: &[(&str, u64)] =
    &[("gemma2", 2), ("gemma3", 6), ("gemma3n", 5), ("gpt-oss", 2), ("cohere2", 4), ("exaone4", 4), ("olmo2", 4)];

/// A model's costs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shape {
    /// Tokens that it was trained for.
    pub(super) trained: u64,
    pub(super) layers: Vec<Layer>,
    /// Bytes of all tensors.
    pub(super) weights: u64,
    /// Bytes of those that go to the GPU with the first of `--gpu-layers`: the output's.
    pub(super) output: u64,
    /// Bytes of it that are a copy of the embeddings, which stay in RAM, and so are not among `weights`.
    pub(super) copied: u64,
    /// Bytes that computing takes, whatever the context: activations of one micro-batch, the process itself.
    pub(super) compute: u64,
    /// Words of the vocabulary.
    pub(super) vocabulary: u64,
    /// Bytes of one token's activations.
    pub(super) token: u64,
    /// Whether a text is computed in one piece.
    pub(super) whole: bool,
}

/// A layer's costs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layer {
    /// Elements of keys and values a token.
    pub(super) keys: u64,
    pub(super) values: u64,
    /// Values in one head's key, which blocks of quantised keys must divide; 0: none.
    pub(super) head: u64,
    /// Tokens that it looks back; `None`: all.
    pub(super) window: Option<u64>,
    /// Bytes of recurrent state a slot.
    pub(super) state: u64,
    /// Bytes of its tensors.
    pub(super) weights: u64,
}

/// Cells that are allocated for so many tokens of one slot.
pub(super) fn cells(tokens: u64) -> u64 {
    tokens.checked_next_multiple_of(CELL_STEP).unwrap_or(u64::MAX)
}

fn row(elements: u64, kv: KvBits) -> u64 {
    let blocks = elements.div_ceil(BLOCK);
    match kv {
        KvBits::F16 => elements.saturating_mul(2),
        KvBits::Q8 => blocks.saturating_mul(Q8_BLOCK_BYTES),
        KvBits::Q4 => blocks.saturating_mul(Q4_BLOCK_BYTES),
    }
}

impl Layer {
    /// Bytes that a slot of so many tokens takes in this layer.
    pub(super) fn slot(&self, context: u64, kv: KvBits) -> u64 {
        let own = match self.window {
            None => cells(context),
            Some(window) => cells(context.min(window.saturating_add(MICRO_BATCH))),
        };
        let token = row(self.keys, kv).saturating_add(row(self.values, kv));
        token.saturating_mul(own).saturating_add(self.state)
    }
}

impl Shape {
    /// Bytes that a slot of so many tokens takes in all layers: what llama-server logs as KV and RS buffers.
    pub(super) fn slot(&self, context: u64, kv: KvBits) -> u64 {
        self.layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.slot(context, kv)))
    }

    /// The most of a context that nobody asked for.
    pub(super) fn unasked(&self) -> u64 {
        if self.whole { self.trained.min(WHOLE_CONTEXT) } else { self.trained }
    }

    /// The head size for which `kv` is impossible.
    pub(super) fn odd_head(&self, kv: KvBits) -> Option<u64> {
        let mut heads = self.layers.iter().map(|layer| layer.head);
        if kv == KvBits::F16 { None } else { heads.find(|head| head % BLOCK != 0) }
    }

    pub(crate) fn of(parts: &[Header]) -> Self {
        let Some(first) = parts.first() else { return Self::default() };
        let facts = Facts::new(first, parts);
        let mut layers = facts.layers();
        let (mut weights, mut output, mut embedding) = (0_u64, 0_u64, 0_u64);
        for tensor in parts.iter().flat_map(Header::tensors) {
            weights = weights.saturating_add(tensor.bytes);
            let sum = match block(&tensor.name) {
                Some(index) => match layers.get_mut(index) {
                    Some(layer) => &mut layer.weights,
                    None => continue,
                },
                None if tensor.name.starts_with("output") => &mut output,
                None if tensor.name == "token_embd.weight" => &mut embedding,
                None => continue,
            };
            *sum = sum.saturating_add(tensor.bytes);
        }
        let copied = if facts.tensor("output.weight").is_some() { 0 } else { embedding };
        let trained = first.own("context_length").filter(|tokens| *tokens > 0).unwrap_or(DEFAULT_CONTEXT);
        Self {
            trained: trained.min(u64::from(u32::MAX)),
            layers,
            weights,
            output: output.saturating_add(copied),
            copied,
            compute: facts.compute(),
            token: facts.token(),
            whole: kind::reads_whole(first),
            vocabulary: facts.vocabulary(),
        }
    }
}

/// `blk.7.attn_k.weight` belongs to layer 7.
fn block(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split_once('.')?.0.parse().ok()
}

/// One number for all layers, or one for each.
type Each = Option<Vec<u64>>;

/// What the header says, with what is one number a layer read once: a hostile array may have millions.
struct Facts<'a> {
    header: &'a Header,
    parts: &'a [Header],
    heads: Each,
    kv_heads: Each,
    feed_forward: Each,
    pattern: Each,
    /// Whether the pattern is one flag a layer, not a period.
    flags: bool,
}

impl<'a> Facts<'a> {
    fn new(header: &'a Header, parts: &'a [Header]) -> Self {
        let heads = each(header, "attention.head_count");
        let pattern = each(header, "attention.sliding_window_pattern");
        let period = || PERIODS.iter().find(|(family, _)| *family == header.architecture());
        Self {
            header,
            parts,
            kv_heads: each(header, "attention.head_count_kv").or_else(|| heads.clone()),
            heads,
            feed_forward: each(header, "feed_forward_length"),
            flags: pattern.is_some() && header.own("attention.sliding_window_pattern").is_none(),
            pattern: pattern.or_else(|| period().map(|(_, period)| vec![*period])),
        }
    }

    fn most(&self, name: &str) -> u64 {
        each(self.header, name).and_then(|numbers| numbers.into_iter().max()).unwrap_or(0)
    }

    fn own(&self, name: &str) -> u64 {
        self.header.own(name).unwrap_or(0)
    }

    fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.parts.iter().flat_map(Header::tensors).find(|tensor| tensor.name == name)
    }

    fn embedding_side(&self, side: usize) -> Option<u64> {
        self.tensor("token_embd.weight")?.shape.get(side).copied()
    }

    fn width(&self) -> u64 {
        self.header.own("embedding_length").or_else(|| self.embedding_side(0)).unwrap_or(0)
    }

    fn vocabulary(&self) -> u64 {
        let tokens = self.header.texts("tokenizer.ggml.tokens").map(|tokens| tokens.len() as u64);
        tokens.or_else(|| self.embedding_side(1)).unwrap_or_else(|| self.own("vocab_size"))
    }

    fn count(&self) -> u64 {
        let names = self.parts.iter().flat_map(Header::tensors).filter_map(|tensor| block(&tensor.name));
        let seen = names.max().map_or(0, |index| (index as u64).saturating_add(1));
        self.header.own("block_count").unwrap_or(seen).min(MAX_LAYERS)
    }

    /// Bytes of a token's activations, beside attention's mask. Fitted from above to what llama-server 0.7.0
    /// logs as its compute buffer (see the tests), on CPUs with flash attention.
    fn token(&self) -> u64 {
        let width = self.width();
        let heads = self.most("attention.head_count");
        let head = self.most("attention.key_length").max(width.checked_div(heads).unwrap_or(0));
        let experts = self.most("expert_used_count");
        let routed = self.most("expert_feed_forward_length").saturating_mul(2).saturating_add(width);
        let floats = [
            width.saturating_mul(4),
            self.most("feed_forward_length").saturating_mul(3),
            heads.saturating_mul(head).saturating_mul(3),
            experts.saturating_mul(routed),
            self.own("ssm.inner_size").saturating_mul(8),
        ];
        floats.iter().fold(0_u64, |sum, floats| sum.saturating_add(*floats)).saturating_mul(4)
    }

    /// Bytes for one micro-batch's activations, and the process.
    fn compute(&self) -> u64 {
        let process = self.vocabulary().saturating_mul(WORD).saturating_add(PROCESS);
        self.token().saturating_mul(MICRO_BATCH).saturating_add(process)
    }

    fn layers(&self) -> Vec<Layer> {
        let count = self.count();
        let window = Some(self.own("attention.sliding_window")).filter(|window| *window > 0);
        let recurrence = Recurrence::of(self);
        let cached = !kind::is_encoder(self.header);
        (0..count)
            .map(|index| {
                let windowed = window.filter(|_| self.is_windowed(index));
                let (recurrent, attends) = recurrence.of_layer(self, index);
                let mut layer = Layer { state: if recurrent { recurrence.state } else { 0 }, ..Layer::default() };
                if attends && cached && !self.borrows(index, count) {
                    let head = self.head_sizes(windowed.is_some(), window.is_some());
                    self.attention(&mut layer, head, at(&self.kv_heads, index));
                    layer.window = windowed;
                }
                layer
            })
            .collect()
    }

    fn attention(&self, layer: &mut Layer, head: (u64, u64), kv_heads: Option<u64>) {
        let (key, value) = head;
        // Without a word on heads, each of them has its own keys and values.
        let (keys, values) = match kv_heads {
            Some(heads) => (heads.saturating_mul(key), heads.saturating_mul(value)),
            None => (self.width(), self.width()),
        };
        // Latent attention keeps one vector a token, of which values are a part.
        let latent = self.own("attention.key_length_mla") > 0 && self.own("attention.value_length_mla") > 0;
        let index = self.own("attention.indexer.key_length");
        layer.keys = keys.saturating_add(index);
        layer.values = if latent { 0 } else { values.saturating_add(index) };
        layer.head = if keys > 0 { key } else { 0 };
    }

    /// Elements of one head's key and value.
    fn head_sizes(&self, windowed: bool, unsure: bool) -> (u64, u64) {
        let fewest = self.heads.as_ref().and_then(|heads| heads.iter().copied().filter(|heads| *heads > 0).min());
        let derived = fewest.map_or(0, |heads| self.width() / heads);
        let size = |name: &str| {
            let full = self.header.own(name).unwrap_or(derived);
            match self.header.own(&format!("{name}_swa")) {
                Some(of_window) if windowed => of_window,
                // Perhaps a windowed layer that is counted as a full one.
                Some(of_window) if unsure && self.pattern.is_none() => full.max(of_window),
                _ => full,
            }
        };
        (size("attention.key_length"), size("attention.value_length"))
    }

    fn is_windowed(&self, index: u64) -> bool {
        let known = || PERIODS.iter().any(|(family, _)| *family == self.header.architecture());
        match self.pattern.as_deref() {
            None => false,
            Some(_) if self.flags => at(&self.pattern, index).is_some_and(|flag| flag > 0),
            Some([0]) => true,
            Some([period]) if known() => index % period < period - 1,
            // Some families begin with the full layer: counted so, there are never too few of them.
            Some([period]) => !index.is_multiple_of(*period),
            Some(_) => false,
        }
    }

    /// The last layers of some families read the cache of earlier ones.
    fn borrows(&self, index: u64, count: u64) -> bool {
        let shares = matches!(self.header.architecture(), "gemma3n" | "gemma4");
        shares && index >= count.saturating_sub(self.own("attention.shared_kv_layers"))
    }
}

fn each(header: &Header, name: &str) -> Each {
    let mut numbers = header.numbers(&header.own_key(name)).filter(|numbers| !numbers.is_empty())?;
    numbers.truncate(MAX_LAYERS as usize);
    Some(numbers.into_iter().map(|number| u64::try_from(number).unwrap_or(0)).collect())
}

/// The number of a layer: the only one, or its own.
fn at(numbers: &Each, index: u64) -> Option<u64> {
    match numbers.as_deref()? {
        [all] => Some(*all),
        each => each.get(index as usize).copied(),
    }
}

/// What the layers of a hybrid or recurrent model keep.
struct Recurrence {
    /// Bytes a slot and layer.
    state: u64,
    /// Whether the header has numbers of a recurrence.
    named: bool,
    /// Which layers are recurrent, or that all are.
    flags: Each,
    /// Each so many-th layer attends, and the others are recurrent; 0: not said.
    interval: u64,
    /// Whether layers without heads are the recurrent ones.
    mixed: bool,
}

impl Recurrence {
    fn of(facts: &Facts<'_>) -> Self {
        let own = |name| facts.own(name);
        let product = |factors: &[u64]| factors.iter().fold(1_u64, |all, factor| all.saturating_mul(*factor));
        let heads = facts.most("attention.head_count");
        let (width, kernel) = (facts.width(), own("ssm.conv_kernel"));
        let (inner, size, groups) = (own("ssm.inner_size"), own("ssm.state_size"), own("ssm.group_count"));
        let (wkv, short, kda) = (own("wkv.head_size"), own("shortconv.l_cache"), own("kda.head_dim"));
        let named = [inner, size, wkv, short, kda].iter().any(|number| *number > 0);
        let elements = if wkv > 0 {
            // Two token shifts where the header does not say. Origin: `llama-hparams.h`.
            let shifts = facts.header.own("token_shift_count").unwrap_or(2);
            product(&[shifts, width]).saturating_add(product(&[width, wkv]))
        } else if short > 0 {
            product(&[width, short - 1]).saturating_add(product(&[size, inner]))
        } else if kda > 0 {
            let history = if kernel > 0 { kernel - 1 } else { 3 };
            product(&[3, history, heads, kda]).saturating_add(product(&[kda, kda, heads]))
        } else if named {
            let channels = inner.saturating_add(product(&[2, groups, size]));
            product(&[kernel.saturating_sub(1), channels]).saturating_add(product(&[size, inner]))
        } else {
            // Linear attention without numbers of its own: a square for each head.
            let head = facts.own("attention.key_length").max(width.checked_div(heads).unwrap_or(0));
            product(&[head, head, heads])
        };
        let mixed = facts.kv_heads.as_ref().is_some_and(|heads| heads.len() > 1 && heads.contains(&0));
        Self {
            state: elements.saturating_mul(STATE_BYTES),
            named,
            flags: each(facts.header, "attention.recurrent_layers"),
            interval: own("full_attention_interval"),
            mixed,
        }
    }

    /// Whether a layer keeps a state, and whether it attends.
    fn of_layer(&self, facts: &Facts<'_>, index: u64) -> (bool, bool) {
        let recurrent = match self.flags {
            Some(_) => at(&self.flags, index).is_some_and(|flag| flag > 0),
            None if self.interval > 0 => !(index + 1).is_multiple_of(self.interval),
            None => {
                let attends = at(&facts.kv_heads, index) != Some(0);
                // Nemotron-H's feed-forward layers have neither.
                let feeds = facts.header.architecture().starts_with("nemotron_h")
                    && at(&facts.feed_forward, index).is_some_and(|size| size > 0);
                // Where nothing tells layers apart they may be both, as Falcon-H1's are.
                return (self.named && !feeds && (!attends || !self.mixed), attends);
            }
        };
        (recurrent, !recurrent)
    }
}

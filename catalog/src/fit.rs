//! Whether a model fits a machine, term by term: arithmetic; must not read files or the machine, nor know engines.
//!
//! ```text
//! usable    = the machine's memory · share
//! workspace = usable · workspace share                  what computing takes in between
//! left      = usable − workspace − weights
//! reserve   = what an engine keeps beside one answer's keys and values: growth in steps, prompts of ended answers
//! it fits:    keys and values + reserve ≤ left
//! ```
//! It is the account of one answer that fills its context. An engine plans with more: `llama-server` is given slots, MLX
//! admits by bytes. Where they differ, theirs counts, and they say so when they load.

mod read;
#[cfg(test)]
mod tests;

pub use read::kv;

/// Element of a cached key or value. Unit: bytes. Origin: both engines keep 16 bits unless told otherwise; MLX on a CPU
/// keeps 32, twice of what is counted here.
const KV_ELEMENT_BYTES: u64 = 2;
/// A context below this is of no use. Unit: tokens. Origin: the floor of llama-server's plan in `runtime-gguf-bridge`.
const LEAST_CONTEXT: u32 = 512;
/// Shares are given in this many parts. Unit: 1.
const WHOLE: u64 = 1000;
/// What MLX stores beside the bits of a value. Unit: thousandths of a bit for each parameter. Origin: 32 bits of scale
/// and bias for each group of 64 values, mlx-lm's default.
const MLX_GROUP_MILLIBITS: u64 = 500;
/// Thousandths of a bit a parameter, by label. Origin: llama.cpp's table for Llama 3.1 8B in `tools/quantize/README.md`
/// as remembered; sizes differ by some percent between models. MXFP4: 4 bits, and 8 for each 32 values.
const LABELS: [(&str, u64); 17] = [
    ("Q2_K", 3160),
    ("Q3_K_S", 3640),
    ("Q3_K_M", 4000),
    ("Q3_K_L", 4300),
    ("IQ4_XS", 4460),
    ("Q4_0", 4660),
    ("Q4_1", 5150),
    ("Q4_K_S", 4670),
    ("Q4_K_M", 4890),
    ("Q5_K_S", 5570),
    ("Q5_K_M", 5700),
    ("Q6_K", 6560),
    ("Q8_0", 8500),
    ("F16", 16_000),
    ("BF16", 16_000),
    ("F32", 32_000),
    ("MXFP4", 4250),
];

/// Bytes of a model's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weights {
    /// So many.
    pub bytes: u64,
    /// Whether that is a guess from parameters and quantisation.
    pub estimated: bool,
}

/// What keys and values of one sequence cost. Unit: bytes for each token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kv {
    /// In layers that look back all the way.
    pub whole: u64,
    /// In layers that look back a window only.
    pub windowed: u64,
    /// That window, in tokens.
    pub window: u64,
}

/// How an engine parts the memory that it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Of the machine's memory, the part that models may take. Unit: thousandths.
    pub machine_share: u64,
    /// Of that, the part for what is computed in between. Unit: thousandths.
    pub workspace_share: u64,
    /// Of what weights and workspace leave, the part that one answer's keys and values can fill. Unit: thousandths.
    pub kv_share: u64,
}

/// A model, as far as memory is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Its weights.
    pub weights: Weights,
    /// Its keys and values; `None`: not known.
    pub kv: Option<Kv>,
    /// Most tokens of a sequence.
    pub context_tokens: u32,
}

/// The account, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// What the machine has.
    pub memory: u64,
    /// What models may take of it.
    pub usable: u64,
    /// The weights.
    pub weights: Weights,
    /// Keys and values of [`Self::context_tokens`]; `None`: not known.
    pub kv: Option<u64>,
    /// What the engine keeps beside them.
    pub reserve: u64,
    /// What computing takes.
    pub workspace: u64,
    /// The tokens that this account is for: the verdict's, or the fewest that are of use.
    pub context_tokens: u32,
    /// What comes out.
    pub verdict: Verdict,
}

/// Whether it fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// With all of its context.
    Whole,
    /// With this many tokens of it.
    Part(u32),
    /// The weights do. What a context costs is not known.
    Weights,
    /// Not by so many bytes, at the shortest context that is of use.
    Short(u64),
}

impl Verdict {
    /// Whether there is any use in loading it.
    pub fn fits(self) -> bool {
        !matches!(self, Self::Short(_))
    }
}

impl Kv {
    /// Of so many attending layers with so many elements a token each, keys and values together, of which `windowed`
    /// look back `window` tokens.
    pub fn of(elements: u64, layers: u32, windowed: u32, window: u32) -> Self {
        let windowed = if window == 0 { 0 } else { windowed.min(layers) };
        let layer = elements.saturating_mul(KV_ELEMENT_BYTES);
        Self {
            whole: layer.saturating_mul(u64::from(layers - windowed)),
            windowed: layer.saturating_mul(u64::from(windowed)),
            window: u64::from(window),
        }
    }

    /// Bytes of a sequence of so many tokens.
    pub fn at(self, tokens: u32) -> u64 {
        let tokens = u64::from(tokens);
        let windowed = self.windowed.saturating_mul(tokens.min(self.window));
        self.whole.saturating_mul(tokens).saturating_add(windowed)
    }

    /// Most tokens, up to `most`, that so many bytes hold.
    fn tokens_in(self, bytes: u64, most: u32) -> u32 {
        let within = bytes.checked_div(self.whole.saturating_add(self.windowed)).unwrap_or(u64::MAX);
        let tokens = if within < self.window {
            within
        } else {
            let beyond = bytes.saturating_sub(self.windowed.saturating_mul(self.window));
            beyond.checked_div(self.whole).unwrap_or(u64::MAX)
        };
        u32::try_from(tokens).unwrap_or(u32::MAX).min(most)
    }
}

impl Account {
    /// All terms together.
    pub fn total(&self) -> u64 {
        let terms = [self.weights.bytes, self.kv.unwrap_or(0), self.reserve, self.workspace];
        terms.iter().fold(0, |sum: u64, term| sum.saturating_add(*term))
    }
}

/// The account of a model on a machine with so many bytes of memory.
pub fn account(needs: Needs, rules: Rules, memory: u64) -> Account {
    let usable = part(memory, rules.machine_share);
    let workspace = part(usable, rules.workspace_share);
    let budget = usable.saturating_sub(workspace);
    let left = budget.checked_sub(needs.weights.bytes);
    // Enough for one answer of so many bytes, if the engine keeps its share beside them.
    let beside = |kv: u64| whole(kv, rules.kv_share).saturating_sub(kv);
    let least = needs.context_tokens.min(LEAST_CONTEXT);
    let (context_tokens, verdict) = match (needs.kv, left) {
        (Some(kv), left) => {
            let room = left.map_or(0, |left| part(left, rules.kv_share));
            let tokens = kv.tokens_in(room, needs.context_tokens);
            match left {
                Some(_) if tokens == needs.context_tokens => (tokens, Verdict::Whole),
                Some(_) if tokens >= least => (tokens, Verdict::Part(tokens)),
                _ => (least, Verdict::Short(0)),
            }
        }
        (None, Some(_)) => (least, Verdict::Weights),
        (None, None) => (least, Verdict::Short(0)),
    };
    let kv = needs.kv.map(|kv| kv.at(context_tokens));
    let reserve = kv.map_or(0, beside);
    let weights = needs.weights;
    let mut account = Account { memory, usable, weights, kv, reserve, workspace, context_tokens, verdict };
    if !verdict.fits() {
        account.verdict = Verdict::Short(account.total().saturating_sub(usable).max(1));
    }
    account
}

/// What so many weights stored like this take, about: from a label of GGUF (`Q4_K_M`), or from MLX's words (`4-bit`,
/// `MXFP4-Q8`, `bf16`). `None` where the words say nothing.
pub fn estimate(parameters: u64, quantization: &str) -> Option<Weights> {
    let millibits = millibits(quantization)?;
    let bytes = u128::from(parameters) * u128::from(millibits) / (8 * 1000);
    Some(Weights { bytes: u64::try_from(bytes).unwrap_or(u64::MAX), estimated: true })
}

fn millibits(quantization: &str) -> Option<u64> {
    if let Some((bits, _)) = quantization.split_once("-bit") {
        let bits: u64 = bits.parse().ok().filter(|bits| (2..=8).contains(bits))?;
        return Some(bits * 1000 + MLX_GROUP_MILLIBITS);
    }
    // `MXFP4-Q8` names first what most of the weights are; what is beside it is small.
    let label = |text: &str| LABELS.iter().find(|(label, _)| label.eq_ignore_ascii_case(text)).map(|(_, bits)| *bits);
    label(quantization).or_else(|| label(quantization.split('-').next()?))
}

/// So many thousandths of it.
fn part(bytes: u64, share: u64) -> u64 {
    // No larger than `bytes`, so it fits.
    (u128::from(bytes) * u128::from(share.min(WHOLE)) / u128::from(WHOLE)) as u64
}

/// That of which it is so many thousandths, rounded up.
fn whole(bytes: u64, share: u64) -> u64 {
    let found = (u128::from(bytes) * u128::from(WHOLE)).div_ceil(u128::from(share.clamp(1, WHOLE)));
    u64::try_from(found).unwrap_or(u64::MAX)
}

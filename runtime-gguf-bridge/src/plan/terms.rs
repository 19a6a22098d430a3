//! What a model would be given before anything is started, term by term: the plan, told; must not know the machine.

use catalog::gguf::Header;

use super::{Machine, PlanError, Shape, Sizes, Wishes, cells, of_shape, with_cache};
use crate::arguments::KvBits;

/// What llama-server would be given of RAM alone. Sizes are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// Tokens of a slot: of the plan, or the fewest that are of use.
    pub context_tokens: u32,
    /// What the model was trained for.
    pub trained_tokens: u32,
    /// Slots, at least one.
    pub slots: u32,
    /// All tensors.
    pub weight_bytes: u64,
    /// Keys, values and states of all slots.
    pub kv_bytes: u64,
    /// The same a token, of a full slot.
    pub kv_bytes_per_token: u64,
    /// Activations, masks, logits, the process.
    pub workspace_bytes: u64,
    /// Prompts of ended requests.
    pub cache_bytes: u64,
    /// What is missing for one slot; 0: it fits.
    pub missing_bytes: u64,
}

impl Account {
    /// All terms together.
    pub fn total(&self) -> u64 {
        let terms = [self.kv_bytes, self.workspace_bytes, self.cache_bytes];
        terms.iter().fold(self.weight_bytes, |sum, term| sum.saturating_add(*term))
    }
}

/// The account of a model whose parts have these headers, with at most `parallel` slots in so many bytes of RAM: the plan by
/// which it would be started without a GPU and without wishes.
///
/// # Errors
/// When there is no part.
pub fn account(parts: &[Header], parallel: u32, memory: u64) -> Result<Account, PlanError> {
    if parts.is_empty() {
        return Err(PlanError::NoFile);
    }
    of(&Shape::of(parts), parallel, memory)
}

pub(super) fn of(shape: &Shape, parallel: u32, memory: u64) -> Result<Account, PlanError> {
    let wishes = Wishes { context_tokens: None, parallel, kv_bits: None, gpu_layers: None, max_memory: None };
    let kv = KvBits::default();
    let sizes = Sizes { shape, kv, parallel: u64::from(parallel.max(1)), asked: None, copies: false };
    let fixed = shape.weights.saturating_add(shape.compute);
    let (context, slots, cache, missing) = match of_shape(shape, &wishes, &Machine { memory, devices: Vec::new() }) {
        Ok(plan) => {
            let cache = with_cache(&sizes, memory.saturating_sub(fixed)).0;
            (u64::from(plan.context_tokens), u64::from(plan.slots), cache, 0)
        }
        Err(PlanError::TooSmall { context, missing, .. }) => (context, 1, 0, missing),
        Err(other) => return Err(other),
    };
    let slot = shape.slot(context, kv);
    let kv_bytes = slot.saturating_mul(slots);
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Ok(Account {
        context_tokens: narrow(context),
        trained_tokens: narrow(shape.trained),
        slots: narrow(slots),
        weight_bytes: shape.weights,
        kv_bytes,
        kv_bytes_per_token: slot.div_ceil(cells(context).max(1)),
        workspace_bytes: shape.compute.saturating_add(sizes.total(context, slots).saturating_sub(kv_bytes)),
        cache_bytes: cache,
        missing_bytes: missing,
    })
}

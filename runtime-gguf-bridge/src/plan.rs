//! How large a context, how many slots and how many layers on the GPU: arithmetic; must not read files or the machine.
//!
//! ```text
//! memory ≥ weights + compute + cache + slots · slot(context) + mask(context)
//! compute = 512 tokens · activations + 64 MiB + 256 B · words            [`shape`]
//! slot    = Σ layers (keys + values) · cells + recurrent state + logits   cells: context, or window + 512, by 256
//! mask    = 1 KiB · cells                                                 measured: f16, 512 rows
//!           and where a text is read in one piece: as many rows as its context, and their activations
//! cache   = a tenth of what weights and compute leave: prompts of ended requests, in llama-server's RAM
//! ```
//! A projector's and a draft model's bytes are none of these: the caller takes them off the memory first.

mod shape;
mod terms;
#[cfg(test)]
mod tests;

use bytesize::ByteSize;
use catalog::gguf::Header;
use thiserror::Error;

pub(crate) use crate::arguments::KvBits;
use crate::server::Device;
use shape::{MICRO_BATCH, Shape, cells};
pub use terms::{Account, account};

/// A context that nobody asked for is not cut below this. Unit: tokens. Origin: guess; a question and an answer.
const FLOOR: u64 = 512;
/// Slots that a context which nobody asked for is shared by. Origin: llama-server's own default of `--parallel`.
const SHARERS: u64 = 4;
/// A model whose weights leave the GPU no room for this context lies partly in RAM instead. Unit: tokens. Guess.
const WORTHWHILE: u64 = 4096;
/// Part of what weights and compute leave that ended requests' prompts may take, and its most. Unit of the latter:
/// bytes. Origin: the issue; llama-server's default of `--cache-ram`.
const CACHE_PART: u64 = 10;
const MAX_CACHE: u64 = 8 << 30;
/// Most states kept to go back to, of models that cannot forget single tokens. Origin: `--ctx-checkpoints`' default.
const MAX_CHECKPOINTS: u64 = 32;
/// Left free on each device: contexts, kernels, the desktop. Unit: bytes, and part of what is free where that is less.
/// Origin: `--fit-target`'s default.
const DEVICE_MARGIN: u64 = 1 << 30;
const DEVICE_MARGIN_PART: u64 = 8;
/// A row of attention's mask is f16. Origin: measured (see the tests): 1 KiB a cell.
const MASK_BYTES: u64 = 2;
/// Logits of a slot: computed, and copied for sampling. Unit: bytes a word.
const LOGIT_BYTES: u64 = 8;
/// More than any machine has, so that sums which saturate are never taken for what fits. Unit: bytes.
const MAX_MEMORY: u64 = 1 << 60;
/// Rounds that fit whole layers into two memories.
const ROUNDS: u32 = 64;

/// What was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Wishes {
    /// Tokens a slot; at most what the model was trained for.
    pub(crate) context_tokens: Option<u32>,
    /// Most slots.
    pub(crate) parallel: u32,
    /// How keys and values are stored.
    pub(crate) kv_bits: Option<KvBits>,
    /// As llama-server counts them: the output, then layers from the last one down.
    pub(crate) gpu_layers: Option<u32>,
    /// Bytes in RAM and on devices together; stands in for the machine's memory.
    pub(crate) max_memory: Option<u64>,
}

/// What there is.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// Bytes of RAM that this model may take.
    pub(crate) memory: u64,
    /// GPUs, and what else llama-server lists.
    pub(crate) devices: Vec<Device>,
}

/// llama-server's sizes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Tokens a slot: `--ctx-size` is this times `slots`.
    pub(crate) context_tokens: u32,
    /// `--parallel`, at least 1.
    pub(crate) slots: u32,
    /// `--cache-type-k`, `--cache-type-v`.
    pub(crate) kv: KvBits,
    /// `--gpu-layers`: 0 without devices, layers + 1 for all.
    pub(crate) gpu_layers: u32,
    /// `--cache-ram`.
    pub(crate) prompt_cache_mib: u32,
    /// `--ctx-checkpoints`: of models with windows or recurrent state, a slot. llama-server's own 32 may take gigabytes.
    pub(crate) checkpoints: u32,
    /// Bytes of KV cache and state a token, of a full slot: windows and states make it less than the layers' sum.
    pub(crate) kv_bytes_per_token: u64,
    /// Bytes of KV cache and state that llama-server allocates for all slots.
    pub(crate) kv_budget_bytes: u64,
    /// Bytes of all tensors.
    pub(crate) weight_bytes: u64,
    /// `--batch-size` and `--ubatch-size`, of models that read a text in one piece.
    pub(crate) whole_texts: Option<u32>,
}

/// Why a model cannot be served here. One line, with what to do.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PlanError {
    /// There was no file.
    #[error("there is no GGUF file to serve")]
    NoFile,
    /// Memory is short.
    #[error(
        "this model needs {} ({} of weights, {} to compute, {} for {context} tokens of context), and {} may be used: {} \
         are missing; raise --max-memory, lower --ctx-size, store keys and values smaller with --kv-bits, or take a \
         smaller quantisation",
        human(.weights.saturating_add(*compute).saturating_add(*slot)), human(*weights), human(*compute), human(*slot),
        human(*available), human(*missing)
    )]
    TooSmall {
        /// Bytes of all tensors.
        weights: u64,
        /// Bytes for activations and the process.
        compute: u64,
        /// Bytes of one slot.
        slot: u64,
        /// Its tokens.
        context: u64,
        /// Bytes that there are.
        available: u64,
        /// Bytes that there are not.
        missing: u64,
    },
    /// Keys of this size cannot be quantised.
    #[error(
        "--kv-bits: this model's heads of {0} values are no whole blocks of 32, so they stay at 16 bits: leave it out"
    )]
    OddHead(u64),
}

fn human(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

/// Sizes for a model whose parts have these headers.
pub(crate) fn plan(parts: &[Header], wishes: &Wishes, machine: &Machine) -> Result<Plan, PlanError> {
    if parts.is_empty() {
        return Err(PlanError::NoFile);
    }
    of_shape(&Shape::of(parts), wishes, machine)
}

fn of_shape(shape: &Shape, wishes: &Wishes, machine: &Machine) -> Result<Plan, PlanError> {
    let kv = wishes.kv_bits.unwrap_or_default();
    if let Some(head) = shape.odd_head(kv) {
        return Err(PlanError::OddHead(head));
    }
    let devices: Vec<&Device> = machine.devices.iter().filter(|device| device.total > 0).collect();
    let most = u64::from(u32::MAX);
    let all = (shape.layers.len() as u64).saturating_add(1).min(most);
    let sizes = Sizes {
        shape,
        kv,
        parallel: u64::from(wishes.parallel.max(1)),
        asked: wishes.context_tokens.map(u64::from),
        copies: !devices.is_empty() && kv != KvBits::F16,
    };
    let memory = wishes.max_memory.unwrap_or(machine.memory).min(MAX_MEMORY);
    let room = devices.iter().map(|device| device.free - (device.free / DEVICE_MARGIN_PART).min(DEVICE_MARGIN));
    let room = room.fold(0_u64, u64::saturating_add).min(wishes.max_memory.unwrap_or(MAX_MEMORY)).min(MAX_MEMORY);
    let place = Place {
        memory,
        room,
        devices: devices.len() as u64,
        unified: devices.iter().any(|device| is_unified(&device.name)),
        capped: wishes.max_memory.is_some(),
        all,
    };
    match wishes.gpu_layers.map(|layers| u64::from(layers).min(all)) {
        _ if devices.is_empty() => place.in_ram(&sizes),
        Some(0) => place.in_ram(&sizes),
        Some(layers) if layers == all => place.on_devices(&sizes, 1),
        Some(layers) => place.on_both(&sizes, Some(layers)),
        None => {
            let wanted = sizes.asked.unwrap_or(WORTHWHILE).min(shape.trained);
            place.on_devices(&sizes, wanted).or_else(|_| place.on_both(&sizes, None))
        }
    }
}

/// Apple's GPUs have the machine's own memory. Origin: names of ggml's Metal back end, new and old.
fn is_unified(device: &str) -> bool {
    device.starts_with("MTL") || device.starts_with("Metal")
}

/// What contexts and slots cost.
struct Sizes<'a> {
    shape: &'a Shape,
    kv: KvBits,
    parallel: u64,
    asked: Option<u64>,
    /// Whether one layer's keys and values are unpacked at a time, as GPUs do with quantised ones.
    copies: bool,
}

impl Sizes<'_> {
    fn slot(&self, context: u64) -> u64 {
        let logits = self.shape.vocabulary.saturating_mul(LOGIT_BYTES);
        self.shape.slot(context, self.kv).saturating_add(logits)
    }

    /// Bytes beside slots.
    fn shared(&self, context: u64, slots: u64) -> u64 {
        let rows = if self.shape.whole { context } else { MICRO_BATCH };
        let mask = cells(context).saturating_mul(rows.saturating_mul(MASK_BYTES));
        let more = self.shape.token.saturating_mul(rows.saturating_sub(MICRO_BATCH));
        let largest = self.shape.layers.iter().map(|layer| layer.slot(context, KvBits::F16)).max();
        let copy = if self.copies { largest.unwrap_or(0).saturating_mul(slots) } else { 0 };
        mask.saturating_add(more).saturating_add(copy)
    }

    fn total(&self, context: u64, slots: u64) -> u64 {
        self.slot(context).saturating_mul(slots).saturating_add(self.shared(context, slots))
    }

    /// How many slots of so many tokens `budget` holds.
    fn slots(&self, budget: u64, context: u64) -> u64 {
        let fits = |slots: u64| self.total(context, slots) <= budget;
        if fits(self.parallel) { self.parallel } else { last(0, self.parallel, fits) }
    }

    /// The context of a slot when there is hardly any memory.
    fn least(&self) -> u64 {
        self.asked.unwrap_or(FLOOR).min(self.shape.trained).max(1)
    }

    /// Context and slots.
    fn fit(&self, budget: u64) -> Option<(u64, u64)> {
        let least = self.least();
        let mut context = least;
        if self.asked.is_none() {
            let sharers = self.parallel.min(SHARERS);
            let fits = |context: u64| self.total(context, sharers) <= budget;
            let most = self.shape.unasked();
            if fits(most) {
                context = most;
            } else {
                // In steps in which cells are allocated: in between nothing is saved.
                let step = cells(1);
                context = last(least / step, most / step, |steps| fits(steps * step)) * step;
            }
        }
        let context = context.max(least);
        let slots = self.slots(budget, context);
        (slots > 0).then_some((context, slots))
    }
}

/// The last of `from..to` for which `holds`, if it holds for those before it; `from` where it holds for none.
fn last(from: u64, to: u64, holds: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (from, to.max(from));
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if holds(middle) { low = middle } else { high = middle }
    }
    if high > low && holds(high) { high } else { low }
}

/// Where a model can lie.
struct Place {
    /// Bytes of RAM.
    memory: u64,
    /// Bytes on all devices.
    room: u64,
    devices: u64,
    /// Whether those are the same bytes.
    unified: bool,
    /// Whether RAM and devices together have a limit, which is then `memory`.
    capped: bool,
    /// Layers, and the output.
    all: u64,
}

impl Place {
    fn in_ram(&self, sizes: &Sizes<'_>) -> Result<Plan, PlanError> {
        let fixed = sizes.shape.weights.saturating_add(sizes.shape.compute);
        let left = self.memory.saturating_sub(fixed);
        let (cache, budget) = with_cache(sizes, left);
        match sizes.fit(budget).filter(|_| fixed <= self.memory) {
            Some(chosen) => Ok(finish(sizes, chosen, 0, cache)),
            None => Err(too_small(sizes, self.memory, 0)),
        }
    }

    /// All layers on devices, if a slot of `wanted` tokens fits there beside them.
    fn on_devices(&self, sizes: &Sizes<'_>, wanted: u64) -> Result<Plan, PlanError> {
        let room = if self.unified { self.room.min(self.memory) } else { self.room };
        let fixed = sizes.shape.weights.saturating_add(self.on_device(sizes));
        let left = room.saturating_sub(fixed);
        let (cache, budget) = if self.unified || self.capped {
            with_cache(sizes, left)
        } else {
            (cache_of(self.memory.saturating_sub(sizes.shape.compute)), left)
        };
        match sizes.fit(budget).filter(|_| fixed <= room && sizes.slots(budget, wanted) > 0) {
            Some(chosen) => Ok(finish(sizes, chosen, self.all, cache)),
            None => Err(too_small(sizes, room, 0)),
        }
    }

    /// Layers in RAM and on devices; `None`: as many there as fit.
    fn on_both(&self, sizes: &Sizes<'_>, layers: Option<u64>) -> Result<Plan, PlanError> {
        let together = match (self.unified, self.capped) {
            (false, false) => self.memory.saturating_add(self.room),
            _ => self.memory,
        };
        let device = self.on_device(sizes);
        let weights = sizes.shape.weights.saturating_add(sizes.shape.copied);
        let fixed = weights.saturating_add(sizes.shape.compute).saturating_add(device);
        let (cache, mut budget) = with_cache(sizes, together.saturating_sub(fixed));
        let mut missing = fixed.saturating_sub(together);
        for _ in 0..ROUNDS {
            let Some((context, slots)) = sizes.fit(budget).filter(|_| missing < together) else { break };
            let cached = sizes.shape.slot(context, sizes.kv).saturating_mul(slots);
            let beside = sizes.total(context, slots).saturating_sub(cached);
            let device = device.saturating_add(beside);
            let layers = layers.unwrap_or_else(|| sizes.layers_in(self.room.saturating_sub(device), context, slots));
            let there = sizes.bytes_of(layers, context, slots).saturating_add(device);
            let everything = cached.saturating_add(weights).saturating_add(device);
            let here = everything.saturating_sub(there).saturating_add(sizes.shape.compute);
            let here = here.saturating_add(beside).saturating_add(cache);
            missing = (there.saturating_sub(self.room)).max(if self.unified || self.capped {
                here.saturating_add(there).saturating_sub(together)
            } else {
                here.saturating_sub(self.memory)
            });
            if missing == 0 {
                return Ok(finish(sizes, (context, slots), layers, cache));
            }
            // Whole layers leave gaps on both sides.
            let Some(less) = sizes.total(context, slots).checked_sub(missing) else { break };
            budget = less;
        }
        Err(too_small(sizes, together, missing))
    }

    /// What each device takes beside layers: its own buffers, and the gap that whole layers leave.
    fn on_device(&self, sizes: &Sizes<'_>) -> u64 {
        let layer = sizes.shape.layers.iter().map(|layer| layer.weights).max().unwrap_or(0);
        let gaps = layer.saturating_mul(self.devices.saturating_sub(1));
        sizes.shape.compute.saturating_mul(self.devices).saturating_add(gaps)
    }
}

impl Sizes<'_> {
    /// Bytes of the first so many of `--gpu-layers`.
    fn bytes_of(&self, layers: u64, context: u64, slots: u64) -> u64 {
        self.costs(context, slots).take(layers as usize).fold(0, u64::saturating_add)
    }

    /// How many of `--gpu-layers` a device holds.
    fn layers_in(&self, room: u64, context: u64, slots: u64) -> u64 {
        let mut used = 0_u64;
        let fits = self.costs(context, slots).take_while(|cost| {
            used = used.saturating_add(*cost);
            used <= room
        });
        fits.count() as u64
    }

    /// The output, then layers from the last one down, as llama.cpp hands them out.
    fn costs(&self, context: u64, slots: u64) -> impl Iterator<Item = u64> {
        let layers = self.shape.layers.iter().rev();
        let cost = move |layer: &shape::Layer| {
            layer.slot(context, self.kv).saturating_mul(slots).saturating_add(layer.weights)
        };
        std::iter::once(self.shape.output).chain(layers.map(cost))
    }
}

fn cache_of(left: u64) -> u64 {
    (left / CACHE_PART).min(MAX_CACHE)
}

/// Parts what is left between prompts of ended requests and slots; a slot goes first.
fn with_cache(sizes: &Sizes<'_>, left: u64) -> (u64, u64) {
    let cache = cache_of(left);
    if sizes.fit(left - cache).is_some() { (cache, left - cache) } else { (0, left) }
}

fn too_small(sizes: &Sizes<'_>, available: u64, gap: u64) -> PlanError {
    let (weights, compute, context) = (sizes.shape.weights, sizes.shape.compute, sizes.least());
    let slot = sizes.total(context, 1);
    let needed = weights.saturating_add(compute).saturating_add(slot);
    // Devices' own buffers and gaps may be what is missing, where the sum would fit.
    let missing = needed.saturating_sub(available).max(gap).max(1);
    PlanError::TooSmall { weights, compute, slot, context, available, missing }
}

fn finish(sizes: &Sizes<'_>, (context, slots): (u64, u64), gpu_layers: u64, cache: u64) -> Plan {
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let slot = sizes.shape.slot(context, sizes.kv);
    // A state to go back to holds what cannot be cut: windows, and recurrent states.
    let mut bounded = sizes.shape.layers.iter().filter(|layer| layer.window.is_some() || layer.state > 0);
    let state = |layer: &shape::Layer| layer.window.map_or(layer.state, |_| layer.slot(context, sizes.kv));
    let one = bounded.by_ref().fold(0, |sum: u64, layer| sum.saturating_add(state(layer)));
    let all_slots = one.saturating_mul(slots);
    let checkpoints = (cache / 2).checked_div(all_slots).unwrap_or(0).min(MAX_CHECKPOINTS);
    let prompts = cache.saturating_sub(checkpoints.saturating_mul(all_slots));
    Plan {
        context_tokens: narrow(context),
        slots: narrow(slots),
        kv: sizes.kv,
        gpu_layers: narrow(gpu_layers),
        prompt_cache_mib: narrow(prompts >> 20),
        checkpoints: narrow(checkpoints),
        kv_bytes_per_token: slot.div_ceil(cells(context).max(1)),
        kv_budget_bytes: slot.saturating_mul(slots),
        weight_bytes: sizes.shape.weights,
        whole_texts: sizes.shape.whole.then(|| narrow(context)),
    }
}

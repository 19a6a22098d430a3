//! How much memory a model may take, and for what; must not know models.

use crate::{error::MlxError, load::human, sys};

/// Share of the machine's memory that the node takes unasked. Guess: leaves room for the system and the person's
/// own programs. `--max-memory` overrides it.
const DEFAULT_SHARE: f64 = 0.8;

/// Share of the budget kept free for what a step computes in between. Guess; measured peaks lie well below it.
const WORKSPACE_SHARE: f64 = 0.1;

/// Of what weights and workspace leave, the part for ended sequences' KV.
const PREFIX_SHARE: f64 = 0.25;

/// Rows and slots are allocated in powers of two, so allocated KV may be this many times the tokens held.
const ALLOCATION_FACTOR: u64 = 2;

/// Bytes that weights and caches may take together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    total: u64,
}

/// What weights and workspace leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Split {
    /// For open sequences, counted in tokens held.
    pub(crate) kv: u64,
    /// For ended ones.
    pub(crate) prefix: u64,
}

impl Budget {
    /// `--max-memory`, or one of `sharers`' parts of what the device (GPU) or the machine and its control group (CPU)
    /// have. Sharers that load later find less free than the first one did, so parts are never too large together.
    pub(crate) fn new(max_memory: Option<u64>, sharers: u32) -> Result<Self, MlxError> {
        let total = match max_memory {
            Some(bytes) => bytes,
            None => (available()? as f64 * DEFAULT_SHARE / f64::from(sharers.max(1))) as u64,
        };
        Ok(Self { total })
    }

    fn for_weights(&self) -> u64 {
        (self.total as f64 * (1.0 - WORKSPACE_SHARE)) as u64
    }

    pub(crate) fn holds_weights(&self, bytes: u64) -> bool {
        bytes <= self.for_weights()
    }

    pub(crate) fn check_weights(&self, bytes: u64) -> Result<(), MlxError> {
        if self.holds_weights(bytes) {
            return Ok(());
        }
        Err(MlxError::DoesNotFit(format!(
            "the weights need {}, and {} of {} may be used for them: serve a smaller model or raise --max-memory",
            human(bytes),
            human(self.for_weights()),
            human(self.total)
        )))
    }

    /// Keeps MLX from holding on to every buffer that it ever freed: on a GPU its own limit is all of the memory, and a
    /// server's shapes change with each step.
    pub(crate) fn limit_buffer_cache(&self) -> Result<(), MlxError> {
        if sys::on_gpu() {
            let workspace = (self.total as f64 * WORKSPACE_SHARE) as usize;
            mlx_rs::memory::set_cache_limit(workspace)?;
        }
        Ok(())
    }

    pub(crate) fn split(&self, weights: u64) -> Split {
        let rest = self.for_weights().saturating_sub(weights);
        let prefix = (rest as f64 * PREFIX_SHARE) as u64;
        Split { kv: (rest - prefix) / ALLOCATION_FACTOR, prefix }
    }
}

/// Bytes that this process could still get.
fn available() -> Result<u64, MlxError> {
    if sys::on_gpu()
        && let Ok(limit) = mlx_rs::memory::memory_limit()
    {
        return Ok(limit as u64);
    }
    let mut system = sysinfo::System::new()
        .map_err(|e| MlxError::DoesNotFit(format!("this machine does not tell its memory ({e}): pass --max-memory")))?;
    system.refresh_memory();
    let machine = system.available_memory();
    Ok(match system.cgroup_limits() {
        Some(group) if group.total_memory > 0 => machine.min(group.free_memory),
        _ => machine,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_split_without_exceeding_it() {
        let budget = Budget::new(Some(1000), 1).unwrap();
        assert!(budget.holds_weights(900) && !budget.holds_weights(901));
        assert!(budget.check_weights(901).unwrap_err().to_string().contains("--max-memory"));
        let split = budget.split(500);
        assert_eq!(split, Split { kv: 150, prefix: 100 });
        assert!(500 + split.kv * ALLOCATION_FACTOR + split.prefix <= 900);
    }

    #[test]
    fn the_machine_has_some_memory() {
        assert!(available().unwrap() > 1 << 20);
    }
}

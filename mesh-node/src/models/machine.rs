//! How much memory this machine has; must not know what it is for.

use serde::Serialize;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// This machine's memory, or what its control group leaves of it. A graphics card's own memory is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Unit: bytes. `None`: the system does not tell.
    pub total_bytes: Option<u64>,
    /// Of that, what nobody uses now. Unit: bytes.
    pub free_bytes: Option<u64>,
}

impl Memory {
    pub(super) fn of_this_machine() -> Self {
        let memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
        let Ok(system) = System::new_with_specifics(memory) else {
            return Self { total_bytes: None, free_bytes: None };
        };
        let (mut total, mut free) = (system.total_memory(), system.available_memory());
        if let Some(group) = system.cgroup_limits().filter(|group| group.total_memory > 0) {
            total = total.min(group.total_memory);
            free = free.min(group.free_memory);
        }
        Self { total_bytes: Some(total).filter(|total| *total > 0), free_bytes: Some(free) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_some_and_not_more_free_than_it_has() {
        let Memory { total_bytes: Some(total), free_bytes: Some(free) } = Memory::of_this_machine() else { panic!() };
        assert!(total > 1 << 26 && free <= total, "{free} of {total}");
    }
}

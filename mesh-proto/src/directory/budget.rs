//! How much one peer may cost; must not know what it costs it for.

use crate::time::Millis;

/// A bucket of bytes that fills with time. One frame may overdraw it, and what it overdrew is owed.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    per_second: u64,
    burst: u64,
    /// Below zero: owed.
    left: i64,
    at: Millis,
}

impl Budget {
    pub(super) fn new(per_second: u64, burst: u64, now: Millis) -> Self {
        Self { per_second, burst, left: signed(burst), at: now }
    }

    /// Whether anything is left; then takes `bytes`.
    pub(super) fn take(&mut self, bytes: u64, now: Millis) -> bool {
        let gained = now.since(self.at).0.saturating_mul(self.per_second) / 1000;
        if gained > 0 {
            self.left = self.left.saturating_add(signed(gained)).min(signed(self.burst));
            self.at = now;
        }
        if self.left <= 0 {
            return false;
        }
        self.left = self.left.saturating_sub(signed(bytes));
        true
    }

    /// Takes `bytes` of what was let in already.
    pub(super) fn owe(&mut self, bytes: u64) {
        self.left = self.left.saturating_sub(signed(bytes));
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

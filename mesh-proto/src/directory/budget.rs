//! How much one peer may cost; must not know what it costs it for.

use crate::time::Millis;

/// A bucket of bytes that fills with time. May be overdrawn once, by one frame.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    per_second: u64,
    burst: u64,
    left: u64,
    at: Millis,
}

impl Budget {
    pub(super) fn new(per_second: u64, burst: u64, now: Millis) -> Self {
        Self { per_second, burst, left: burst, at: now }
    }

    /// Whether anything is left; then takes `bytes`, or all.
    pub(super) fn take(&mut self, bytes: u64, now: Millis) -> bool {
        let gained = now.since(self.at).0.saturating_mul(self.per_second) / 1000;
        if gained > 0 {
            self.left = self.left.saturating_add(gained).min(self.burst);
            self.at = now;
        }
        if self.left == 0 {
            return false;
        }
        self.left = self.left.saturating_sub(bytes);
        true
    }
}

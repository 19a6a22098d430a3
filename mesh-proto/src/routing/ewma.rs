//! Latency that believes bad news at once and good news slowly; must not know what was measured.

use crate::time::Millis;

/// Good news counts half after this long. Unit: seconds. Default: 10. Origin: Finagle's and linkerd's peak EWMA
/// decay over 10 s. Cost of more: a node that recovered is shunned longer.
pub const EWMA_HALF_LIFE: Millis = Millis::secs(10);

/// What is assumed of a node never asked. Unit: milliseconds. Default: 50. Origin: below most measured times to a
/// first token, so that a new node is tried. Cost of less: newcomers are swamped.
pub const UNKNOWN_LATENCY: Millis = Millis(50);

/// A moving peak of a latency in milliseconds (Finagle's "peak EWMA").
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PeakEwma {
    value: f64,
    at: Option<Millis>,
}

impl PeakEwma {
    /// Takes one measurement: a slower one stands as it is, a faster one pulls the value towards itself the
    /// more, the longer the last one is ago.
    pub fn observe(&mut self, latency: Millis, now: Millis) {
        let latency = latency.0 as f64;
        self.value = match self.at {
            Some(at) if latency < self.value => {
                let keep = (-(now.since(at).0 as f64) / EWMA_HALF_LIFE.0 as f64).exp2();
                self.value * keep + latency * (1.0 - keep)
            }
            _ => latency,
        };
        self.at = Some(self.at.map_or(now, |at| at.max(now)));
    }

    /// Milliseconds, as of the last measurement; [`UNKNOWN_LATENCY`] before the first.
    pub fn millis(&self) -> f64 {
        if self.at.is_some() { self.value } else { UNKNOWN_LATENCY.0 as f64 }
    }

    /// Whether anything was ever measured.
    pub fn is_known(&self) -> bool {
        self.at.is_some()
    }
}

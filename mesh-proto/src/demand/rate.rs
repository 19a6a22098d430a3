//! A request rate that forgets exponentially; must not know what is counted.

use crate::time::Millis;

/// After this long without requests a rate has halved. Unit: seconds. Default: 60. Origin: guess, between a
/// model's load time (seconds) and the down-hysteresis (minutes). Cost of more: a burst is noticed later;
/// of less: a rare user's model looks unwanted between two questions.
pub const HALF_LIFE: Millis = Millis::secs(60);

/// Requests per second, the last [`HALF_LIFE`] counting most. A time before the last one counts
/// as no time passed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DecayedRate {
    weight: f64,
    at: Millis,
}

impl DecayedRate {
    /// Counts `requests` at `now`.
    pub fn count(&mut self, requests: u32, now: Millis) {
        self.weight = self.weight_at(now) + f64::from(requests);
        self.at = self.at.max(now);
    }

    /// Requests per second as of `now`: for a steady stream this settles at its true rate.
    pub fn per_second(&self, now: Millis) -> f64 {
        self.weight_at(now) * std::f64::consts::LN_2 / (HALF_LIFE.0 as f64 / 1000.0)
    }

    fn weight_at(&self, now: Millis) -> f64 {
        self.weight * decay(now.since(self.at))
    }
}

/// What is left of one after `elapsed`, in (0, 1].
pub(super) fn decay(elapsed: Millis) -> f64 {
    (-(elapsed.0 as f64) / HALF_LIFE.0 as f64).exp2()
}

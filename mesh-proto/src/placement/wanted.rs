//! How many hosts a demand wants, up quickly and down slowly; must not know nodes.

use crate::{demand::UNWANTED_BELOW, time::Millis};

/// What one host is planned to carry. Unit: requests per second. Default: 2. Origin: guess, eight places with
/// answers of four seconds. Cost of less: more copies of a model in memory; of more: longer queues.
pub const HOST_RATE: f64 = 2.0;

/// Most hosts of one model. Unit: hosts. Default: 8. Origin: guess. Cost: bounds what lies about demand can waste.
pub const MAX_HOSTS: u8 = 8;

/// Demand must exceed the hosts this long before another is added; the first one comes at once. Unit: seconds.
/// Default: 3. Origin: a burst's first retry is over by then. Cost: that much queueing at the start of a rush.
pub const UP_HOLD: Millis = Millis::secs(3);

/// Demand must fit fewer hosts this long before one is dropped. Unit: seconds. Default: 300. Origin: guess, some
/// fifty times a load. Cost: memory held that long after a rush.
pub const DOWN_HOLD: Millis = Millis::secs(300);

/// A host is dropped only where the others could carry this many times the demand. Unit: none. Default: 1.5.
/// Origin: the gap between up and down that keeps a steady demand from ever moving a host.
pub const DOWN_MARGIN: f64 = 1.5;

/// A model nobody asks for keeps its last host this long. Unit: seconds. Default: 1800. Origin: a lunch break.
/// Cost: memory; a node that needs it sooner unloads by its own judgement.
pub const IDLE_HOLD: Millis = Millis::secs(1800);

/// The number of hosts a model should have, with memory for hysteresis.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Wanted {
    hosts: u8,
    above_since: Option<Millis>,
    below_since: Option<Millis>,
}

impl Wanted {
    /// Hosts wanted, as of the last update.
    pub fn hosts(&self) -> u8 {
        self.hosts
    }

    /// Takes the demand in requests per second as of `now`.
    pub fn update(&mut self, per_second: f64, now: Millis) {
        let up = needed(per_second);
        let down = needed(per_second * DOWN_MARGIN);
        if up > self.hosts {
            self.below_since = None;
            let since = *self.above_since.get_or_insert(now);
            if self.hosts == 0 || now.since(since) >= UP_HOLD {
                self.hosts = if self.hosts == 0 { 1 } else { up };
                self.above_since = None;
            }
        } else if down < self.hosts {
            self.above_since = None;
            let since = *self.below_since.get_or_insert(now);
            let hold = if self.hosts == 1 { IDLE_HOLD } else { DOWN_HOLD };
            if now.since(since) >= hold {
                self.hosts -= 1;
                self.below_since = None;
            }
        } else {
            self.above_since = None;
            self.below_since = None;
        }
    }

    /// A host left by its own judgement that there are too many. Following it keeps nodes whose timers
    /// differ by a moment from filling the place again.
    pub fn follow_down(&mut self, hosts: u8) {
        if hosts < self.hosts {
            self.hosts = hosts;
            self.below_since = None;
        }
    }

    /// When [`Wanted::update`] with an unchanged demand will change something.
    pub fn next_wakeup(&self) -> Option<Millis> {
        let hold = if self.hosts == 1 { IDLE_HOLD } else { DOWN_HOLD };
        let up = self.above_since.map(|since| since + UP_HOLD);
        let down = self.below_since.map(|since| since + hold);
        up.into_iter().chain(down).min()
    }
}

fn needed(per_second: f64) -> u8 {
    if per_second.is_nan() || per_second < UNWANTED_BELOW {
        return 0;
    }
    (per_second / HOST_RATE).ceil().clamp(1.0, f64::from(MAX_HOSTS)) as u8
}

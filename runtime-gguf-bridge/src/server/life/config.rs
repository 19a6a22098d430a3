//! The times of a child's life; must not know what they are used for.

use mesh_proto::time::Millis;

/// All of them, so that tests can shorten them.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How long a start may go on with neither progress nor CPU time. Unit: milliseconds. Default: 10 min. Origin:
    /// guess; 100 GB from a slow disk make progress all the time. Cost of less: a start on a stalled network disk given
    /// up; of more: a hung start told late.
    pub start_stall: Millis,
    /// Between two looks whether a starting child listens. Unit: milliseconds. Default: 250. Origin: it also says so
    /// itself. Cost of less: nothing but wake-ups; of more: later readiness where it does not say so.
    pub health_starting: Millis,
    /// Between two looks at a ready child's health, where nothing else tells that it lives. Unit: milliseconds. Default:
    /// 5000. Origin: as most load balancers have it. Cost of less: wake-ups; of more: a hang told later.
    pub health_ready: Millis,
    /// How long a health check may take. Unit: milliseconds. Default: 3000. Origin: its HTTP threads were once seen
    /// blocked for 11 s, which `--threads-http` cures. Cost of less: a busy machine's child called unhealthy.
    pub health_limit: Millis,
    /// Failed checks in a row that make it unhealthy. Unit: checks. Default: 2. Origin: one can be bad luck. Cost of
    /// more: requests sent to one that will not answer.
    pub health_misses: u32,
    /// The first pause before a restart, doubled by each crash. Unit: milliseconds. Default: 250. Origin: a crash by one
    /// request should cost the others little. Cost of less: a busy loop of loads.
    pub backoff_base: Millis,
    /// The longest pause. Unit: milliseconds. Default: 30,000. Origin: as the mesh's breakers. Cost of more: a healed
    /// child comes back late.
    pub backoff_ceiling: Millis,
    /// How long it must have served for its crashes to be forgotten. Unit: milliseconds. Default: 5 min. Origin: guess.
    /// Cost of less: a child that crashes each minute is restarted for ever.
    pub forget_after: Millis,
    /// Crashes in a row after which it is given up. Unit: crashes. Default: 5. Origin: guess. Cost of more: loads for
    /// nothing; of less: bad luck needs somebody's hand.
    pub crashes: u32,
    /// How long requests may wait with neither tokens nor CPU time. Unit: milliseconds. Default: 10 s. Origin: a step on
    /// an accelerator costs the CPU a few milliseconds too, and none takes seconds. Cost of less: a stalled disk under
    /// mapped weights taken for a hang; of more: clients that wait for nothing.
    pub hang_idle: Millis,
    /// How long requests may wait without tokens at all. Unit: milliseconds. Default: 300 s. Origin: guess; prompt
    /// progress counts, so ask for it. Cost of less: a long prompt on a slow machine is killed again and again.
    pub hang_silent: Millis,
    /// CPU time that is none. Unit: milliseconds. Default: 20. Origin: what health checks alone cost it in
    /// `hang_idle`, with room. Cost of more: a slow step taken for none.
    pub cpu_floor: u64,
    /// Between two looks at its CPU time. Unit: milliseconds. Default: 2000. Origin: a fifth of `hang_idle`. Cost of
    /// less: each look walks the process list; of more: a hang told later.
    pub measure_every: Millis,
    /// How long an asked child may take to end. Unit: milliseconds. Default: 2000. Origin: the guard's own second, and as
    /// much again. Cost of less: the guard is killed before it has cleared up.
    pub stop_grace: Millis,
    /// Between two attempts to kill one that does not go. Unit: milliseconds. Default: 5000. Origin: guess; a process in
    /// a driver cannot be killed until it returns. Cost: none.
    pub kill_again: Millis,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            start_stall: Millis::secs(600),
            health_starting: Millis(250),
            health_ready: Millis::secs(5),
            health_limit: Millis::secs(3),
            health_misses: 2,
            backoff_base: Millis(250),
            backoff_ceiling: Millis::secs(30),
            forget_after: Millis::secs(300),
            crashes: 5,
            hang_idle: Millis::secs(10),
            hang_silent: Millis::secs(300),
            cpu_floor: 20,
            measure_every: Millis::secs(2),
            stop_grace: Millis::secs(2),
            kill_again: Millis::secs(5),
        }
    }
}

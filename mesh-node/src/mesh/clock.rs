//! The one place where the mesh reads clocks; must not know what the times are for.

use std::{
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use mesh_proto::time::{Millis, Now, UnixMillis};

fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

/// Since the process first asked.
pub(crate) fn local() -> Millis {
    Millis(start().elapsed().as_millis() as u64)
}

/// The wall clock.
pub(crate) fn unix() -> UnixMillis {
    UnixMillis(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64))
}

/// Both.
pub(crate) fn now() -> Now {
    Now::new(local(), unix())
}

/// The instant at which [`local`] shows `at`.
pub(crate) fn instant(at: Millis) -> tokio::time::Instant {
    // The clock counts whole milliseconds: one more, or a timer would fire before its time has come.
    (start() + Duration::from_millis(at.0.saturating_add(1))).into()
}

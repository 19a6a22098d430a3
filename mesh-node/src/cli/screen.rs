//! Standard error as a terminal: lines that scroll, and bars that stay below them; must not know what either tells.

use std::{
    io::{self, Write},
    sync::OnceLock,
};

use indicatif::MultiProgress;
use tracing_subscriber::fmt::MakeWriter;

/// All bars of the process. Nothing is drawn before there is one.
static BARS: OnceLock<MultiProgress> = OnceLock::new();

/// Where bars are drawn; `None` where standard error is no terminal, or one that cannot move its cursor (`TERM=dumb`).
pub(crate) fn bars() -> Option<&'static MultiProgress> {
    let bars = BARS.get_or_init(MultiProgress::new);
    (!bars.is_hidden()).then_some(bars)
}

/// Writes lines with the bars out of the way.
pub(super) fn beside<T>(write: impl FnOnce() -> T) -> T {
    match BARS.get() {
        Some(bars) => bars.suspend(write),
        None => write(),
    }
}

/// Standard error for the log, which hands over whole lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines;

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        beside(|| io::stderr().write_all(bytes).map(|()| bytes.len()))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        *self
    }
}

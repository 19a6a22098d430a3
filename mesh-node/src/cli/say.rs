//! What the program says to the person who started it; the log is something else, and must not pass through here.

use std::{
    fmt::Display,
    io::{self, Write},
};

use super::screen;

/// A line on standard output: results, which a script may read.
pub fn result(line: impl Display) {
    // A closed pipe is not our failure; the server serves on.
    screen::beside(|| {
        let _ = writeln!(io::stdout().lock(), "{line}");
    });
}

/// A line on standard error: progress and notes.
pub fn note(line: impl Display) {
    screen::beside(|| {
        let _ = writeln!(io::stderr().lock(), "{line}");
    });
}

/// The one line that says why the program ends.
pub fn failure(line: impl Display) {
    let line = line.to_string().replace('\n', " ");
    screen::beside(|| {
        let _ = writeln!(io::stderr().lock(), "mesh-llm: {line}");
    });
}

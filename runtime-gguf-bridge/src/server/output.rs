//! What the child prints: cut into lines, remembered a little, told to the log; must not know processes.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use serde_json::Value;

/// The longest line that is kept whole. Unit: bytes. Default: 4 KiB. Origin: its longest are 1 KiB; a prompt at high
/// verbosity is endless. Cost of more: memory, and a ring of few lines.
const LINE: usize = 4 << 10;

/// What is remembered of its lines. Unit: bytes. Default: 64 KiB. Origin: a failed start says 2 to 20 KiB. Cost of less:
/// the reason scrolls away under a backtrace.
const RING: usize = 64 << 10;

/// The longest last words. Unit: characters. Default: 500. Origin: fits a line of an error. Cost of less: the reason cut.
const WORDS: usize = 500;

/// Error lines, or plain ones where there are none, that make last words. Unit: lines. Default: 6. Origin: a refused
/// model says 6 different ones, the reason first. Cost of less: the reason left out.
const WORD_LINES: usize = 6;

/// Lines a second that reach the log, and how many more in a burst. Unit: lines. Default: 20 and 200. Origin: guess.
/// Cost of more: a log filled by one broken child.
const LOG_RATE: f64 = 20.0;
const LOG_BURST: f64 = 200.0;

/// Cuts bytes into lines of at most [`LINE`]; what is longer loses its rest.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    line: Vec<u8>,
}

impl Cutter {
    pub(super) fn feed(&mut self, mut bytes: &[u8], take: &mut impl FnMut(&str)) {
        while !bytes.is_empty() {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let part = &bytes[..end.unwrap_or(bytes.len())];
            let room = LINE.saturating_sub(self.line.len());
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            if end.is_some() {
                self.end(take);
            }
            bytes = &bytes[end.map_or(bytes.len(), |end| end + 1)..];
        }
    }

    /// The last line may lack its end.
    pub(super) fn end(&mut self, take: &mut impl FnMut(&str)) {
        if !self.line.is_empty() {
            take(String::from_utf8_lossy(&self.line).trim_end());
            self.line.clear();
        }
    }
}

/// What a line of standard output means, where it is none for people.
#[derive(Debug, PartialEq)]
pub(super) enum Signal {
    /// The guard's: the child's process.
    Pid(u32),
    /// Loading, this far.
    Progress(f32),
    /// Loaded and listening.
    Ready,
    /// Nothing that is known, but not for people either.
    Other,
}

impl Signal {
    pub(super) fn read(line: &str) -> Option<Self> {
        if let Some(pid) = line.strip_prefix(super::guard::VOICE).and_then(|words| words.strip_prefix("pid ")) {
            return pid.parse().ok().map(Self::Pid);
        }
        let json = line.strip_prefix("cmd_child_to_router:state:")?;
        let Ok(told) = serde_json::from_str::<Value>(json) else { return Some(Self::Other) };
        Some(match told.get("state").and_then(Value::as_str) {
            Some("ready") => Self::Ready,
            Some("loading") => told.get("payload").and_then(progress).map_or(Self::Other, Self::Progress),
            _ => Self::Other,
        })
    }
}

/// Over all stages, as if each took as long.
fn progress(payload: &Value) -> Option<f32> {
    let value = payload.get("value")?.as_f64()?.clamp(0.0, 1.0);
    let stages = payload.get("stages").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let at = stages.iter().position(|stage| Some(stage) == payload.get("current")).unwrap_or(0);
    let done = (at as f64 + value) / stages.len().max(1) as f64;
    Some(done as f32)
}

/// How bad a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Error,
    Warning,
    Plain,
}

/// The level of a line and what it says, without its time and level.
fn level(line: &str) -> (Level, &str) {
    if let Some((time, rest)) = line.split_once(' ')
        && time.starts_with(|c: char| c.is_ascii_digit())
        && let Some((letter, words)) = rest.split_once(' ')
    {
        match letter {
            "E" => return (Level::Error, words.trim()),
            "W" => return (Level::Warning, words.trim()),
            "I" | "D" | "T" => return (Level::Plain, words.trim()),
            _ => {}
        }
    }
    // Aborts, the loader's complaints and wrapper scripts have no level.
    let small = line.to_ascii_lowercase();
    let bad = ["error", "assert", "terminate called", "failed", "cannot", "out of memory", "invalid"];
    let level = if bad.iter().any(|word| small.contains(word)) { Level::Error } else { Level::Plain };
    (level, line.trim())
}

/// The end of what one process printed, on both of its streams.
#[derive(Debug, Default)]
pub(super) struct Output(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<String>,
    bytes: usize,
    allowance: Option<(f64, Instant)>,
    dropped: u64,
}

impl Output {
    /// Takes a line for people.
    pub(super) fn line(&self, name: &str, line: &str) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.log(name, line);
        kept.bytes += line.len();
        kept.lines.push_back(line.to_owned());
        while kept.bytes > RING {
            let Some(gone) = kept.lines.pop_front() else { break };
            kept.bytes -= gone.len();
        }
    }

    /// The last lines that look like errors, else the last ones at all, as one line.
    pub(super) fn last_words(&self) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let errors = kept.last(|level| level == Level::Error);
        let lines = if errors.is_empty() { kept.last(|_| true) } else { errors };
        one_line(&lines.join("; "))
    }
}

impl Kept {
    /// The last different ones of a kind, in their order.
    fn last(&self, wanted: impl Fn(Level) -> bool) -> Vec<&str> {
        let mut found: Vec<&str> = Vec::new();
        for line in self.lines.iter().rev() {
            let (level, words) = level(line);
            if wanted(level) && !words.is_empty() && !found.contains(&words) {
                found.push(words);
            }
            if found.len() == WORD_LINES {
                break;
            }
        }
        found.reverse();
        found
    }

    fn log(&mut self, name: &str, line: &str) {
        let now = Instant::now();
        let (left, since) = self.allowance.unwrap_or((LOG_BURST, now));
        let left = (left + now.duration_since(since).as_secs_f64() * LOG_RATE).min(LOG_BURST);
        if left < 1.0 {
            self.allowance = Some((left, now));
            self.dropped += 1;
            return;
        }
        self.allowance = Some((left - 1.0, now));
        if self.dropped > 0 {
            tracing::warn!(model = name, lines = self.dropped, "llama-server prints too much; lines left out");
            self.dropped = 0;
        }
        let (level, words) = level(line);
        match level {
            Level::Error => tracing::warn!(model = name, "llama-server: {words}"),
            Level::Warning => tracing::debug!(model = name, "llama-server: {words}"),
            Level::Plain => tracing::trace!(model = name, "llama-server: {words}"),
        }
    }
}

/// At most [`WORDS`] characters, none of them a control one.
pub(super) fn one_line(text: &str) -> String {
    let spaced: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()).collect();
    let text = spaced.join(" ");
    match text.char_indices().nth(WORDS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(parts: &[&[u8]]) -> Vec<String> {
        let (mut cutter, mut lines) = (Cutter::default(), Vec::new());
        for part in parts {
            cutter.feed(part, &mut |line| lines.push(line.to_owned()));
        }
        cutter.end(&mut |line| lines.push(line.to_owned()));
        lines
    }

    #[test]
    fn lines_are_cut_wherever_the_bytes_are() {
        assert_eq!(cut(&[b"one\ntw", b"o\r\n\nthr", b"ee"]), ["one", "two", "three"]);
        let long = vec![b'x'; 10 << 20];
        let lines = cut(&[&long, b"\nnext\n"]);
        assert_eq!((lines[0].len(), lines[1].as_str()), (LINE, "next"));
    }

    #[test]
    fn progress_counts_over_all_stages() {
        let line = |stage: &str, value: f32| {
            format!(
                r#"cmd_child_to_router:state:{{"state":"loading","payload":{{"stages":["a","b"],"current":"{stage}","value":{value}}}}}"#
            )
        };
        assert_eq!(Signal::read(&line("a", 0.5)), Some(Signal::Progress(0.25)));
        assert_eq!(Signal::read(&line("b", 1.0)), Some(Signal::Progress(1.0)));
        assert_eq!(Signal::read(r#"cmd_child_to_router:state:{"state":"ready","payload":{}}"#), Some(Signal::Ready));
        assert_eq!(Signal::read("cmd_child_to_router:state:{"), Some(Signal::Other));
        assert_eq!(Signal::read("guard: pid 17"), Some(Signal::Pid(17)));
        assert_eq!(Signal::read("guard: error: no"), None);
    }

    #[test]
    fn last_words_are_the_errors_without_time_or_repetition() {
        let output = Output::default();
        for line in [
            "0.00.018.941 I srv    load_model: loading model 'x'",
            "0.00.023.804 E llama_model_load: error loading model: data is not within the file bounds",
            "0.00.024.188 E llama_model_load: error loading model: data is not within the file bounds",
            "0.00.024.214 I srv    operator(): cleaning up before exit, error free",
            "0.00.024.750 E srv  llama_server: exiting due to model loading error",
        ] {
            output.line("m", line);
        }
        let told = "llama_model_load: error loading model: data is not within the file bounds; \
                    srv llama_server: exiting due to model loading error";
        assert_eq!(output.last_words(), told);
    }

    #[test]
    fn without_errors_the_last_lines_speak_and_the_ring_stays_small() {
        let output = Output::default();
        for n in 0..100_000 {
            output.line("m", &format!("line {n} {}", "y".repeat(20)));
        }
        assert!(output.0.lock().unwrap().bytes <= RING);
        assert!(output.last_words().ends_with(&format!("line 99999 {}", "y".repeat(20))));
        output.line("m", &"z".repeat(4000));
        assert_eq!(output.last_words().chars().count(), WORDS + 1);
    }
}

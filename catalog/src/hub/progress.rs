//! How far a download is, told often enough and not more; must not know what is downloaded.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::elsewhere::Turn;

/// Time between two reports at least. (ten a second, as the issue asks; the last one of a file always comes)
const BETWEEN: Duration = Duration::from_millis(100);

/// What is going on with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its bytes arrive.
    Fetching,
    /// They arrive from others than the hub.
    Elsewhere,
    /// One of those others is fetching it, and gives it when it has it; this one waits.
    OthersTurn,
    /// Another process is downloading it; this one waits.
    Waiting,
    /// The connection was lost, or the hub asked for patience; it is asked again soon.
    Retrying,
    /// It is here.
    Done,
}

/// How far a download is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The file that this is about.
    pub file: String,
    /// What is going on with it.
    pub stage: Stage,
    /// Bytes of it that are here.
    pub done: u64,
    /// Bytes it has.
    pub total: u64,
    /// Bytes of all files that are here. May fall when a broken part is thrown away.
    pub all_done: u64,
    /// Bytes of all files together.
    pub all_total: u64,
}

/// Who hears it.
pub(crate) type Listener<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// Adds up what several files report.
pub(crate) struct Meter<'a> {
    listener: Listener<'a>,
    all_total: u64,
    state: Mutex<State>,
}

struct State {
    all_done: u64,
    told: Option<Instant>,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(listener: Listener<'a>, all_total: u64) -> Self {
        Self { listener, all_total, state: Mutex::new(State { all_done: 0, told: None }) }
    }

    /// The count of one file.
    pub(crate) fn file(&'a self, name: &'a str, total: u64) -> FileMeter<'a> {
        FileMeter { meter: self, name, total, done: 0, stage: None, turn: None }
    }
}

/// The count of one file.
pub(crate) struct FileMeter<'a> {
    meter: &'a Meter<'a>,
    name: &'a str,
    total: u64,
    done: u64,
    stage: Option<Stage>,
    /// Others who wait for this file, until the download is over.
    pub(crate) turn: Option<Box<dyn Turn>>,
}

impl FileMeter<'_> {
    /// So many bytes of it are here.
    pub(crate) fn at(&mut self, done: u64, stage: Stage) {
        let done = done.min(self.total);
        if let Some(turn) = &mut self.turn {
            turn.at(done);
        }
        let mut state = self.meter.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.all_done = (state.all_done + done).saturating_sub(self.done);
        self.done = done;
        // The end of a file is told once and at once; all else has to wait for its turn.
        let news = stage == Stage::Done && self.stage != Some(stage);
        if !news && state.told.is_some_and(|told| told.elapsed() < BETWEEN) {
            return;
        }
        self.stage = Some(stage);
        state.told = Some(Instant::now());
        let all_done = state.all_done;
        drop(state);
        (self.meter.listener)(Progress {
            file: self.name.to_owned(),
            stage,
            done,
            total: self.total,
            all_done,
            all_total: self.meter.all_total,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_bytes_are_told_seldom_and_the_end_always() {
        let heard = Mutex::new(Vec::new());
        let listener = |progress: Progress| heard.lock().unwrap().push(progress);
        let meter = Meter::new(&listener, 30);
        let (mut one, mut two) = (meter.file("one", 10), meter.file("two", 20));
        for done in 0..=10 {
            one.at(done, Stage::Fetching);
            two.at(done, Stage::Fetching);
        }
        two.at(4, Stage::Retrying);
        one.at(10, Stage::Done);
        let heard = heard.into_inner().unwrap();
        assert!(heard.len() <= 3, "{heard:?}");
        let last = heard.last().unwrap();
        assert_eq!((last.file.as_str(), last.done, last.all_done, last.all_total), ("one", 10, 14, 30));
    }
}

//! How far downloads are: bars where somebody looks, else a line now and then; must not know how models are found.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytesize::ByteSize;
use catalog::hub::{Progress, Stage};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::{say, screen};

/// Between two lines about a download. Unit: time; 2 s, a guess at what people read. Less: a log full of it.
const TELL_EVERY: Duration = Duration::from_secs(2);
/// How often the whole's bar is drawn though nothing comes, so that its rate falls. Unit: time; guess.
const TICK: Duration = Duration::from_millis(500);
/// Of a file's name, what a bar has room for. Unit: characters; guess: half of a narrow terminal.
const NAME: usize = 36;
/// Of the model. indicatif's own words for bytes, rates and times.
const WHOLE: &str = "{prefix} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
/// Of a file.
const FILE: &str = "  {prefix} {bar:16} {percent:>3} % {msg}";

/// Tells how far a download is.
pub(super) struct Teller {
    name: String,
    state: Mutex<State>,
}

struct State {
    began: Option<(Instant, u64)>,
    told: Option<Instant>,
    last: Option<Progress>,
    /// Where somebody looks.
    bars: Option<Bars>,
}

impl Teller {
    pub(super) fn new(name: String) -> Self {
        Self::on(name, screen::bars())
    }

    fn on(name: String, screen: Option<&MultiProgress>) -> Self {
        let bars = screen.map(|screen| Bars { screen: screen.clone(), whole: None, files: BTreeMap::new() });
        Self { name, state: Mutex::new(State { began: None, told: None, last: None, bars }) }
    }

    pub(super) fn hear(&self, progress: &Progress) {
        let line = self.state.lock().unwrap_or_else(PoisonError::into_inner).hear(&self.name, progress);
        if let Some(line) = line {
            say::note(line);
        }
    }

    /// The last line, where bars that told it are gone by now.
    pub(super) fn done(self) {
        let mut state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let drawn = state.bars.take().is_some_and(|bars| bars.whole.is_some());
        if let (true, Some((began, before)), Some(last)) = (drawn, state.began, state.last) {
            say::note(format!("{}: {}", self.name, words(&last, began.elapsed(), before)));
        }
    }
}

impl State {
    fn hear(&mut self, name: &str, progress: &Progress) -> Option<String> {
        let now = Instant::now();
        let (began, before) = *self.began.get_or_insert((now, progress.all_done));
        let over = progress.all_done >= progress.all_total;
        // What was here from the start was not downloaded.
        let nothing = over && progress.all_done == before;
        if let Some(bars) = &mut self.bars {
            if !nothing {
                bars.hear(name, progress);
                self.last = Some(progress.clone());
            }
            return None;
        }
        if nothing || self.told.is_some_and(|told| now.duration_since(told) < TELL_EVERY) && !over {
            return None;
        }
        self.told = Some(now);
        Some(format!("{name}: {}", words(progress, now.duration_since(began), before)))
    }
}

/// A bar for each file that comes, and one for all of them below.
struct Bars {
    screen: MultiProgress,
    whole: Option<ProgressBar>,
    files: BTreeMap<String, ProgressBar>,
}

impl Bars {
    fn hear(&mut self, name: &str, progress: &Progress) {
        let whole = self.whole.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
            bar.set_position(progress.all_done);
            // What was here before is no rate: it is seen, and then forgotten.
            bar.tick();
            bar.reset_eta();
            let bar = self.screen.add(bar.with_style(style(WHOLE)).with_prefix(name.to_owned()));
            bar.enable_steady_tick(TICK);
            bar
        });
        whole.set_length(progress.all_total);
        whole.set_position(progress.all_done);
        if progress.stage == Stage::Done {
            if let Some(bar) = self.files.remove(&progress.file) {
                bar.finish_and_clear();
                self.screen.remove(&bar);
            }
            return;
        }
        let bar = self.files.entry(progress.file.clone()).or_insert_with(|| {
            let bar = ProgressBar::new(progress.total).with_style(style(FILE)).with_prefix(short(&progress.file));
            self.screen.insert_before(whole, bar)
        });
        bar.set_position(progress.done);
        bar.set_message(match progress.stage {
            Stage::Waiting => "another process is downloading it",
            Stage::Retrying => "asking again",
            Stage::Elsewhere => "from the mesh",
            Stage::OthersTurn => "another node is fetching it, and gives it then",
            Stage::Fetching | Stage::Done => "",
        });
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        for bar in self.files.values().chain(&self.whole) {
            bar.finish_and_clear();
            self.screen.remove(bar);
        }
    }
}

/// The templates are constants, of which a test knows that they are good.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// A file's name, as long as every other one: its end tells more than its beginning.
fn short(name: &str) -> String {
    let count = name.chars().count();
    if count <= NAME {
        return format!("{name:NAME$}");
    }
    name.chars().skip(count - NAME + 1).fold(String::from("…"), |mut cut, letter| {
        cut.push(letter);
        cut
    })
}

/// `downloading 40 % of 2.1 GiB, 12.0 MiB/s, 1 min 40 s left`.
fn words(progress: &Progress, since: Duration, before: u64) -> String {
    let Progress { file, stage, all_done, all_total, .. } = progress;
    let percent = all_done.saturating_mul(100) / (*all_total).max(1);
    let mut words = format!("downloading {percent} % of {}", ByteSize(*all_total));
    let rate = all_done.saturating_sub(before) as f64 / since.as_secs_f64().max(0.001);
    if rate >= 1.0 && since >= Duration::from_millis(500) {
        let left = (all_total.saturating_sub(*all_done) as f64 / rate).round() as u64;
        let left = if left >= 60 { format!("{} min {} s", left / 60, left % 60) } else { format!("{left} s") };
        words += &format!(", {}/s, {left} left", ByteSize(rate as u64));
    }
    match stage {
        Stage::Waiting => words += &format!("; another process is downloading {file}, which is waited for"),
        Stage::Retrying => words += &format!("; the hub is asked again for {file}"),
        Stage::Elsewhere => words += ", from the mesh",
        Stage::OthersTurn => words += &format!("; another node is fetching {file}, and gives it when it has it"),
        Stage::Fetching | Stage::Done => {}
    }
    words
}

#[cfg(test)]
mod tests {
    use indicatif::InMemoryTerm;

    use super::*;

    fn progress(all_done: u64, stage: Stage) -> Progress {
        Progress {
            file: "model.safetensors".into(),
            stage,
            done: all_done,
            total: 1 << 30,
            all_done,
            all_total: 1 << 30,
        }
    }

    #[test]
    fn a_download_is_told_with_rate_and_time_left() {
        let half = words(&progress(1 << 29, Stage::Fetching), Duration::from_secs(100), 0);
        assert_eq!(half, "downloading 50 % of 1.0 GiB, 5.1 MiB/s, 1 min 40 s left");
        let start = words(&progress(0, Stage::Waiting), Duration::ZERO, 0);
        assert!(start.starts_with("downloading 0 % of 1.0 GiB; another process"), "{start}");
    }

    #[test]
    fn nobody_who_looks_gets_lines_now_and_then_and_nothing_of_what_was_here() {
        let teller = Teller::on("m".into(), None);
        let mut state = teller.state.into_inner().unwrap();
        assert!(state.hear("m", &progress(0, Stage::Fetching)).unwrap().starts_with("m: downloading 0 %"));
        assert_eq!(state.hear("m", &progress(1 << 20, Stage::Fetching)), None, "too soon");
        assert!(state.hear("m", &progress(1 << 30, Stage::Done)).unwrap().starts_with("m: downloading 100 %"));
        let mut here = Teller::on("m".into(), None).state.into_inner().unwrap();
        assert_eq!(here.hear("m", &progress(1 << 30, Stage::Done)), None);
    }

    #[test]
    fn who_looks_gets_a_bar_for_each_file_and_one_for_all() {
        for template in [WHOLE, FILE] {
            ProgressStyle::with_template(template).unwrap();
        }
        let term = InMemoryTerm::new(10, 100);
        let screen = MultiProgress::with_draw_target(ProgressDrawTarget::term_like(Box::new(term.clone())));
        let teller = Teller::on("org/model".into(), Some(&screen));
        teller.hear(&progress(1 << 29, Stage::Fetching));
        std::thread::sleep(Duration::from_millis(200));
        teller.hear(&Progress { file: "a/b.json".into(), done: 0, ..progress(1 << 29, Stage::Retrying) });
        std::thread::sleep(2 * TICK);
        let lines = term.contents();
        let lines: Vec<&str> = lines.lines().collect();
        assert_eq!(lines.len(), 3, "{lines:#?}");
        assert!(lines[0].contains("model.safetensors") && lines[0].contains("50 %"), "{lines:#?}");
        assert!(lines[1].contains("a/b.json") && lines[1].contains("asking again"), "{lines:#?}");
        assert!(lines[2].starts_with("org/model") && lines[2].contains("512.00 MiB/1.00 GiB"), "{lines:#?}");
        assert!(lines[2].contains(" 0 B/s"), "what was here is no rate: {lines:#?}");
        teller.hear(&progress(1 << 30, Stage::Done));
        std::thread::sleep(2 * TICK);
        assert!(!term.contents().contains("model.safetensors"), "{}", term.contents());
        teller.done();
        assert_eq!(term.contents().trim(), "", "nothing stays");
        // What is here draws nothing.
        let teller = Teller::on("org/model".into(), Some(&screen));
        teller.hear(&progress(1 << 30, Stage::Done));
        assert_eq!(term.contents().trim(), "");
    }

    #[test]
    fn names_are_cut_where_they_tell_least() {
        assert_eq!(short("a").len(), NAME);
        let long = short("some/folder/model-00001-of-00040-and-more.safetensors");
        assert_eq!(
            (long.chars().count(), long.starts_with('…'), long.ends_with("more.safetensors")),
            (NAME, true, true)
        );
    }
}

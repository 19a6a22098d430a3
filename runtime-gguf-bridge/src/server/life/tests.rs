//! A fake child plays its life: scripted, and at random; must not start a process.

use proptest::prelude::*;

use super::*;

/// The machine and its driver's duties, on a clock of its own.
struct Play {
    life: Life,
    now: u64,
    done: Vec<Effect>,
}

impl Play {
    fn new() -> Self {
        Self { life: Life::new(Config::default()), now: 0, done: Vec::new() }
    }

    fn tell(&mut self, input: Input) -> &mut Self {
        self.life.handle(input, Millis(self.now));
        while let Some(effect) = self.life.poll_effect() {
            if effect == Effect::Spawn {
                self.life.handle(Input::Spawned, Millis(self.now));
            }
            self.done.push(effect);
        }
        self
    }

    /// Lets time pass; checks are answered with `healthy`, CPU time with `cpu` of the time that has passed.
    fn pass(&mut self, ms: u64, healthy: bool, cpu: impl Fn(u64) -> Option<u64>) -> &mut Self {
        let end = self.now + ms;
        while let Some(at) = self.life.next_wakeup().filter(|at| at.0 <= end) {
            self.now = self.now.max(at.0);
            let before = self.done.len();
            self.tell(Input::Wake);
            let asked = self.done[before..].to_vec();
            if asked.contains(&Effect::CheckHealth) {
                self.tell(if healthy { Input::HealthOk } else { Input::HealthFailed });
            }
            if let Some(ms) = cpu(self.now).filter(|_| asked.contains(&Effect::MeasureCpu)) {
                self.tell(Input::CpuTime(ms));
            }
            if asked.contains(&Effect::Kill) {
                return self;
            }
        }
        self.now = end;
        self
    }

    fn ready() -> Self {
        let mut play = Self::new();
        play.tell(Input::Start).tell(Input::Listening).tell(Input::HealthOk);
        assert_eq!(play.state(), State::Ready);
        play
    }

    fn crash(&mut self) -> &mut Self {
        self.tell(Input::Exited { words: "its words".to_owned() })
    }

    fn state(&self) -> State {
        let told = self.done.iter().rev().find_map(|effect| match effect {
            Effect::TellState(state) => Some(state.clone()),
            _ => None,
        });
        told.expect("it has told its state")
    }

    fn count(&self, wanted: &Effect) -> usize {
        self.done.iter().filter(|effect| *effect == wanted).count()
    }

    /// The words that it would fail with by its next crash: all but one are used up.
    fn killed_for(&mut self) -> String {
        assert_eq!(self.done.last(), Some(&Effect::TellState(State::Unhealthy)));
        let Phase::Dying { why, .. } = &self.life.phase else { panic!("it is {:?}", self.life.phase) };
        why.clone()
    }
}

const NO_CPU: fn(u64) -> Option<u64> = |_| Some(7);
const BUSY: fn(u64) -> Option<u64> = Some;
const UNKNOWN: fn(u64) -> Option<u64> = |_| None;

#[test]
fn a_start_tells_its_progress_and_is_ready_when_healthy() {
    let mut play = Play::new();
    play.tell(Input::Start).tell(Input::Progress(0.4));
    assert_eq!(play.state(), State::Starting { progress: Some(0.4) });
    assert_eq!(play.state().to_string(), "loading: 40 %");
    play.pass(10_000, false, UNKNOWN);
    assert_eq!(play.count(&Effect::CheckHealth), 40, "it is asked each quarter of a second");
    play.tell(Input::Listening);
    assert_eq!(play.count(&Effect::CheckHealth), 41, "and at once when it says so itself");
    play.tell(Input::HealthOk);
    assert_eq!(play.state(), State::Ready);
}

#[test]
fn an_end_before_it_was_ever_ready_is_not_tried_again() {
    let mut play = Play::new();
    play.tell(Input::Start).tell(Input::Progress(0.9)).crash();
    assert_eq!(play.state(), State::Failed { words: "its words".to_owned() });
    assert_eq!((play.life.next_wakeup(), play.count(&Effect::Spawn)), (None, 1));
    play.tell(Input::Start);
    assert_eq!(play.count(&Effect::Spawn), 2, "unless somebody asks");
}

#[test]
fn a_start_without_any_sign_is_given_up_and_one_with_signs_may_take_a_day() {
    let mut play = Play::new();
    play.tell(Input::Start).pass(599_000, false, NO_CPU);
    assert_eq!(play.count(&Effect::Kill), 0);
    // The first reading came after 2 s and counts as a sign.
    play.pass(10_000, false, NO_CPU);
    assert!(play.killed_for().contains("no progress in loading for 600 s"), "{}", play.killed_for());
    play.crash();
    assert!(matches!(play.state(), State::Failed { words } if words.contains("no progress")));

    let mut play = Play::new();
    play.tell(Input::Start).pass(24 * 3_600_000, false, BUSY);
    assert_eq!(play.count(&Effect::Kill), 0);
    for percent in 0..100 {
        play.tell(Input::Progress(percent as f32 / 100.0)).pass(590_000, false, UNKNOWN);
    }
    assert_eq!(play.count(&Effect::Kill), 0);
}

#[test]
fn crashes_are_answered_with_longer_pauses_and_the_fifth_in_a_row_with_failure() {
    let mut play = Play::ready();
    for (attempt, pause) in [(1, 250), (2, 500), (3, 1000), (4, 2000)] {
        play.crash();
        assert_eq!(play.state(), State::Restarting { attempt, until: Millis(play.now + pause) });
        let spawned = play.count(&Effect::Spawn);
        play.pass(pause - 1, true, UNKNOWN);
        assert_eq!(play.count(&Effect::Spawn), spawned);
        play.pass(1, true, UNKNOWN).tell(Input::HealthOk);
        assert_eq!((play.count(&Effect::Spawn), play.state()), (spawned + 1, State::Ready));
    }
    play.crash();
    let State::Failed { words } = play.state() else { panic!("{}", play.state()) };
    assert_eq!(words, "it crashed 5 times in a row, last: its words");
    play.tell(Input::Start).tell(Input::HealthOk).crash();
    assert!(matches!(play.state(), State::Restarting { attempt: 1, .. }), "asked for again, it begins anew");
}

#[test]
fn five_minutes_of_service_forgive_crashes() {
    let mut play = Play::ready();
    for _ in 0..20 {
        play.pass(300_000, true, UNKNOWN).crash();
        assert!(matches!(play.state(), State::Restarting { attempt: 1, .. }));
        play.pass(250, true, UNKNOWN).tell(Input::HealthOk);
    }
}

#[test]
fn a_restart_that_cannot_load_counts_as_a_crash() {
    let mut play = Play::ready();
    for _ in 0..5 {
        play.crash().pass(30_000, false, UNKNOWN);
    }
    assert!(matches!(play.state(), State::Failed { .. }));
}

#[test]
fn waiting_requests_without_tokens_and_cpu_time_are_a_hang() {
    let mut play = Play::ready();
    play.pass(3_600_000, true, NO_CPU);
    assert_eq!(play.count(&Effect::Kill), 0, "an idle child may be idle");
    assert_eq!(play.count(&Effect::MeasureCpu), 0, "and is not measured");
    let began = play.now;
    play.tell(Input::Streams(1)).pass(60_000, true, NO_CPU);
    assert_eq!(play.count(&Effect::Kill), 1);
    assert!(play.killed_for().contains("no token for 10 s and no CPU time"), "{}", play.killed_for());
    assert!(play.now - began <= 12_000, "{}", play.now - began);
    play.crash();
    assert!(matches!(play.state(), State::Restarting { attempt: 1, .. }));
}

#[test]
fn a_busy_child_may_take_five_minutes_to_its_next_token_and_not_more() {
    let mut play = Play::ready();
    play.tell(Input::Streams(3)).pass(299_000, true, BUSY).tell(Input::TokenProgress);
    play.pass(299_000, true, BUSY);
    assert_eq!(play.count(&Effect::Kill), 0);
    play.pass(2_000, true, BUSY);
    assert!(play.killed_for().contains("no token for 300 s"), "{}", play.killed_for());
}

#[test]
fn a_child_that_cannot_be_measured_is_judged_by_its_tokens_alone() {
    let mut play = Play::ready();
    play.tell(Input::Streams(3)).pass(299_000, true, UNKNOWN);
    assert_eq!(play.count(&Effect::Kill), 0);
    play.pass(2_000, true, UNKNOWN);
    assert_eq!(play.count(&Effect::Kill), 1);
}

#[test]
fn a_child_whose_health_fails_is_unhealthy_then_well_again_or_hung() {
    let mut play = Play::ready();
    play.pass(5_000, false, BUSY);
    assert_eq!(play.state(), State::Ready, "one failure is bad luck");
    play.pass(5_000, false, BUSY);
    assert_eq!(play.state(), State::Unhealthy);
    play.pass(1_000, true, BUSY);
    assert_eq!(play.state(), State::Ready);
    play.pass(30_000, false, NO_CPU);
    assert_eq!(play.count(&Effect::Kill), 1, "nothing waits for it, but it does not even answer");
}

#[test]
fn a_stop_is_asked_for_then_forced_and_final() {
    let mut play = Play::ready();
    play.tell(Input::StopWanted).pass(1_999, true, UNKNOWN);
    assert_eq!((play.count(&Effect::Stop), play.count(&Effect::Kill), play.state()), (1, 0, State::Stopped));
    play.pass(1, true, UNKNOWN);
    assert_eq!(play.count(&Effect::Kill), 1);
    assert!(!play.life.is_over(), "its process is still there");
    play.crash();
    assert!(play.life.is_over());
    play.tell(Input::Start);
    assert_eq!(play.count(&Effect::Spawn), 1);
}

#[test]
fn a_stop_between_two_processes_ends_at_once() {
    let mut play = Play::ready();
    play.crash().tell(Input::StopWanted);
    assert!(play.life.is_over());
    let mut play = Play::new();
    play.life.handle(Input::Start, Millis(0));
    play.life.handle(Input::StopWanted, Millis(0));
    play.life.handle(Input::SpawnFailed("no".to_owned()), Millis(0));
    assert!(play.life.is_over());
}

fn any_input() -> impl Strategy<Value = Input> {
    prop_oneof![
        1 => Just(Input::Start),
        4 => Just(Input::Spawned),
        1 => Just(Input::SpawnFailed("no".to_owned())),
        2 => (0.0f32..1.0).prop_map(Input::Progress),
        2 => Just(Input::Listening),
        8 => Just(Input::HealthOk),
        3 => Just(Input::HealthFailed),
        3 => Just(Input::Exited { words: "end".to_owned() }),
        3 => (0usize..3).prop_map(Input::Streams),
        3 => Just(Input::TokenProgress),
        3 => (0u64..100_000).prop_map(Input::CpuTime),
        1 => Just(Input::StopWanted),
        9 => Just(Input::Wake),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_no_two_live_at_once_something_is_always_due_and_a_stop_is_final(
        steps in prop::collection::vec((any_input(), 0u64..20_000, any::<bool>()), 1..100)
    ) {
        let mut life = Life::new(Config::default());
        // What the driver knows: asked for and not answered, living.
        let (mut now, mut asked, mut alive, mut stopped) = (0, false, false, false);
        life.handle(Input::Start, Millis(0));
        for (input, pause, exactly) in std::iter::once((Input::Wake, 0, false)).chain(steps) {
            now = match life.next_wakeup().filter(|_| exactly) {
                Some(at) => at.0.max(now),
                None => now + pause,
            };
            // The driver tells of processes only what is true.
            let input = match input {
                Input::Spawned | Input::SpawnFailed(_) if !asked => Input::Wake,
                Input::Exited { .. } | Input::Progress(_) | Input::Listening if !alive => Input::Wake,
                other => other,
            };
            match input {
                Input::Spawned => (asked, alive) = (false, true),
                Input::SpawnFailed(_) => asked = false,
                Input::Exited { .. } => alive = false,
                _ => {}
            }
            stopped |= input == Input::StopWanted;
            life.handle(input, Millis(now));
            while let Some(effect) = life.poll_effect() {
                match effect {
                    Effect::Spawn => {
                        prop_assert!(!asked && !alive, "two at once");
                        prop_assert!(!stopped, "it rose again");
                        asked = true;
                    }
                    Effect::TellState(state) => prop_assert!(!stopped || state == State::Stopped, "{}", state),
                    Effect::CheckHealth | Effect::MeasureCpu => prop_assert!(alive),
                    Effect::Stop | Effect::Kill => {}
                }
            }
            if alive {
                prop_assert!(life.next_wakeup().is_some(), "it is forgotten in {:?}", life.phase);
            }
            if let Some(at) = life.next_wakeup() {
                prop_assert!(at.0 > now, "due at once again in {:?}", life.phase);
            }
            prop_assert_eq!(life.is_over(), stopped && !alive && !asked);
        }
    }
}

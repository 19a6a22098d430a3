//! The scheduler held to its promises: by examples here, and against random drivers in `world`.
#![allow(clippy::unwrap_used)]

use engine::{
    decoder::{PrefillChunk, Sampled, SeqId},
    scheduler::{Refusal, Scheduler, SchedulerLimits},
};
use mesh_proto::TokenId;

const LIMITS: SchedulerLimits = SchedulerLimits {
    max_running: 4,
    max_waiting: 4,
    step_tokens: 100,
    context_tokens: 10_000,
    kv_bytes_per_token: 10,
    kv_budget_bytes: 1_000_000,
};

fn seq(id: u64) -> SeqId {
    SeqId(id)
}

fn token(id: u64) -> Sampled {
    Sampled { seq: SeqId(id), token: TokenId(0), odds: None }
}

/// Admits and opens everybody who can be, with nothing cached.
fn open_all(scheduler: &mut Scheduler) -> Vec<SeqId> {
    let admission = scheduler.admit(|_, _| 0);
    for &seq in &admission.open {
        scheduler.opened(seq, 0);
    }
    admission.open
}

#[test]
fn places_are_given_first_come_first_served_and_the_line_is_bounded() {
    let mut scheduler = Scheduler::new(LIMITS);
    for id in 0..8 {
        scheduler.add(seq(id), 10, 10).unwrap();
    }
    assert_eq!(scheduler.add(seq(8), 10, 10), Err(Refusal::Busy { waiting: 8 }));
    assert_eq!(open_all(&mut scheduler), [seq(0), seq(1), seq(2), seq(3)]);
    assert_eq!(scheduler.add(seq(8), 10, 10), Err(Refusal::Busy { waiting: 4 }));
    scheduler.end(seq(2));
    scheduler.add(seq(9), 10, 10).unwrap();
    assert_eq!(open_all(&mut scheduler), [seq(4)]);
}

#[test]
fn what_never_fits_is_refused_at_once() {
    let mut scheduler = Scheduler::new(SchedulerLimits { kv_budget_bytes: 5000, ..LIMITS });
    assert_eq!(scheduler.add(seq(0), 500, 1), Err(Refusal::TooLong { prompt_tokens: 500, ceiling_tokens: 500 }));
    assert_eq!(scheduler.add(seq(0), 0, 1), Err(Refusal::Empty));
    assert_eq!(scheduler.add(seq(0), 1, 0), Err(Refusal::Empty));
    scheduler.add(seq(0), 499, u32::MAX).unwrap();
    assert_eq!(open_all(&mut scheduler), [seq(0)]);
}

#[test]
fn a_long_prompt_is_cut_and_decoding_rows_are_in_every_step() {
    let mut scheduler = Scheduler::new(LIMITS);
    scheduler.add(seq(0), 5, 50).unwrap();
    open_all(&mut scheduler);
    assert!(scheduler.step().prefill[0].last);
    scheduler.collected(&[token(0)]);
    scheduler.add(seq(1), 250, 50).unwrap();
    open_all(&mut scheduler);
    let mut chunks = Vec::new();
    for _ in 0..3 {
        let plan = scheduler.step();
        assert_eq!(plan.decode, [seq(0)]);
        chunks.extend(plan.prefill);
        scheduler.collected(&[token(0), token(1)]);
    }
    let chunk = |start, len, last| PrefillChunk { seq: seq(1), start, len, last };
    assert_eq!(chunks, [chunk(0, 100, false), chunk(100, 100, false), chunk(200, 50, true)]);
    assert_eq!(scheduler.step().decode, [seq(0), seq(1)]);
}

#[test]
fn a_short_prompt_passes_a_long_one() {
    let mut scheduler = Scheduler::new(LIMITS);
    scheduler.add(seq(0), 5000, 50).unwrap();
    scheduler.add(seq(1), 40, 50).unwrap();
    open_all(&mut scheduler);
    let plan = scheduler.step();
    let ends: Vec<_> = plan.prefill.iter().map(|chunk| (chunk.seq, chunk.len, chunk.last)).collect();
    assert_eq!(ends, [(seq(0), 60, false), (seq(1), 40, true)]);
}

#[test]
fn what_is_cached_is_not_computed() {
    let mut scheduler = Scheduler::new(LIMITS);
    scheduler.add(seq(0), 90, 5).unwrap();
    scheduler.admit(|_, _| 0);
    assert!(scheduler.step().is_empty(), "nothing before the decoder has opened it");
    scheduler.opened(seq(0), 64);
    let chunk = PrefillChunk { seq: seq(0), start: 64, len: 26, last: true };
    assert_eq!(scheduler.step().prefill, [chunk]);
}

#[test]
fn two_steps_are_in_flight_and_none_goes_past_the_last_token() {
    let mut scheduler = Scheduler::new(LIMITS);
    scheduler.add(seq(0), 5, 2).unwrap();
    open_all(&mut scheduler);
    assert!(!scheduler.step().prefill.is_empty());
    assert_eq!(scheduler.step().decode, [seq(0)]);
    assert!(scheduler.step().is_empty(), "two are in flight");
    scheduler.collected(&[token(0)]);
    assert!(scheduler.step().is_empty(), "both its tokens are planned");
    assert_eq!(scheduler.in_flight(), 1);
}

#[test]
fn the_youngest_gives_way_and_comes_back_first() {
    // 600 tokens of memory: three rows of 150 + up to 256 do not fit side by side for long.
    let mut scheduler = Scheduler::new(SchedulerLimits { kv_budget_bytes: 6000, ..LIMITS });
    for id in 0..3 {
        scheduler.add(seq(id), 100, 200).unwrap();
    }
    assert_eq!(open_all(&mut scheduler), [seq(0), seq(1)], "a third would fit now, but not when they go on");
    scheduler.end(seq(1));
    scheduler.end(seq(2));
    for (id, prompt) in [(3, 50), (4, 50)] {
        scheduler.add(seq(id), prompt, 20).unwrap();
    }
    assert_eq!(open_all(&mut scheduler), [seq(3), seq(4)]);
    assert!(scheduler.kv_bytes() <= 6000);
}

#[test]
fn a_batch_that_outgrows_its_memory_sends_the_youngest_back_to_the_head_of_the_line() {
    let mut scheduler = Scheduler::new(SchedulerLimits { kv_budget_bytes: 8000, ..LIMITS });
    for id in 0..3 {
        scheduler.add(seq(id), 100, 1000).unwrap();
    }
    assert_eq!(open_all(&mut scheduler), [seq(0), seq(1)]);
    let mut steps = 0;
    let preempted = loop {
        let admission = scheduler.admit(|_, _| 0);
        assert!(admission.open.is_empty());
        if !admission.preempt.is_empty() {
            break admission.preempt;
        }
        assert!(!scheduler.step().is_empty());
        scheduler.collected(&[token(0), token(1)]);
        steps += 1;
    };
    assert_eq!((preempted, steps), (vec![seq(1)], 301), "2 x (100 + 300 tokens) are 800");
    scheduler.resubmit(seq(9), 100 + 300, 700).unwrap();
    assert!(scheduler.admit(|_, _| 0).is_empty(), "it does not come back before there is room");
    scheduler.end(seq(0));
    assert_eq!(scheduler.admit(|_, _| 0).open, [seq(9)], "and then before those that wait");
}

#[test]
fn a_client_that_does_not_read_loses_its_place_only_to_somebody_who_waits() {
    let mut scheduler = Scheduler::new(SchedulerLimits { max_running: 2, ..LIMITS });
    scheduler.add(seq(0), 10, 10).unwrap();
    scheduler.add(seq(1), 10, 10).unwrap();
    open_all(&mut scheduler);
    scheduler.pause(seq(0));
    assert!(scheduler.admit(|_, _| 0).is_empty());
    let plan = scheduler.step();
    assert_eq!(plan.prefill.iter().map(|chunk| chunk.seq).collect::<Vec<_>>(), [seq(1)]);
    scheduler.add(seq(2), 10, 10).unwrap();
    let admission = scheduler.admit(|_, _| 0);
    assert_eq!((admission.preempt, admission.open), (vec![seq(0)], vec![seq(2)]));
    scheduler.resubmit(seq(3), 10, 10).unwrap();
    scheduler.pause(seq(3));
    scheduler.add(seq(4), 10, 10).unwrap();
    scheduler.end(seq(1));
    assert_eq!(scheduler.admit(|_, _| 0).open, [seq(4)], "others pass it while it is paused");
    scheduler.end(seq(2));
    scheduler.resume(seq(3));
    assert_eq!(scheduler.admit(|_, _| 0).open, [seq(3)]);
}

#[test]
fn a_step_that_was_refused_is_planned_again() {
    let mut scheduler = Scheduler::new(LIMITS);
    scheduler.add(seq(0), 150, 3).unwrap();
    open_all(&mut scheduler);
    let first = scheduler.step();
    scheduler.withdraw();
    assert_eq!(scheduler.step(), first);
    let second = scheduler.step();
    scheduler.withdraw();
    assert_eq!(scheduler.step(), second);
    assert!(second.prefill[0].last);
}

#[test]
fn a_row_that_was_owed_a_token_and_got_none_is_named() {
    let mut scheduler = Scheduler::new(LIMITS);
    for id in 0..3 {
        scheduler.add(seq(id), 10, 3).unwrap();
    }
    open_all(&mut scheduler);
    scheduler.step();
    scheduler.end(seq(2));
    assert_eq!(scheduler.collected(&[token(0)]), [seq(1)]);
}

#[test]
fn who_begins_as_another_does_waits_for_what_they_share_and_lets_others_pass() {
    let mut scheduler = Scheduler::new(LIMITS);
    // 0, 1 and 2 share 240 tokens, 3 nothing with anybody.
    let shared = |a: SeqId, b: SeqId| if a.0 < 3 && b.0 < 3 { 240 } else { 7 };
    for id in 0..4 {
        scheduler.add(seq(id), 250, 50).unwrap();
    }
    let mut opened = Vec::new();
    for turn in 0..6 {
        for id in scheduler.admit(shared).open {
            let cached = if id.0 == 1 || id.0 == 2 { 240 } else { 0 };
            scheduler.opened(id, cached);
            opened.push((turn, id.0));
        }
        let chosen: Vec<Sampled> = scheduler.step().choosing().map(|seq| token(seq.0)).collect();
        scheduler.collected(&chosen);
    }
    // Half of each step is the oldest's at least.
    let (first, second) = opened.split_at(2);
    assert_eq!(first, [(0, 0), (0, 3)]);
    assert_eq!(second.iter().map(|(_, id)| *id).collect::<Vec<_>>(), [1, 2]);
    assert!((3..=5).contains(&second[0].0) && second[0].0 == second[1].0, "{opened:?}");
}

#[test]
fn nobody_waits_for_what_is_there_already_is_short_or_does_not_come() {
    let opened_beside = |prefilled: u32, shared: u32, paused: bool| {
        let mut scheduler = Scheduler::new(LIMITS);
        scheduler.add(seq(0), 5000, 50).unwrap();
        scheduler.admit(|_, _| shared);
        scheduler.opened(seq(0), prefilled);
        if paused {
            scheduler.pause(seq(0));
        }
        scheduler.add(seq(1), 5000, 50).unwrap();
        !scheduler.admit(|_, _| shared).is_empty()
    };
    assert!(!opened_beside(0, 400, false), "it waits");
    assert!(opened_beside(400, 400, false), "it is there");
    assert!(opened_beside(380, 400, false), "hardly anything is missing");
    assert!(opened_beside(0, 31, false), "too little to wait for");
    assert!(opened_beside(0, 400, true), "nothing is computed for a client that does not read");
}

#[test]
fn whoever_was_waited_for_and_leaves_keeps_nobody() {
    let mut scheduler = Scheduler::new(LIMITS);
    for id in 0..3 {
        scheduler.add(seq(id), 5000, 50).unwrap();
    }
    assert_eq!(scheduler.admit(|_, _| 4000).open, [seq(0)]);
    scheduler.opened(seq(0), 0);
    assert!(scheduler.admit(|_, _| 4000).is_empty());
    scheduler.end(seq(0));
    assert_eq!(scheduler.admit(|_, _| 4000).open, [seq(1)], "and 2 waits for 1 now");
    scheduler.opened(seq(1), 0);
    scheduler.end(seq(1));
    assert_eq!(scheduler.admit(|_, _| 4000).open, [seq(2)]);
}

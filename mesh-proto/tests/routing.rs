//! Routing: filters, order, sketches, breaker and latency laws, and an attempt step by step.

use std::collections::BTreeSet;

use mesh_proto::{
    ChatPrompt, Message, ModelId, Prompt, Role, TokenId, identity::NodeId, placement::ModelKey, record::Capabilities,
    routing::*, time::Millis,
};
use proptest::prelude::*;

const MESH: [u8; 32] = [5; 32];
const M: ModelKey = ModelKey([9; 32]);

fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

fn candidate(n: u8) -> Candidate {
    Candidate {
        node: node(n),
        name: ModelId::new("tiny"),
        model: M,
        context_tokens: 4096,
        capabilities: Capabilities::CHAT.and(Capabilities::RESUME),
        draining: false,
        suspect: false,
        load: Load { in_flight: 0, queued: 0, slots: 4, ttft_ms: 0, prefill_per_second: 1000 },
        sketch: Sketch::default(),
        lease: None,
    }
}

fn wish(prompt: &str) -> Wish {
    Wish {
        name: ModelId::new("tiny"),
        model: None,
        context_tokens: 100,
        needs: Capabilities::CHAT,
        prefix: PrefixChain::of(&Prompt::Text(prompt.into()), &MESH, M),
        session: None,
        salt: 0,
    }
}

fn order(candidates: &[Candidate], wish: &Wish, targets: &Targets) -> Vec<u8> {
    let routed = route(candidates, wish, targets, Millis(0)).expect("somebody fits");
    routed.choices.iter().map(|choice| choice.candidate.node.0[0]).collect()
}

fn choices(nodes: &[u8]) -> Vec<Choice> {
    let candidates: Vec<_> = nodes.iter().map(|n| candidate(*n)).collect();
    let routed = route(&candidates, &wish(""), &Targets::default(), Millis(0)).expect("all fit").choices;
    nodes
        .iter()
        .map(|n| routed.iter().find(|c| c.candidate.node == node(*n)).expect("each is a choice").clone())
        .collect()
}

fn text(blocks: usize, last: u8) -> String {
    let mut text = "x".repeat(blocks * BLOCK_BYTES);
    text.push_str(&char::from(last).to_string().repeat(BLOCK_BYTES));
    text
}

#[test]
fn an_unknown_model_is_answered_with_the_models_there_are() {
    let wish = Wish { name: ModelId::new("other"), ..wish("") };
    let error = route(&[candidate(1), candidate(2)], &wish, &Targets::default(), Millis(0)).unwrap_err();
    assert_eq!(error.to_string(), "no node serves a model named other; there are: tiny");
}

#[test]
fn whoever_does_not_fit_is_named_with_the_reason() {
    let mut small = candidate(1);
    small.context_tokens = 50;
    let mut plain = candidate(2);
    plain.capabilities = Capabilities::RESUME;
    let mut leaving = candidate(3);
    leaving.draining = true;
    let mut other = candidate(4);
    other.model = ModelKey([1; 32]);
    let wish = Wish { model: Some(M), ..wish("") };
    let error = route(&[small, plain, leaving, other], &wish, &Targets::default(), Millis(0)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no host of tiny can take this request: 0101010101 (context of 50 tokens, 100 needed), \
         0202020202 (lacks capabilities 0x1), 0303030303 (draining), 0404040404 (another model by the same name)"
    );
}

#[test]
fn the_host_of_the_conversation_goes_first_until_it_is_too_busy() {
    let mut keeper = SketchKeeper::default();
    keeper.cached(&PrefixChain::of(&Prompt::Text(text(8, b'a')), &MESH, M), None);
    let mut warm = candidate(2);
    warm.sketch = keeper.sketch();
    let wish = wish(&text(8, b'b'));
    assert_eq!(order(&[candidate(1), warm.clone()], &wish, &Targets::default())[0], 2);
    let routed = route(std::slice::from_ref(&warm), &wish, &Targets::default(), Millis(0)).unwrap();
    assert_eq!(
        routed.choices[0].reason.to_string(),
        "prefix=8/9 session=no load=0+0/4 outstanding=0 latency=50ms estimate=114ms breaker=closed"
    );
    warm.load.queued = 200;
    assert_eq!(order(&[candidate(1), warm], &wish, &Targets::default())[0], 1);
}

#[test]
fn a_named_session_goes_where_it_is_known() {
    let session = SessionKey::of("chat-1", &MESH, M);
    let mut keeper = SketchKeeper::default();
    keeper.cached(&PrefixChain::default(), Some(session));
    let mut warm = candidate(2);
    warm.sketch = keeper.sketch();
    let wish = Wish { session: Some(session), ..wish(&text(8, b'b')) };
    assert_eq!(order(&[candidate(1), warm], &wish, &Targets::default()), [2, 1]);
}

#[test]
fn a_growing_chat_keeps_its_prefix_and_another_model_or_mesh_shares_none() {
    let chat = |turns: usize| {
        let messages = (0..turns).map(|n| Message::text(Role::User, format!("{n} ").repeat(400))).collect();
        Prompt::Chat(ChatPrompt { messages, ..ChatPrompt::default() })
    };
    let mut keeper = SketchKeeper::default();
    keeper.cached(&PrefixChain::of(&chat(3), &MESH, M), None);
    let longer = PrefixChain::of(&chat(5), &MESH, M);
    let shorter = PrefixChain::of(&chat(3), &MESH, M);
    assert_eq!(keeper.sketch().matched(&longer, None).blocks, shorter.blocks());
    for stranger in [PrefixChain::of(&chat(5), &[6; 32], M), PrefixChain::of(&chat(5), &MESH, ModelKey([1; 32]))] {
        assert_eq!(keeper.sketch().matched(&stranger, None).blocks, 0);
    }
    let tokens = Prompt::Tokens((0..640).map(TokenId).collect());
    assert_eq!(PrefixChain::of(&tokens, &MESH, M).blocks(), 640 * 4 / BLOCK_BYTES);
}

#[test]
fn requests_that_are_all_alike_spread_over_hosts_that_are_all_alike() {
    let hosts: Vec<_> = (1..=4).map(candidate).collect();
    let firsts: BTreeSet<u8> =
        (0..40).map(|salt| order(&hosts, &Wish { salt, ..wish("") }, &Targets::default())[0]).collect();
    assert_eq!(firsts.len(), 4);
}

#[test]
fn a_slow_or_suspected_node_stands_behind() {
    let mut targets = Targets::new(1);
    targets.answered(node(1), Millis(900), Millis(0));
    assert_eq!(order(&[candidate(1), candidate(2)], &wish(""), &targets), [2, 1]);
    let mut suspect = candidate(2);
    suspect.suspect = true;
    assert_eq!(order(&[candidate(1), suspect], &wish(""), &targets), [1, 2]);
}

fn steps(attempt: &mut Attempt) -> Vec<Step> {
    std::iter::from_fn(|| attempt.poll_step()).collect()
}

/// The node and resume point of a step that tries.
fn tried(step: &Step) -> Option<(u8, u32)> {
    match step {
        Step::Try { choice, resume_from, .. } => Some((choice.candidate.node.0[0], *resume_from)),
        _ => None,
    }
}

fn flowing(nodes: &[u8], tokens: u32) -> Attempt {
    let mut attempt = Attempt::new(AttemptConfig::default(), choices(nodes), Millis(0));
    steps(&mut attempt);
    attempt.heard(TryNumber(1), Heard::Connected, Millis(10));
    attempt.heard(TryNumber(1), Heard::Tokens { at: 0, count: tokens }, Millis(20));
    assert_eq!(steps(&mut attempt), [Step::Deliver { count: tokens }]);
    attempt
}

#[test]
fn a_silent_host_is_left_within_a_second_and_the_next_one_goes_on_from_there() {
    let mut attempt = flowing(&[1, 2], 7);
    assert_eq!(attempt.next_wakeup(), Some(Millis(820)));
    attempt.wake(Millis(820));
    let said = steps(&mut attempt);
    assert_eq!(said[0], Step::Abandon { number: TryNumber(1), node: node(1), failure: Some(Failure::Silent) });
    assert_eq!(tried(&said[1]), Some((2, 7)));
    attempt.heard(TryNumber(1), Heard::Tokens { at: 7, count: 1 }, Millis(830));
    assert!(steps(&mut attempt).is_empty(), "the abandoned try's late tokens count for nothing");
    attempt.heard(TryNumber(2), Heard::Tokens { at: 7, count: 3 }, Millis(840));
    attempt.heard(TryNumber(2), Heard::Finished, Millis(850));
    assert_eq!(steps(&mut attempt), [Step::Deliver { count: 3 }, Step::Done { node: node(2) }]);
    assert!(attempt.is_over() && attempt.next_wakeup().is_none());
}

#[test]
fn heartbeats_keep_a_long_prefill_alive_and_a_hung_one_not() {
    let mut attempt = Attempt::new(AttemptConfig::default(), choices(&[1]), Millis(0));
    steps(&mut attempt);
    let beats = |progress: fn(u64) -> u64, attempt: &mut Attempt, from: u64, count: u64| {
        (0..count).find_map(|beat| {
            let now = Millis(from + beat * HEARTBEAT.0);
            attempt.heard(TryNumber(1), Heard::Heartbeat { progress: progress(beat) }, now);
            attempt.wake(now);
            steps(attempt).into_iter().next().map(|step| (now, step))
        })
    };
    assert_eq!(beats(|beat| beat, &mut attempt, 0, 1000), None);
    let from = 1000 * HEARTBEAT.0;
    let (when, step) = beats(|_| 7, &mut attempt, from, 1000).unwrap();
    assert_eq!(when, Millis(from) + STALL);
    assert!(matches!(step, Step::Abandon { failure: Some(Failure::Stalled), .. }));
}

#[test]
fn tokens_out_of_step_are_never_delivered() {
    for at in [0, 6, 8] {
        let mut attempt = flowing(&[1, 2], 7);
        attempt.heard(TryNumber(1), Heard::Tokens { at, count: 1 }, Millis(30));
        let said = steps(&mut attempt);
        assert!(matches!(said[0], Step::Abandon { failure: Some(Failure::OutOfStep), .. }), "{said:?}");
        assert_eq!(tried(&said[1]), Some((2, 7)));
    }
}

#[test]
fn a_generation_goes_on_only_with_its_own_model() {
    let mut attempt = flowing(&[1], 7);
    let mut other = choices(&[2]);
    other[0].candidate.model = ModelKey([1; 32]);
    let mut unable = choices(&[3]);
    unable[0].candidate.capabilities = Capabilities::CHAT;
    attempt.choices([other, unable, choices(&[4])].concat(), Millis(30));
    attempt.heard(TryNumber(1), Heard::Failed(Failure::Lost), Millis(40));
    assert_eq!(steps(&mut attempt).iter().find_map(tried), Some((4, 7)));
}

#[test]
fn the_callers_mistake_ends_it_at_once() {
    let mut attempt = Attempt::new(AttemptConfig::default(), choices(&[1, 2]), Millis(0));
    steps(&mut attempt);
    attempt.heard(TryNumber(1), Heard::Failed(Failure::Caller), Millis(5));
    assert_eq!(steps(&mut attempt).last(), Some(&Step::GiveUp(GiveUp::Caller)));
}

#[test]
fn when_all_are_busy_the_client_hears_when_to_come_back() {
    let mut attempt = Attempt::new(AttemptConfig::default(), choices(&[1, 2]), Millis(0));
    attempt.heard(TryNumber(1), Heard::Failed(Failure::Busy { retry_after: Millis(9000) }), Millis(5));
    attempt.heard(TryNumber(2), Heard::Failed(Failure::Busy { retry_after: Millis(4000) }), Millis(9));
    assert_eq!(steps(&mut attempt).last(), Some(&Step::GiveUp(GiveUp::Busy { retry_after: Millis(4000) })));
}

#[test]
fn with_nobody_left_it_asks_for_new_hosts_and_goes_on_with_one() {
    let mut attempt = flowing(&[1], 7);
    attempt.heard(TryNumber(1), Heard::Failed(Failure::Lost), Millis(100));
    steps(&mut attempt);
    attempt.wake(Millis(100) + REFRESH);
    assert_eq!(steps(&mut attempt), [Step::Refresh]);
    attempt.choices(choices(&[5]), Millis(400));
    assert_eq!(steps(&mut attempt).iter().find_map(tried), Some((5, 7)));
}

#[test]
fn with_nobody_left_for_long_it_ends_as_failed() {
    let mut attempt = flowing(&[1], 7);
    attempt.heard(TryNumber(1), Heard::Failed(Failure::Lost), Millis(100));
    let mut last = Millis(0);
    while let Some(at) = attempt.next_wakeup() {
        assert!(at > last && at <= Millis(100) + TAKE_OVER + REFRESH);
        last = at;
        attempt.wake(at);
    }
    let said = steps(&mut attempt);
    let end = GiveUp::NobodyLeft { delivered: 7, last: Failure::Lost };
    assert_eq!(said.last(), Some(&Step::GiveUp(end)));
    assert_eq!(end.to_string(), "no host took over after 7 tokens: the stream broke");
}

#[test]
fn a_request_that_kills_hosts_does_not_walk_through_the_mesh() {
    let mut attempt = Attempt::new(AttemptConfig::default(), choices(&[1, 2, 3, 4, 5, 6, 7]), Millis(0));
    for number in 1..=MAX_TRIES {
        attempt.heard(TryNumber(number), Heard::Failed(Failure::Lost), Millis(5));
    }
    let said = steps(&mut attempt);
    assert_eq!(said.iter().filter_map(tried).count() as u32, MAX_TRIES);
    assert!(matches!(said.last(), Some(Step::GiveUp(GiveUp::TooManyTries { tries: MAX_TRIES, .. }))));
}

#[test]
fn the_deadline_and_the_clients_leaving_reset_the_stream() {
    let config = AttemptConfig { deadline: Some(Millis(300)), ..AttemptConfig::default() };
    let mut attempt = Attempt::new(config, choices(&[1]), Millis(0));
    assert_eq!(attempt.next_wakeup(), Some(Millis(300)));
    attempt.wake(Millis(300));
    let abandoned = Step::Abandon { number: TryNumber(1), node: node(1), failure: None };
    assert_eq!(steps(&mut attempt)[1..], [abandoned.clone(), Step::GiveUp(GiveUp::Deadline)]);
    let mut attempt = flowing(&[1], 7);
    attempt.cancel();
    assert_eq!(steps(&mut attempt), [abandoned]);
}

#[test]
fn an_opened_breaker_lets_one_probe_through_and_backs_off_longer_each_time() {
    let mut breaker = Breaker::new(3);
    let mut now = Millis(0);
    for _ in 0..TRIP_AFTER {
        assert!(breaker.state(now).allows());
        breaker.failed(now);
    }
    let mut last = Millis(0);
    for _ in 0..8 {
        let BreakerState::Open { until } = breaker.state(now) else { panic!("not open") };
        let pause = until - now;
        assert!(pause > last || pause.0 >= OPEN_CEILING.0 * 3 / 4, "{pause} after {last}");
        assert!(pause <= OPEN_CEILING);
        last = pause;
        now = until;
        assert!(breaker.state(now).allows());
        breaker.sent(now);
        assert!(!breaker.state(now).allows(), "one probe at a time");
        breaker.failed(now);
    }
    breaker.succeeded();
    assert_eq!(breaker.state(now), BreakerState::Closed);
}

#[test]
fn who_begins_well_and_ends_badly_is_left_alone_all_the_same() {
    let (mut targets, it) = (Targets::new(7), node(1));
    let mut now = Millis(0);
    let turn = |targets: &mut Targets, at: Millis| {
        targets.sent(it, at);
        targets.answered(it, Millis(5), at);
        targets.failed(it, at);
    };
    for _ in 0..TRIP_AFTER {
        assert_eq!(targets.breaker(it, now), BreakerState::Closed);
        turn(&mut targets, now);
    }
    let mut last = Millis(0);
    for _ in 0..4 {
        let BreakerState::Open { until } = targets.breaker(it, now) else { panic!("not open") };
        assert!(until - now > last, "each time longer: {} after {last}", until - now);
        (last, now) = (until - now, until);
        turn(&mut targets, now);
    }
    // One answer to its end, and all is forgiven.
    let BreakerState::Open { until } = targets.breaker(it, now) else { panic!("not open") };
    targets.sent(it, until);
    targets.answered(it, Millis(5), until);
    assert_eq!(targets.breaker(it, until), BreakerState::Closed, "on parole");
    targets.done(it);
    turn(&mut targets, until);
    assert_eq!(targets.breaker(it, until), BreakerState::Closed);
}

proptest! {
    #[test]
    fn a_filtered_node_is_never_chosen_and_an_open_breaker_never_before_another(
        nodes in proptest::collection::vec((any::<bool>(), 0u32..200, 0u32..5, any::<bool>(), 0u32..20, any::<bool>()), 1..12),
        now in 0u64..5000,
    ) {
        let mut targets = Targets::new(7);
        let mut candidates = Vec::new();
        for (n, (draining, context, failures, suspect, queued, plain)) in nodes.into_iter().enumerate() {
            let mut c = candidate(n as u8);
            c.draining = draining;
            c.context_tokens = context;
            c.suspect = suspect;
            c.load.queued = queued;
            if plain { c.capabilities = Capabilities::RESUME; }
            (0..failures).for_each(|_| targets.failed(c.node, Millis(0)));
            candidates.push(c);
        }
        let wish = wish("");
        match route(&candidates, &wish, &targets, Millis(now)) {
            Ok(routed) => {
                prop_assert_eq!(routed.choices.len() + routed.filtered.len(), candidates.len());
                prop_assert!(routed.choices.iter().all(|c| c.candidate.unfit(&wish).is_none()));
                let allowed: Vec<bool> = routed.choices.iter().map(|c| c.reason.breaker.allows()).collect();
                prop_assert!(allowed.is_sorted_by(|a, b| a >= b), "{allowed:?}");
            }
            Err(RouteError::NoneFits { filtered, .. }) => prop_assert_eq!(filtered.len(), candidates.len()),
            Err(error) => prop_assert!(false, "{error}"),
        }
    }

    #[test]
    fn a_peak_counts_at_once_and_fades_towards_what_follows(first in 1u64..5000, second in 1u64..5000, after in 0u64..100_000) {
        let mut ewma = PeakEwma::default();
        prop_assert_eq!(ewma.millis(), UNKNOWN_LATENCY.0 as f64);
        ewma.observe(Millis(first), Millis(0));
        prop_assert_eq!(ewma.millis(), first as f64);
        ewma.observe(Millis(second), Millis(after));
        if second >= first {
            prop_assert_eq!(ewma.millis(), second as f64);
        } else {
            prop_assert!(ewma.millis() <= first as f64 && ewma.millis() >= second as f64);
        }
        if after >= 20 * EWMA_HALF_LIFE.0 { prop_assert!((ewma.millis() - second as f64).abs() < 1.0 + first as f64 / 1000.0); }
    }

    #[test]
    fn a_breaker_never_opens_without_enough_failures_in_a_row(ends in proptest::collection::vec(any::<bool>(), 0..60)) {
        let mut breaker = Breaker::new(1);
        let mut row = 0;
        for (at, well) in ends.into_iter().enumerate() {
            let now = Millis(at as u64 * 10);
            if well { breaker.succeeded(); row = 0; } else { breaker.failed(now); row += 1; }
            prop_assert_eq!(breaker.state(now).allows(), row < TRIP_AFTER);
        }
    }

    #[test]
    fn a_match_is_true_and_more_than_half_of_what_is_shared(cached in 0usize..40, shared in 0usize..40, own in 1usize..20) {
        let shared = shared.min(cached);
        let held = "x".repeat(cached * BLOCK_BYTES);
        let asked = "x".repeat(shared * BLOCK_BYTES) + &"y".repeat(own * BLOCK_BYTES);
        let mut keeper = SketchKeeper::default();
        keeper.cached(&PrefixChain::of_bytes(held.as_bytes(), &MESH, M), None);
        let found = keeper.sketch().matched(&PrefixChain::of_bytes(asked.as_bytes(), &MESH, M), None).blocks;
        prop_assert!(found <= shared && (found * 2 > shared || shared == 0), "{found} of {shared}");
    }

    #[test]
    fn a_sketch_never_outgrows_its_cap_and_keeps_the_newest(count in 1u8..80) {
        let mut keeper = SketchKeeper::default();
        let chain = |n: u8| PrefixChain::of_bytes(&[n; 16 * BLOCK_BYTES], &MESH, M);
        (0..count).for_each(|n| keeper.cached(&chain(n), None));
        prop_assert!(keeper.sketch().hashes().count() <= MAX_SKETCH);
        prop_assert_eq!(keeper.sketch().matched(&chain(count - 1), None).blocks, 16);
    }

    #[test]
    fn whatever_streams_say_tokens_are_delivered_once_and_in_order(
        says in proptest::collection::vec((0u8..8, 0u32..12, 0u32..4, 0u64..1500), 1..120),
    ) {
        let mut attempt = Attempt::new(AttemptConfig::default(), choices(&[1, 2, 3]), Millis(0));
        let (mut now, mut delivered, mut ended, mut current) = (Millis(0), 0u32, 0, TryNumber(0));
        for (what, a, b, after) in says {
            now = now + Millis(after);
            let heard = match what {
                0 => Heard::Connected,
                1 => Heard::Heartbeat { progress: u64::from(a) },
                2..5 => Heard::Tokens { at: if what == 2 { a } else { delivered }, count: b },
                5 => Heard::Failed([Failure::Lost, Failure::Engine, Failure::Draining, Failure::Connect][b as usize]),
                6 => Heard::Failed(Failure::Busy { retry_after: Millis(100) }),
                _ => Heard::Connected,
            };
            attempt.heard(TryNumber(current.0.saturating_sub(u32::from(a == 0))), heard, now);
            attempt.wake(now);
            for step in steps(&mut attempt) {
                prop_assert_eq!(ended, 0, "a step after the end");
                match step {
                    Step::Deliver { count } => delivered += count,
                    Step::Try { number, resume_from, .. } => {
                        prop_assert!(number > current && resume_from == delivered);
                        current = number;
                    }
                    Step::Done { .. } | Step::GiveUp(_) => ended += 1,
                    Step::Refresh => attempt.choices(choices(&[1, 2, 3]), now),
                    Step::Abandon { number, .. } => prop_assert_eq!(number, current),
                }
            }
            prop_assert_eq!(attempt.progress().delivered, delivered);
            prop_assert_eq!(attempt.is_over(), ended == 1);
            prop_assert!(attempt.is_over() || attempt.next_wakeup().is_some(), "it must never sleep for ever");
        }
    }
}

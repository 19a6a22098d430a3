//! Demand and placement: the laws of scores and hysteresis, and the machine step by step.

use std::collections::BTreeMap;

use mesh_proto::{
    ModelId,
    demand::{DecayedRate, DemandMeter, DemandView, HALF_LIFE, MAX_NODE_RATE, ModelDemand},
    identity::NodeId,
    placement::*,
    time::Millis,
};
use proptest::prelude::*;

fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

fn model(n: u8) -> ModelKey {
    ModelKey([n; 32])
}

fn name(text: &str) -> ModelId {
    ModelId::new(text)
}

const M: ModelKey = ModelKey([9; 32]);

/// A machine that is warm, has `M`'s files, and wants it.
fn warm(me: NodeId) -> (Placement, Millis) {
    let mut machine = Placement::new(me, Millis(0));
    machine.handle(Input::Offer { model: M, pinned: false, weight: Weight(8) }, Millis(0));
    machine.handle(Input::Demand(M, 0.5), Millis(0));
    effects(&mut machine);
    (machine, WARM_UP)
}

fn effects(machine: &mut Placement) -> Vec<Effect> {
    std::iter::from_fn(|| machine.poll_effect()).collect()
}

fn peer(n: NodeId, ready: bool, claim: Option<(u8, u64)>) -> HostView {
    let phase = if ready { Phase::Serving } else { Phase::Loading };
    let claim = claim.map(|(slot, term)| Claim { slot: Slot(slot), term: Term(term), weight: Weight(8), phase });
    HostView { node: n, draining: false, models: vec![ModelView { model: M, ready, weight: Weight(8), claim }] }
}

/// Wakes the machine at each of its alarms up to `end`.
fn sleep_until(machine: &mut Placement, mut now: Millis, end: Millis) -> Vec<Effect> {
    let mut all = Vec::new();
    while let Some(at) = machine.next_wakeup().filter(|at| *at <= end) {
        assert!(at >= now, "an alarm in the past: {at} at {now}");
        now = at.max(now + Millis(1));
        machine.handle(Input::Wake, now);
        all.extend(effects(machine));
    }
    all
}

fn own(machine: &Placement) -> Option<Claim> {
    machine.claims().map(|(_, claim)| claim).next()
}

#[test]
fn a_lone_node_claims_loads_and_serves_a_wanted_model() {
    let (mut machine, _) = warm(node(1));
    let said = sleep_until(&mut machine, Millis(0), WARM_UP + SETTLE);
    assert_eq!(said, [Effect::Load(M), Effect::Announce]);
    assert_eq!(own(&machine).unwrap().phase, Phase::Loading);
    machine.handle(Input::Loaded(M), Millis(4000));
    assert_eq!(effects(&mut machine), [Effect::Announce]);
    assert_eq!(own(&machine).map(|c| (c.slot, c.term, c.phase)), Some((Slot(0), Term(1), Phase::Serving)));
}

#[test]
fn nobody_claims_before_it_is_warm_or_a_model_nobody_wants() {
    let (mut machine, _) = warm(node(1));
    assert!(sleep_until(&mut machine, Millis(0), Millis(WARM_UP.0 - 1)).is_empty());
    let mut idle = Placement::new(node(1), Millis(0));
    idle.handle(Input::Offer { model: M, pinned: false, weight: Weight(8) }, Millis(0));
    effects(&mut idle);
    assert!(sleep_until(&mut idle, Millis(0), Millis::secs(100)).is_empty());
}

#[test]
fn a_better_scoring_joiner_does_not_take_a_hot_cache() {
    for other in 2..40 {
        let (mut machine, now) = warm(node(1));
        machine.handle(Input::Peer(peer(node(other), true, Some((0, 3)))), now);
        assert!(effects(&mut machine).is_empty());
        assert!(sleep_until(&mut machine, now, Millis::secs(50)).is_empty(), "node {other} holds the place");
    }
}

#[test]
fn those_further_back_wait_their_turn_and_then_stand_in() {
    for other in 2..40 {
        let (mut machine, now) = warm(node(1));
        machine.handle(Input::Peer(peer(node(other), false, None)), Millis(0));
        let first = rank(M, [(node(1), false, Weight(8)), (node(other), false, Weight(8))])[0].node == node(1);
        sleep_until(&mut machine, Millis(0), now + SETTLE);
        assert_eq!(own(&machine).is_some(), first);
        sleep_until(&mut machine, now + SETTLE, now + SETTLE + STAGGER);
        assert!(own(&machine).is_some());
    }
}

#[test]
fn a_dead_host_is_replaced_under_the_next_term() {
    let (mut machine, now) = warm(node(1));
    machine.handle(Input::Peer(peer(node(2), true, Some((0, 7)))), now);
    machine.handle(Input::Gone(node(2)), now + Millis(100));
    let said = sleep_until(&mut machine, now + Millis(100), now + Millis(100) + SETTLE);
    assert_eq!(said, [Effect::Load(M), Effect::Announce]);
    assert_eq!(own(&machine).unwrap().term, Term(8));
}

#[test]
fn a_draining_host_is_replaced_while_it_still_serves() {
    let (mut machine, now) = warm(node(1));
    let mut host = peer(node(2), true, Some((0, 7)));
    machine.handle(Input::Peer(host.clone()), now);
    host.draining = true;
    machine.handle(Input::Peer(host), now);
    sleep_until(&mut machine, now, now + SETTLE);
    assert_eq!(own(&machine).unwrap().term, Term(8));
}

#[test]
fn the_loser_of_a_conflict_steps_down_with_the_winners_lease_and_unloads_when_drained() {
    let (mut machine, now) = warm(node(1));
    sleep_until(&mut machine, Millis(0), now + SETTLE);
    machine.handle(Input::Loaded(M), Millis(4000));
    effects(&mut machine);
    machine.handle(Input::Peer(peer(node(2), true, Some((0, 2)))), Millis(5000));
    let said = effects(&mut machine);
    let Effect::StepDown { lease, why: StepDown::Lost { winner } } = said[0] else { panic!("{said:?}") };
    assert_eq!((lease.claim.term, winner.node, winner.claim.term), (Term(1), node(2), Term(2)));
    assert_eq!(own(&machine), None);
    machine.handle(Input::Drained(M), Millis(6000));
    assert_eq!(effects(&mut machine), [Effect::Unload(M), Effect::Announce]);
}

#[test]
fn equal_terms_are_decided_alike_by_both_sides() {
    let (mut a, now) = warm(node(1));
    let (mut b, _) = warm(node(2));
    for machine in [&mut a, &mut b] {
        sleep_until(machine, Millis(0), now + SETTLE);
    }
    let (from_a, from_b) = (a.view(), b.view());
    a.handle(Input::Peer(from_b), Millis(3000));
    b.handle(Input::Peer(from_a), Millis(3000));
    assert_eq!(usize::from(own(&a).is_some()) + usize::from(own(&b).is_some()), 1);
}

#[test]
fn a_failed_load_leaves_the_place_and_backs_off() {
    let (mut machine, now) = warm(node(1));
    sleep_until(&mut machine, Millis(0), now + SETTLE);
    machine.handle(Input::Failed(M), Millis(4000));
    let said = effects(&mut machine);
    assert!(said.iter().any(|e| matches!(e, Effect::StepDown { why: StepDown::Failed, .. })), "{said:?}");
    assert_eq!(machine.view().models[0].weight, Weight(0), "others must not count on it");
    let retry = Millis(4000) + LOAD_RETRY;
    assert!(sleep_until(&mut machine, Millis(4000), Millis(retry.0 - 1)).is_empty());
    let said = sleep_until(&mut machine, retry, retry + SETTLE);
    assert!(said.contains(&Effect::Load(M)), "{said:?}");
}

#[test]
fn who_loads_for_ever_is_passed_over() {
    let (mut machine, now) = warm(node(1));
    machine.handle(Input::Peer(peer(node(2), false, Some((0, 1)))), now);
    assert!(sleep_until(&mut machine, now, Millis(now.0 + LOAD_BOUND.0 - 1)).is_empty());
    let said = sleep_until(&mut machine, now, now + LOAD_BOUND + SETTLE);
    assert!(said.contains(&Effect::Load(M)), "{said:?}");
}

#[test]
fn a_shunned_host_does_not_count_for_a_while() {
    let (mut machine, now) = warm(node(1));
    machine.handle(Input::Peer(peer(node(2), true, Some((0, 1)))), now);
    machine.handle(Input::Shun(node(2), now + Millis::secs(30)), now);
    sleep_until(&mut machine, now, now + SETTLE);
    assert_eq!(own(&machine).unwrap().term, Term(2));
}

#[test]
fn a_draining_node_gives_up_every_place_and_takes_none() {
    let (mut machine, now) = warm(node(1));
    sleep_until(&mut machine, Millis(0), now + SETTLE);
    machine.handle(Input::Drain, Millis(4000));
    let said = effects(&mut machine);
    assert!(said.iter().any(|e| matches!(e, Effect::StepDown { why: StepDown::Draining, .. })), "{said:?}");
    assert!(machine.view().draining);
    assert!(!sleep_until(&mut machine, Millis(4000), Millis::secs(60)).contains(&Effect::Load(M)));
}

#[test]
fn a_pinned_model_stays_loaded() {
    let mut machine = Placement::new(node(1), Millis(0));
    machine.handle(Input::Offer { model: M, pinned: true, weight: Weight(8) }, Millis(0));
    machine.handle(Input::Loaded(M), Millis(10));
    machine.handle(Input::Drained(M), Millis(20));
    assert!(!effects(&mut machine).contains(&Effect::Unload(M)));
}

#[test]
fn a_higher_demand_gets_a_second_host_and_a_lower_one_gives_it_back_late() {
    let (mut machine, now) = warm(node(1));
    machine.handle(Input::Peer(peer(node(2), true, Some((0, 1)))), now);
    machine.handle(Input::Demand(M, HOST_RATE * 1.9), now);
    assert!(sleep_until(&mut machine, now, Millis(now.0 + UP_HOLD.0 - 1)).is_empty());
    sleep_until(&mut machine, now, now + UP_HOLD + SETTLE);
    assert_eq!(own(&machine).unwrap().slot, Slot(1));
    machine.handle(Input::Loaded(M), Millis::secs(10));
    machine.handle(Input::Demand(M, 0.5), Millis::secs(20));
    effects(&mut machine);
    assert!(sleep_until(&mut machine, Millis::secs(20), Millis::secs(20) + Millis(DOWN_HOLD.0 - 1)).is_empty());
    let said = sleep_until(&mut machine, Millis::secs(20), Millis::secs(20) + DOWN_HOLD);
    assert!(said.iter().any(|e| matches!(e, Effect::StepDown { why: StepDown::Surplus, .. })), "{said:?}");
}

#[test]
fn a_liars_highest_term_can_still_be_succeeded() {
    let (mut machine, now) = warm(node(1));
    machine.handle(Input::Peer(peer(node(2), true, Some((0, u64::MAX)))), now);
    machine.handle(Input::Gone(node(2)), now);
    sleep_until(&mut machine, now, now + SETTLE);
    assert_eq!(own(&machine).unwrap().term, TERM_CEILING);
    // The honest claim stands: nobody who comes after is held to a term that cannot be reached.
    assert_eq!(Term(u64::MAX).next(), TERM_CEILING);
}

#[test]
fn a_fence_lets_no_earlier_term_pass() {
    let mut fence = Fence::default();
    assert!(fence.admit(M, Slot(0), Term(3)).is_ok() && fence.admit(M, Slot(0), Term(3)).is_ok());
    let stale = fence.admit(M, Slot(0), Term(2)).unwrap_err();
    assert_eq!(stale.to_string(), "term 2 has been succeeded by term 3");
    assert!(fence.admit(M, Slot(1), Term(1)).is_ok(), "places are apart");
}

#[test]
fn capacity_makes_coarse_weights() {
    let idle = Capacity { tokens_per_second: 50, need_bytes: 4, free_bytes: 9, busy: 0, slots: 8 };
    assert_eq!(idle.weight(), Weight(4 * 2 * 4));
    assert_eq!(Capacity { free_bytes: 3, ..idle }.weight(), Weight(0));
    assert_eq!(Capacity { busy: 8, free_bytes: 5, ..idle }.weight(), Weight(4));
    assert_eq!(Capacity { busy: 1, ..idle }.weight(), idle.weight(), "one request moves nothing");
}

#[test]
fn shares_follow_weights() {
    let wins = (0..=255u8).flat_map(|a| (0..8u8).map(move |b| (a, b))).filter(|(a, b)| {
        let key = ModelKey(*key_of(*a, *b));
        rank(key, [(node(1), false, Weight(1)), (node(2), false, Weight(3))])[0].node == node(2)
    });
    let share = wins.count() as f64 / 2048.0;
    assert!((0.71..0.79).contains(&share), "three quarters expected, got {share}");
}

fn key_of(a: u8, b: u8) -> Box<[u8; 32]> {
    let mut bytes = Box::new([a; 32]);
    bytes[0] = b;
    bytes
}

#[test]
fn a_steady_stream_settles_at_its_rate_and_halves_when_it_ends() {
    let mut rate = DecayedRate::default();
    for second in 0..1200 {
        rate.count(3, Millis::secs(second));
    }
    let end = Millis::secs(1200);
    assert!((rate.per_second(end) - 3.0).abs() < 0.1, "{}", rate.per_second(end));
    assert!((rate.per_second(end + HALF_LIFE) * 2.0 - rate.per_second(end)).abs() < 1e-9);
}

#[test]
fn every_node_speaks_for_itself_and_for_no_more_than_the_cap() {
    let mut view = DemandView::default();
    let line = |millis| [ModelDemand { model: name("m"), millis }];
    view.merge(node(1), &line(500), Millis(0));
    view.merge(node(2), &line(u32::MAX), Millis(0));
    view.merge(node(1), &line(700), Millis(0));
    let expected = 0.7 + f64::from(MAX_NODE_RATE) / 1000.0;
    assert!((view.per_second(&name("m"), Millis(0)) - expected).abs() < 1e-9);
    view.forget(node(2));
    assert!((view.per_second(&name("m"), Millis(0)) - 0.7).abs() < 1e-9);
    view.forget(node(1));
    assert_eq!(view, DemandView::default());
}

#[test]
fn a_meter_reports_what_it_was_asked_and_forgets_in_the_end() {
    let mut meter = DemandMeter::default();
    meter.asked(name("b"), Millis(0));
    meter.asked(name("a"), Millis(0));
    let names: Vec<_> = meter.report(Millis(0)).into_iter().map(|line| line.model).collect();
    assert_eq!(names, [name("a"), name("b")]);
    assert!(meter.report(Millis::secs(3600)).is_empty());
}

proptest! {
    #[test]
    fn when_a_node_leaves_only_its_models_move(leaver in 0u8..20, weights in proptest::collection::vec(1u32..64, 20)) {
        let nodes: Vec<_> = (0..20u8).map(|n| (node(n), false, Weight(weights[usize::from(n)]))).collect();
        for m in 0..50 {
            let before = rank(model(m), nodes.clone());
            let after = rank(model(m), nodes.iter().copied().filter(|(id, ..)| *id != node(leaver)));
            let rest: Vec<_> = before.into_iter().filter(|r| r.node != node(leaver)).collect();
            prop_assert_eq!(rest, after);
        }
    }

    #[test]
    fn when_a_weight_changes_models_move_from_or_to_that_node_only(who in 0u8..20, weight in 0u32..64) {
        let with = |w: u32| (0..20u8).map(move |n| (node(n), false, Weight(if n == who { w } else { 16 })));
        for m in 0..50 {
            let (before, after) = (rank(model(m), with(16))[0].node, rank(model(m), with(weight))[0].node);
            prop_assert!(before == after || before == node(who) || after == node(who));
        }
    }

    #[test]
    fn a_steady_demand_never_moves_the_number_of_hosts(rate in 0.0f64..20.0, noise in proptest::collection::vec(0.9f64..1.1, 100)) {
        let mut wanted = Wanted::default();
        let mut now = Millis(0);
        for _ in 0..20 {
            now = now + Millis::secs(1);
            wanted.update(rate * 1.1, now);
        }
        let settled = wanted.hosts();
        for (step, factor) in noise.iter().cycle().take(2000).enumerate() {
            wanted.update(rate * factor, Millis::secs(20 + step as u64));
            prop_assert!(wanted.hosts() <= settled, "a noise of a tenth added a host");
        }
        let least = wanted.hosts();
        prop_assert!(least == settled || settled - least <= 1, "{settled} to {least}");
    }

    #[test]
    fn hosts_move_at_most_once_per_hold(rates in proptest::collection::vec(0.0f64..20.0, 400)) {
        let mut wanted = Wanted::default();
        let (mut drops, mut before) = (0, 0);
        for (second, rate) in rates.iter().enumerate() {
            wanted.update(*rate, Millis::secs(second as u64));
            drops += u32::from(wanted.hosts() < before);
            before = wanted.hosts();
            prop_assert!(before <= MAX_HOSTS);
        }
        prop_assert!(drops <= 1, "{} drops in 400 s", drops);
    }

    #[test]
    fn of_two_leases_exactly_one_beats_the_other(a in lease(), b in lease()) {
        prop_assert!(!a.beats(&a));
        prop_assert!(a == b || a.beats(&b) != b.beats(&a) || (a.node == b.node && a.claim.term == b.claim.term));
        if a.claim.term > b.claim.term { prop_assert!(a.beats(&b)); }
    }

    #[test]
    fn the_machines_own_terms_only_grow(inputs in proptest::collection::vec((2u8..6, 0u8..6, 0u64..30, 1u64..3000), 1..80)) {
        let (mut machine, mut now) = warm(node(1));
        let mut last: BTreeMap<Slot, Term> = BTreeMap::new();
        for (n, what, term, after) in inputs {
            now = now + Millis(after);
            machine.handle(match what {
                0 => Input::Gone(node(n)),
                1 => Input::Loaded(M),
                2 => Input::Failed(M),
                3 => Input::Wake,
                4 => Input::Demand(M, term as f64 / 3.0),
                _ => Input::Peer(peer(node(n), term % 2 == 0, (term > 5).then_some(((term % 3) as u8, term)))),
            }, now);
            effects(&mut machine);
            if let Some(claim) = own(&machine) {
                let before = last.insert(claim.slot, claim.term).unwrap_or_default();
                prop_assert!(claim.term >= before);
                let held = machine.leases(M, now).into_iter().find(|l| l.claim.slot == claim.slot).unwrap();
                prop_assert_eq!(held.node, node(1), "it holds what it knows it lost");
            }
            machine.handle(Input::Wake, now);
            effects(&mut machine);
            prop_assert!(machine.next_wakeup().is_none_or(|at| at > now), "an alarm that rings for ever");
        }
    }

    #[test]
    fn demand_is_the_same_in_whatever_order_it_arrives(words in proptest::collection::vec((0u8..5, 1u32..1000), 1..20)) {
        let newest: BTreeMap<u8, u32> = words.iter().copied().collect();
        let mut view = DemandView::default();
        for (n, millis) in &words {
            view.merge(node(*n), &[ModelDemand { model: name("m"), millis: *millis }], Millis(5));
        }
        let sum: f64 = newest.values().map(|m| f64::from(*m) / 1000.0).sum();
        prop_assert!((view.per_second(&name("m"), Millis(5)) - sum).abs() < 1e-9);
    }
}

fn lease() -> impl Strategy<Value = Lease> {
    (0u8..5, 0u64..4, 1u32..64).prop_map(|(n, term, weight)| Lease {
        model: M,
        node: node(n),
        claim: Claim { slot: Slot(0), term: Term(term), weight: Weight(weight), phase: Phase::Serving },
    })
}

//! The failure detector: the dead are noticed in time, the slow and the stalled are not killed.
#![allow(clippy::unwrap_used, reason = "a test says what it expects in the shortest way")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use mesh_proto::{identity::NodeId, suspicion::*, time::Millis};
use proptest::prelude::*;
use support::*;

/// Detectors over links with a delay, in virtual time.
struct World {
    now: u64,
    nodes: BTreeMap<NodeId, Suspicion>,
    queue: BTreeMap<(u64, u64), (NodeId, Event)>,
    count: u64,
    delay: BTreeMap<NodeId, u64>,
    down: BTreeSet<NodeId>,
    cut: BTreeSet<(NodeId, NodeId)>,
    loss: u64,
    log: Vec<(u64, NodeId, Effect)>,
}

#[derive(Clone, Copy)]
enum Event {
    Input(Input),
    Wake,
}

fn id(number: u8) -> NodeId {
    NodeId([number; 32])
}

const LIFE: u64 = 1000;

impl World {
    /// Nodes 1 to `size`, all watching each other, all heard.
    fn new(size: u8) -> Self {
        let nodes = (1..=size).map(|n| (id(n), Suspicion::new(id(n), LIFE, Config::default(), n.into())));
        let mut world = Self {
            now: 0,
            nodes: nodes.collect(),
            queue: BTreeMap::new(),
            count: 0,
            delay: BTreeMap::new(),
            down: BTreeSet::new(),
            cut: BTreeSet::new(),
            loss: 0,
            log: Vec::new(),
        };
        for (a, b) in (1..=size).flat_map(|a| (1..=size).map(move |b| (a, b))).filter(|(a, b)| a != b) {
            world.tell(id(a), Input::Watch { node: id(b), incarnation: LIFE });
        }
        world.run(3_000);
        world.log.clear();
        world
    }

    fn tell(&mut self, node: NodeId, input: Input) {
        if self.down.contains(&node) {
            return;
        }
        let machine = self.nodes.get_mut(&node).unwrap();
        machine.handle(input, Millis(self.now));
        while let Some(effect) = self.nodes.get_mut(&node).unwrap().poll_effect() {
            match effect {
                Effect::Send { to, frame } => self.send(node, to, frame),
                Effect::Declare { node: dead, incarnation } => {
                    let others: Vec<NodeId> = self.nodes.keys().copied().filter(|other| *other != node).collect();
                    for to in others {
                        self.send(node, to, ProbeFrame::Accuse { node: dead, incarnation });
                    }
                    self.log.push((self.now, node, effect));
                }
                _ => self.log.push((self.now, node, effect)),
            }
        }
        if let Some(at) = self.nodes[&node].next_wakeup() {
            self.later(at.0.max(self.now), node, Event::Wake);
        }
    }

    fn later(&mut self, at: u64, node: NodeId, event: Event) {
        self.count += 1;
        self.queue.insert((at, self.count), (node, event));
    }

    fn send(&mut self, from: NodeId, to: NodeId, frame: ProbeFrame) {
        // Deterministic loss: a hash of the message's number.
        let lost = self.loss > 0 && (self.count.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33) % 100 < self.loss;
        if self.cut.contains(&(from, to)) || lost {
            self.count += 1;
            return;
        }
        let slow = |node: &NodeId| self.delay.get(node).copied().unwrap_or(1);
        let at = self.now + slow(&from).max(slow(&to));
        self.later(at, to, Event::Input(Input::Frame { from, frame }));
    }

    fn run(&mut self, end: u64) {
        while let Some((&(at, count), _)) = self.queue.first_key_value() {
            if at > end {
                break;
            }
            let (node, event) = self.queue.remove(&(at, count)).unwrap();
            self.now = self.now.max(at);
            match event {
                Event::Input(input) => self.tell(node, input),
                // Wake-ups that were overtaken are no reason to ask.
                Event::Wake if self.nodes[&node].next_wakeup().is_some_and(|due| due.0 <= at) => {
                    self.tell(node, Input::Wake);
                }
                Event::Wake => {}
            }
        }
        self.now = end;
    }

    fn health(&self, here: u8, there: u8) -> Health {
        self.nodes[&id(here)].health(&id(there)).unwrap()
    }

    /// When each node declared `dead` dead.
    fn deaths(&self, dead: u8) -> BTreeMap<NodeId, u64> {
        let of = |(at, node, effect): &(u64, NodeId, Effect)| match effect {
            Effect::Changed { node: peer, health: Health::Dead { .. }, .. } if *peer == id(dead) => Some((*node, *at)),
            _ => None,
        };
        self.log.iter().filter_map(of).collect()
    }

    fn any_death(&self) -> bool {
        self.log.iter().any(|(_, _, effect)| matches!(effect, Effect::Changed { health: Health::Dead { .. }, .. }))
    }
}

#[test]
fn in_peace_everybody_is_alive_and_nothing_is_said_but_probes() {
    let mut world = World::new(5);
    world.run(60_000);
    assert!(world.log.is_empty(), "{:?}", world.log);
    assert_eq!(world.health(1, 5), Health::Alive);
}

#[test]
fn a_killed_node_is_dead_on_every_node_within_three_seconds_whenever_it_is_killed() {
    for moment in (3_000..4_000).step_by(37) {
        let mut world = World::new(5);
        world.run(moment);
        world.down.insert(id(5));
        // QUIC notices after its idle time, on each node at another moment.
        for n in 1..5 {
            world.later(moment + 1_500 + u64::from(n) * 200, id(n), Event::Input(Input::Closed(id(5))));
        }
        world.run(moment + 3_000);
        let deaths = world.deaths(5);
        assert_eq!(deaths.len(), 4, "killed at {moment}: {deaths:?}");
        assert!(deaths.values().all(|at| (2_000..=2_700).contains(&(at - moment))), "{moment}: {deaths:?}");
    }
}

#[test]
fn it_is_noticed_in_time_also_without_a_word_from_quic() {
    let mut world = World::new(3);
    world.down.insert(id(3));
    world.run(6_000);
    assert_eq!(world.deaths(3).len(), 2);
}

#[test]
fn a_cut_cable_is_death_on_both_sides() {
    let mut world = World::new(5);
    for n in 1..5 {
        world.cut.insert((id(n), id(5)));
        world.cut.insert((id(5), id(n)));
    }
    world.run(6_000);
    assert_eq!(world.deaths(5).len(), 4);
    // The one that was cut off has lost all others, and knows it.
    assert!((1..5).all(|n| world.deaths(n).contains_key(&id(5))));
}

#[test]
fn a_slow_peer_is_not_declared_dead() {
    let mut world = World::new(5);
    world.run(10_000);
    // From one moment on, everything to and from it takes 0.75 s: answers come 1.5 s late.
    world.delay.insert(id(5), 750);
    world.run(60_000);
    assert!(!world.any_death(), "{:?}", world.deaths(5));
    assert_eq!(world.health(1, 5), Health::Alive);
}

#[test]
fn a_peer_that_stalls_for_a_second_and_a_half_again_and_again_is_not_declared_dead() {
    let mut world = World::new(4);
    for start in (3_000u64..40_000).step_by(4_000) {
        world.run(start);
        // A process that is stopped answers nothing and then all at once.
        world.delay.insert(id(4), 1_500);
        world.run(start + 1_500);
        world.delay.remove(&id(4));
        world.run(start + 4_000);
    }
    assert!(!world.any_death());
}

#[test]
fn heavy_loss_kills_nobody() {
    let mut world = World::new(5);
    world.loss = 10;
    world.run(120_000);
    assert!(!world.any_death(), "{:?}", world.log);
}

#[test]
fn a_link_that_is_cut_between_two_only_is_suspicion_not_death() {
    let mut world = World::new(5);
    world.cut.insert((id(1), id(5)));
    world.cut.insert((id(5), id(1)));
    world.run(20_000);
    assert!(!world.any_death());
    assert!(matches!(world.health(1, 5), Health::Suspect { vouched: true, .. }));
    assert_eq!(world.health(2, 5), Health::Alive);
    // It heals by the first thing that is heard.
    world.cut.clear();
    world.run(21_000);
    assert_eq!(world.health(1, 5), Health::Alive);
}

#[test]
fn a_one_way_cut_is_suspected_where_nothing_is_heard() {
    let mut world = World::new(5);
    world.cut.insert((id(5), id(1)));
    world.run(10_000);
    assert!(matches!(world.health(1, 5), Health::Suspect { vouched: true, .. }));
    // It hears node 1's probes, and so believes that it lives.
    assert_eq!(world.health(5, 1), Health::Alive);
}

#[test]
fn others_words_do_not_keep_a_peer_that_is_never_heard_for_ever() {
    let mut world = World::new(3);
    world.cut.insert((id(1), id(3)));
    world.cut.insert((id(3), id(1)));
    world.run(45_000);
    let why = Death::Unreachable;
    assert_eq!(world.health(1, 3), Health::Dead { why });
    assert_eq!(world.health(2, 3), Health::Alive);
}

#[test]
fn who_says_goodbye_is_gone_at_once_and_late_bytes_do_not_bring_it_back() {
    let mut world = World::new(3);
    let farewell = world.nodes[&id(3)].farewell();
    world.tell(id(1), Input::Frame { from: id(3), frame: farewell });
    world.tell(id(1), Input::Heard(id(3)));
    world.tell(id(1), Input::Closed(id(3)));
    assert_eq!(world.health(1, 3), Health::Left);
    assert_eq!(world.log.len(), 1);
    // The next life does.
    world.tell(id(1), Input::Watch { node: id(3), incarnation: LIFE + 1 });
    world.run(world.now + 100);
    assert_eq!(world.health(1, 3), Health::Alive);
}

#[test]
fn a_goodbye_of_an_earlier_life_is_not_one_of_this() {
    let mut world = World::new(3);
    world.tell(id(1), Input::Watch { node: id(3), incarnation: LIFE + 5 });
    world.tell(id(1), Input::Frame { from: id(3), frame: ProbeFrame::Leave { incarnation: LIFE } });
    assert_eq!(world.health(1, 3), Health::Alive);
}

#[test]
fn a_node_that_outran_its_own_past_refutes_and_says_goodbye_in_its_new_life() {
    let mut outran = Suspicion::new(id(1), LIFE, Config::default(), 1);
    outran.handle(Input::Outran { incarnation: LIFE + 9 }, Millis(0));
    assert_eq!(outran.farewell(), ProbeFrame::Leave { incarnation: LIFE + 9 });
    let accused = ProbeFrame::Accuse { node: id(1), incarnation: LIFE + 9 };
    outran.handle(Input::Frame { from: id(2), frame: accused }, Millis(0));
    assert_eq!(outran.incarnation(), LIFE + 10);
}

#[test]
fn a_liars_accusations_kill_nobody_and_move_the_accused_at_most_once_a_second() {
    let mut world = World::new(5);
    for at in (3_000..13_000).step_by(10) {
        world.run(at);
        for n in [1, 2, 4] {
            let incarnation = world.nodes[&id(4)].incarnation();
            world.tell(id(n), Input::Frame { from: id(3), frame: ProbeFrame::Accuse { node: id(4), incarnation } });
            let far = ProbeFrame::Accuse { node: id(4), incarnation: u64::MAX };
            world.tell(id(n), Input::Frame { from: id(3), frame: far });
        }
    }
    assert!(!world.any_death());
    let refuted = world.log.iter().filter(|(_, _, effect)| matches!(effect, Effect::Refute { .. })).count();
    assert!((1..=11).contains(&refuted), "{refuted}");
    assert_eq!(world.nodes[&id(4)].incarnation(), LIFE + refuted as u64);
}

#[test]
fn a_liars_vouching_keeps_the_dead_suspected_and_not_for_ever() {
    let mut world = World::new(3);
    world.down.insert(id(3));
    for at in (3_000..40_000).step_by(100) {
        world.run(at);
        world.tell(id(1), Input::Frame { from: id(2), frame: ProbeFrame::Vouch(id(3)) });
        assert!(at < 4_500 || world.health(1, 3) != Health::Alive);
    }
    assert!(matches!(world.health(1, 3), Health::Dead { .. }));
}

#[test]
fn a_voucher_whom_nobody_asked_is_not_believed() {
    let mut detector = Suspicion::new(id(1), LIFE, Config::default(), 1);
    let vouch = Input::Frame { from: id(2), frame: ProbeFrame::Vouch(id(3)) };
    detector.handle(Input::Watch { node: id(3), incarnation: LIFE }, Millis(0));
    detector.handle(vouch, Millis(10));
    assert_eq!(detector.health(&id(3)), Some(Health::Suspect { why: Doubt::Unproven, vouched: false }));
    while let Some(at) = detector.next_wakeup().filter(|at| *at <= Millis(1_200)) {
        detector.handle(Input::Wake, at);
    }
    detector.handle(vouch, Millis(1_250));
    assert_eq!(detector.health(&id(3)), Some(Health::Suspect { why: Doubt::Unproven, vouched: true }));
}

#[test]
fn a_node_that_was_stopped_itself_does_not_take_its_own_silence_for_the_others() {
    let mut world = World::new(5);
    world.run(10_000);
    // Stopped for eight seconds, then its queue is read: first the timers, late.
    world.now = 18_000;
    for _ in 0..3 {
        world.tell(id(1), Input::Wake);
    }
    assert!(!world.any_death());
    world.run(20_000);
    assert!(world.nodes[&id(1)].iter().all(|(_, health)| health == Health::Alive));
}

#[test]
fn the_dead_come_back_by_being_heard_or_by_a_later_life() {
    let mut world = World::new(3);
    world.down.insert(id(3));
    world.run(7_000);
    assert!(matches!(world.health(1, 3), Health::Dead { .. }));
    world.down.remove(&id(3));
    // The same life again does not revive it by word; but it is looked at again, and answers.
    world.run(12_000);
    world.tell(id(1), Input::Watch { node: id(3), incarnation: LIFE });
    assert!(matches!(world.health(1, 3), Health::Dead { .. }));
    world.run(12_100);
    assert_eq!(world.health(1, 3), Health::Alive);
    world.tell(id(2), Input::Watch { node: id(3), incarnation: LIFE + 1 });
    world.run(12_200);
    assert_eq!(world.health(2, 3), Health::Alive);
}

#[test]
fn in_a_big_mesh_an_accusation_makes_those_who_do_not_watch_look_for_themselves() {
    let mut alone = Suspicion::new(id(1), LIFE, Config::default(), 1);
    let accuse = |node| Input::Frame { from: id(2), frame: ProbeFrame::Accuse { node, incarnation: LIFE } };
    alone.handle(accuse(id(3)), Millis(0));
    assert_eq!(alone.health(&id(3)), Some(Health::Suspect { why: Doubt::Accused, vouched: false }));
    alone.handle(accuse(id(4)), Millis(0));
    let wake = |alone: &mut Suspicion, end| {
        while let Some(at) = alone.next_wakeup().filter(|at| *at <= end) {
            alone.handle(Input::Wake, at);
        }
    };
    wake(&mut alone, Millis(1_500));
    alone.handle(Input::Heard(id(4)), Millis(1_500));
    assert_eq!(alone.health(&id(4)), None);
    wake(&mut alone, Millis(4_100));
    assert!(matches!(alone.health(&id(3)), Some(Health::Dead { .. })));
    let told = std::iter::from_fn(|| alone.poll_effect()).any(|effect| matches!(effect, Effect::Declare { .. }));
    assert!(!told, "all were told already");
    // A liar cannot make it look at more than so many.
    for n in 0..2_000u64 {
        alone.handle(accuse(key(n).id()), Millis(4_200));
    }
    assert!(alone.iter().count() <= 1_025);
    let probes = |alone: &mut Suspicion| std::iter::from_fn(|| alone.poll_effect()).filter(probes).count();
    probes(&mut alone);
    wake(&mut alone, Millis(5_200 + 499));
    assert!((1..=64).contains(&probes(&mut alone)), "64 looks at a time");
}

fn probes(effect: &Effect) -> bool {
    matches!(effect, Effect::Send { frame: ProbeFrame::Ping(_), .. })
}

#[test]
fn in_a_big_mesh_who_refutes_an_accusation_in_time_is_not_dialled_by_all() {
    let mut alone = Suspicion::new(id(1), LIFE, Config::default(), 1);
    let accused = ProbeFrame::Accuse { node: id(3), incarnation: LIFE };
    alone.handle(Input::Frame { from: id(2), frame: accused }, Millis(0));
    // An older word does not clear it, the next life does.
    alone.handle(Input::Said { node: id(3), incarnation: LIFE }, Millis(100));
    assert!(alone.health(&id(3)).is_some());
    alone.handle(Input::Said { node: id(3), incarnation: LIFE + 1 }, Millis(400));
    assert_eq!((alone.health(&id(3)), alone.next_wakeup()), (None, None));
    assert!(!std::iter::from_fn(|| alone.poll_effect()).any(|effect| probes(&effect)));
}

#[test]
fn who_is_asked_about_a_member_it_does_not_watch_looks_and_vouches() {
    let mut helper = Suspicion::new(id(1), LIFE, Config::default(), 1);
    let mut ask = |from: u8, about: u8, now: u64| {
        helper.handle(Input::Frame { from: id(from), frame: ProbeFrame::Ask(id(about)) }, Millis(now));
        std::iter::from_fn(|| helper.poll_effect()).collect::<Vec<_>>()
    };
    let looks = |effects: &[Effect], at: u8| matches!(effects, [Effect::Send { to, frame: ProbeFrame::Ping(_) }] if *to == id(at));
    assert!(looks(&ask(2, 9, 0), 9));
    assert_eq!(ask(3, 9, 10), [], "the same look serves both");
    assert!(looks(&ask(2, 9, 700), 9), "the first one may have been lost");
    assert_eq!(ask(2, 1, 700), [], "nobody looks for itself");
    // A liar's questions do not make it dial a whole mesh.
    let dials = (20..200).filter(|about| !ask(2, *about, 700).is_empty()).count();
    assert!(dials < 8, "{dials}");
    helper.handle(Input::Frame { from: id(9), frame: ProbeFrame::Pong(1) }, Millis(800));
    let vouches: Vec<Effect> = std::iter::from_fn(|| helper.poll_effect()).collect();
    let vouch = |to: u8| Effect::Send { to: id(to), frame: ProbeFrame::Vouch(id(9)) };
    assert_eq!(vouches, [vouch(2), vouch(3)]);
    assert_eq!(helper.health(&id(9)), None, "it is not watched for that");
}

#[test]
fn who_is_heard_after_it_was_declared_dead_is_told_and_begins_another_life() {
    let mut detector = Suspicion::new(id(1), LIFE, Config::default(), 1);
    detector.handle(Input::Watch { node: id(2), incarnation: LIFE }, Millis(0));
    while let Some(at) = detector.next_wakeup().filter(|at| at.0 < 4_000) {
        detector.handle(Input::Wake, at);
    }
    assert!(matches!(detector.health(&id(2)), Some(Health::Dead { .. })));
    let mut told = |now: u64| {
        while detector.poll_effect().is_some() {}
        detector.handle(Input::Heard(id(2)), Millis(now));
        std::iter::from_fn(|| detector.poll_effect())
            .filter_map(|effect| match effect {
                Effect::Send { to, frame: frame @ ProbeFrame::Accuse { .. } } => Some((to, frame)),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    let accusation = ProbeFrame::Accuse { node: id(2), incarnation: LIFE };
    assert_eq!(told(5_000), [(id(2), accusation)]);
    assert_eq!(told(5_010), [], "once");
    assert_eq!(told(6_000), [(id(2), accusation)], "the first one may have been lost");
    assert_eq!(told(6_900), [], "it answers once a second");
    let mut accused = Suspicion::new(id(2), LIFE, Config::default(), 2);
    accused.handle(Input::Frame { from: id(1), frame: accusation }, Millis(5_050));
    let effects: Vec<Effect> = std::iter::from_fn(|| accused.poll_effect()).collect();
    assert!(effects.contains(&Effect::Refute { incarnation: LIFE + 1 }), "{effects:?}");
    // Its new record is all that is waited for: then it is watched as before, or in a big mesh by others.
    detector.handle(Input::Watch { node: id(2), incarnation: LIFE + 1 }, Millis(7_500));
    detector.handle(Input::Heard(id(2)), Millis(8_900));
    assert_eq!(detector.health(&id(2)), Some(Health::Alive));
    let accuses = |effect: &Effect| matches!(effect, Effect::Send { frame: ProbeFrame::Accuse { .. }, .. });
    assert!(!std::iter::from_fn(|| detector.poll_effect()).any(|effect| accuses(&effect)));
}

#[test]
fn everybody_is_watched_by_five_in_a_big_mesh_and_by_all_in_a_small_one() {
    let small: BTreeSet<NodeId> = (0..64u64).map(|n| key(n).id()).collect();
    assert_eq!(watched(&key(1).id(), &small).len(), 63);
    let big: BTreeSet<NodeId> = (0..300u64).map(|n| key(n).id()).collect();
    let mut watchers = BTreeMap::<NodeId, usize>::new();
    for me in &big {
        for node in watched(me, &big) {
            assert_ne!(node, *me);
            *watchers.entry(node).or_default() += 1;
        }
    }
    assert!(watchers.len() == 300 && watchers.values().all(|count| *count == WATCHERS));
}

#[test]
fn a_watchlist_is_what_watching_says_however_members_came_and_went() {
    let me = key(0).id();
    let all: Vec<NodeId> = (1..120u64).map(|n| key(n).id()).collect();
    let (mut list, mut members, mut watched_now) = (Watchlist::new(&me), BTreeSet::from([me]), BTreeSet::new());
    let mut dice = 7u64;
    for step in 0..2_000 {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let node = all[(dice >> 33) as usize % all.len()];
        // More come than go, then more go than come: across the border between both manners, twice.
        let change = if (dice >> 20) % 4 < if step < 1_000 { 3 } else { 1 } {
            members.insert(node);
            list.came(node)
        } else {
            members.remove(&node);
            watched_now.remove(&node);
            list.went(&node)
        };
        assert!(change.forget.iter().all(|node| watched_now.remove(node)), "only who was watched is forgotten");
        assert!(change.watch.iter().all(|node| watched_now.insert(*node)), "nobody is watched twice");
        assert_eq!(watched_now, watched(&me, &members), "step {step}, {} members", members.len());
        assert!(all.iter().all(|node| list.watches(node) == watched_now.contains(node)));
    }
    assert_eq!(list.came(me), Rewatch::default(), "nobody watches himself");
}

fn any_input() -> impl Strategy<Value = Input> {
    let node = || (0u8..6).prop_map(id);
    let life = || LIFE..LIFE + 3;
    let frame = prop_oneof![
        any::<u64>().prop_map(ProbeFrame::Ping),
        any::<u64>().prop_map(ProbeFrame::Pong),
        node().prop_map(ProbeFrame::Ask),
        node().prop_map(ProbeFrame::Vouch),
        (node(), life()).prop_map(|(node, incarnation)| ProbeFrame::Accuse { node, incarnation }),
        life().prop_map(|incarnation| ProbeFrame::Leave { incarnation }),
    ];
    prop_oneof![
        (node(), life()).prop_map(|(node, incarnation)| Input::Watch { node, incarnation }),
        node().prop_map(Input::Forget),
        node().prop_map(Input::Heard),
        node().prop_map(Input::Closed),
        node().prop_map(Input::ProbeFailed),
        (node(), frame).prop_map(|(from, frame)| Input::Frame { from, frame }),
        Just(Input::Wake),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_heard_nobody_dies_within_a_second_and_a_half_of_being_heard(
        inputs in prop::collection::vec((any_input(), 0u64..900), 1..120)
    ) {
        let mut detector = Suspicion::new(id(0), LIFE, Config::default(), 1);
        let (mut now, mut heard) = (0, BTreeMap::<NodeId, u64>::new());
        for (input, later) in inputs {
            // Woken as promised in between.
            while let Some(at) = detector.next_wakeup().filter(|at| at.0 < now + later) {
                detector.handle(Input::Wake, at);
                let mut rounds = 0;
                while detector.next_wakeup().is_some_and(|next| next <= at) {
                    detector.handle(Input::Wake, at);
                    rounds += 1;
                    prop_assert!(rounds < 3, "busy at {at}");
                }
                check_deaths(&mut detector, at.0, &heard);
            }
            now += later;
            {
                let at = now;
                match input {
                    Input::Heard(node) => { heard.insert(node, at); }
                    Input::Frame { from, frame } if !matches!(frame, ProbeFrame::Leave { .. }) => {
                        heard.insert(from, at);
                    }
                    _ => {}
                }
                detector.handle(input, Millis(at));
                check_deaths(&mut detector, at, &heard);
            }
        }
    }
}

fn check_deaths(detector: &mut Suspicion, now: u64, heard: &BTreeMap<NodeId, u64>) {
    while let Some(effect) = detector.poll_effect() {
        if let Effect::Changed { node, health: Health::Dead { .. }, .. } = effect {
            let since = heard.get(&node).map_or(u64::MAX, |at| now - at);
            assert!(since >= 1_500, "{node:?} dead {since} ms after it was heard");
            assert_ne!(node, id(0));
        }
    }
}

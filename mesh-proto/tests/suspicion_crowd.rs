//! The failure detector in a big mesh: what is said of those whom a node does not watch.
#![allow(clippy::unwrap_used, reason = "a test says what it expects in the shortest way")]

mod support;

use mesh_proto::{
    codec::{self, CodecError},
    identity::NodeId,
    suspicion::*,
    time::Millis,
};

const LIFE: u64 = 1_000;

fn id(number: u8) -> NodeId {
    NodeId([number; 32])
}

fn probes(effect: &Effect) -> bool {
    matches!(effect, Effect::Send { frame: ProbeFrame::Ping(_), .. })
}

#[test]
fn who_answers_and_never_begins_another_life_is_not_probed_for_ever() {
    let mut detector = Suspicion::new(id(1), LIFE, Config::default(), 1);
    detector.handle(Input::Watch { node: id(2), incarnation: LIFE }, Millis(0));
    let mut told = 0;
    while let Some(at) = detector.next_wakeup().filter(|at| at.0 < 100_000) {
        detector.handle(Input::Wake, at);
        let effects: Vec<Effect> = std::iter::from_fn(|| detector.poll_effect()).collect();
        told += effects.iter().filter(|e| matches!(e, Effect::Send { frame: ProbeFrame::Accuse { .. }, .. })).count();
        if at.0 > 3_000 && effects.iter().any(probes) {
            detector.handle(Input::Heard(id(2)), at);
        }
        if at.0 <= 3_000 && matches!(detector.health(&id(2)), Some(Health::Dead { .. })) {
            detector.handle(Input::Heard(id(2)), at);
        }
    }
    assert!((40..=61).contains(&told), "told {told} times in a minute");
    assert_eq!((detector.health(&id(2)), detector.next_wakeup()), (None, None));
}

#[test]
fn a_record_that_stands_again_clears_the_fallen_whatever_life_a_liar_named() {
    let mut alone = Suspicion::new(id(1), LIFE, Config::default(), 1);
    let accused = ProbeFrame::Accuse { node: id(3), incarnation: LIFE + 7 };
    alone.handle(Input::Frame { from: id(2), frame: accused }, Millis(0));
    while let Some(at) = alone.next_wakeup().filter(|at| at.0 < 6_000) {
        alone.handle(Input::Wake, at);
    }
    assert!(matches!(alone.health(&id(3)), Some(Health::Dead { .. })));
    alone.handle(Input::Said { node: id(3), incarnation: LIFE + 1 }, Millis(6_000));
    assert_eq!((alone.health(&id(3)), alone.next_wakeup()), (None, None));
}

#[test]
fn an_accusation_counts_for_the_life_that_is_known_and_can_be_refuted() {
    let accuse = |incarnation| ProbeFrame::Accuse { node: id(3), incarnation };
    let known = |_: &NodeId| Some(LIFE);
    assert_eq!(accuse(LIFE).of_known(known), Some(accuse(LIFE)));
    assert_eq!(accuse(u64::MAX).of_known(known), Some(accuse(LIFE)));
    assert_eq!(accuse(LIFE - 1).of_known(known), None, "refuted already");
    assert_eq!(accuse(LIFE).of_known(|_| None), None, "nobody of that name");
    assert_eq!(ProbeFrame::Ping(1).of_known(|_| None), Some(ProbeFrame::Ping(1)));
    // The accused refutes it whatever life it names, or all who heard it would have to look.
    let mut node = Suspicion::new(id(3), LIFE, Config::default(), 1);
    node.handle(Input::Frame { from: id(2), frame: accuse(u64::MAX) }, Millis(0));
    assert_eq!(node.incarnation(), LIFE + 1);
    node.handle(Input::Frame { from: id(2), frame: accuse(LIFE) }, Millis(5_000));
    assert_eq!(node.incarnation(), LIFE + 1, "late news");
}

#[test]
fn others_are_asked_once_about_a_node_that_all_look_at() {
    let mut alone = Suspicion::new(id(1), LIFE, Config::default(), 1);
    for friend in 10..20 {
        alone.handle(Input::Watch { node: id(friend), incarnation: LIFE }, Millis(0));
    }
    let accused = ProbeFrame::Accuse { node: id(3), incarnation: LIFE };
    alone.handle(Input::Frame { from: id(2), frame: accused }, Millis(0));
    let mut asked = 0;
    for now in (0..4_500).step_by(100) {
        (10..20).for_each(|friend| alone.handle(Input::Heard(id(friend)), Millis(now)));
        alone.handle(Input::Wake, Millis(now));
        let asks =
            |effect: &Effect| matches!(effect, Effect::Send { frame: ProbeFrame::Ask(node), .. } if *node == id(3));
        asked += std::iter::from_fn(|| alone.poll_effect()).filter(asks).count();
    }
    assert_eq!(asked, 3);
    assert!(matches!(alone.health(&id(3)), Some(Health::Dead { .. })));
}

fn take(detector: &mut Suspicion, input: Input, at: u64) -> Vec<Effect> {
    detector.handle(input, Millis(at));
    std::iter::from_fn(|| detector.poll_effect()).collect()
}

/// A new link carries the goodbye as soon as the record, each on a stream of its own. Seed 5005 found the second case, of a
/// slow node that left, came back and left again.
#[test]
fn a_goodbye_that_overtakes_its_record_counts_and_so_does_one_of_who_is_not_watched() {
    let mut detector = Suspicion::new(id(1), LIFE, Config::default(), 1);
    let over = Effect::Changed { node: id(2), incarnation: LIFE, health: Health::Left };
    let leave = ProbeFrame::Leave { incarnation: LIFE };
    assert_eq!(take(&mut detector, Input::Frame { from: id(2), frame: leave }, 0), [over], "the directory is told");
    // The record comes late, and is told of as over; whoever watches it or not.
    assert_eq!(take(&mut detector, Input::Watch { node: id(2), incarnation: LIFE }, 10), [over]);
    assert_eq!(take(&mut detector, Input::Said { node: id(2), incarnation: LIFE }, 20), [over]);
    assert_eq!(take(&mut detector, Input::Heard(id(2)), 30), []);
    assert_eq!(detector.health(&id(2)), Some(Health::Left));
    let again = Effect::Changed { node: id(2), incarnation: LIFE + 1, health: Health::Left };
    let leave = ProbeFrame::Leave { incarnation: LIFE + 1 };
    assert_eq!(
        take(&mut detector, Input::Frame { from: id(2), frame: leave }, 40),
        [again],
        "back and gone, and nobody here knew"
    );
    assert_eq!(take(&mut detector, Input::Frame { from: id(2), frame: leave }, 50), []);
    assert_eq!(take(&mut detector, Input::Watch { node: id(2), incarnation: LIFE + 1 }, 60), [again]);
    detector.handle(Input::Watch { node: id(2), incarnation: LIFE + 2 }, Millis(70));
    assert!(matches!(detector.health(&id(2)), Some(Health::Suspect { .. })), "its next life is another");
}

#[test]
fn gossip_carries_accusations_and_nothing_else_of_the_detectors() {
    let accusation = ProbeFrame::Accuse { node: id(3), incarnation: u64::MAX };
    assert_eq!(ProbeFrame::gossiped(&codec::encode(&accusation).unwrap()), Some(Ok(accusation)));
    // Who speaks is not known of what others passed on: the neighbour would be taken for the one who leaves.
    for other in [ProbeFrame::Leave { incarnation: 1 }, ProbeFrame::Ping(1), ProbeFrame::Vouch(id(3))] {
        let refused = ProbeFrame::gossiped(&codec::encode(&other).unwrap());
        assert!(matches!(refused, Some(Err(CodecError::Malformed { .. }))), "{other:?}");
    }
    assert!(matches!(ProbeFrame::gossiped(&[]), Some(Err(CodecError::Empty { .. }))));
    let announcement = support::samples().into_iter().find(|sample| sample.name == "announcement").unwrap();
    assert_eq!(ProbeFrame::gossiped(&announcement.bytes), None);
}

//! The directory in a crowd: what each of many does about one, and one about many.
#![allow(clippy::unwrap_used, reason = "a test says what it expects in the shortest way")]

#[path = "directory/net.rs"]
mod net;
mod support;

use std::collections::BTreeSet;

use mesh_proto::{directory::*, identity::*, time::*};
use net::*;
use support::*;

/// `me` has wrongly buried the last of so many, and is not linked to it; the others speak with it.
fn alone_in_error(count: u64) -> (Net, Vec<NodeId>) {
    let members = members(count);
    let ids = ids(&members);
    let mut net = Net::new(&ids);
    for (key, chain) in &members {
        net.tell(key.id(), Input::Own(lasting(key, chain, 0, 0)));
    }
    net.link_all();
    net.run_until(5_000);
    let (me, wronged) = (ids[0], ids[ids.len() - 1]);
    net.tell(me, Input::LinkDown(wronged));
    net.tell(wronged, Input::LinkDown(me));
    net.tell(me, Input::Dead { node: wronged, incarnation: DAY.0 });
    net.seen.clear();
    (net, ids)
}

fn tried(net: &Net, by: NodeId, whom: NodeId) -> usize {
    let tries = |(at, effect): &&(NodeId, Effect)| {
        *at == by && matches!(effect, Effect::Reach(contact) if contact.node == whom)
    };
    net.seen.iter().filter(tries).count()
}

#[test]
fn who_alone_buried_a_node_tries_it_and_who_buried_it_with_all_seldom_does() {
    let (mut net, ids) = alone_in_error(60);
    let (me, wronged) = (ids[0], ids[59]);
    net.run_until(15_000);
    let alone = tried(&net, me, wronged);
    assert!((2..=20).contains(&alone), "{alone} tries in 10 s, twice a second at most");
    for id in &ids[1..59] {
        net.tell(*id, Input::LinkDown(wronged));
        net.tell(wronged, Input::LinkDown(*id));
        net.tell(*id, Input::Dead { node: wronged, incarnation: DAY.0 });
    }
    net.seen.clear();
    net.run_until(75_000);
    let by_all: usize = ids[..59].iter().map(|id| tried(&net, *id, wronged)).sum();
    // Ten rounds in which each would try it; eight of them do.
    assert!((40..=140).contains(&by_all), "{by_all} tries in 60 s by 59 nodes");
}

#[test]
fn who_gets_many_links_at_once_opens_a_few_rounds_at_a_time() {
    let mut directory = Directory::new(NodeId([0; 32]), Revocations::new(mesh()), 1, Millis(0));
    let peers: Vec<NodeId> = (1..=50u64).map(|number| key(number).id()).collect();
    let mut asked = Vec::new();
    let mut asks = |directory: &mut Directory| {
        let before = asked.len();
        asked.extend(std::iter::from_fn(|| directory.poll_effect()).filter_map(|effect| match effect {
            Effect::Send { to, frame: SyncFrame::Digest { .. } } => Some(to),
            _ => None,
        }));
        (asked.len() - before, asked.iter().collect::<BTreeSet<_>>().len())
    };
    peers.iter().for_each(|peer| directory.handle(Input::LinkUp(*peer), at(10_000)));
    let first = asks(&mut directory).0;
    assert!((4..=5).contains(&first), "{first} at once: four new ones, and the round that was due");
    let until = |directory: &mut Directory, end: u64| {
        while directory.next_wakeup() <= Millis(end) {
            let now = directory.next_wakeup().0;
            directory.handle(Input::Wake, at(now));
        }
    };
    until(&mut directory, 11_000);
    let second = asks(&mut directory).0;
    assert!((4..=5).contains(&second), "{second} in the next second");
    until(&mut directory, 22_000);
    assert_eq!(asks(&mut directory).1, 50, "each in its turn");
}

/// Who answers may be no member, and who is one may not look for a node that said goodbye.
#[test]
fn whom_the_disk_names_is_knocked_at_until_it_is_heard_of_whoever_else_is_linked() {
    let members = members(5);
    let ids = ids(&members);
    let mut net = Net::new(&ids[..3]);
    for (key, chain) in &members[..3] {
        net.tell(key.id(), Input::Own(lasting(key, chain, 0, 0)));
    }
    net.link_all();
    let contact = |id: &NodeId| Contact { node: *id, direct: Vec::new(), relay: None };
    let me = ids[0];
    net.tell(me, Input::Known(ids.iter().map(contact).collect()));
    net.run_until(10_000);
    let knocks = |net: &Net, id: &NodeId| tried(net, me, *id);
    assert!(ids[3..].iter().all(|id| knocks(&net, id) >= 1), "each of them, though two are linked");
    assert!(ids[..3].iter().all(|id| knocks(&net, id) == 0), "nobody who stands, and not itself");
    assert_eq!(
        net.nodes[&me].missed().map(|contact| contact.node).collect::<BTreeSet<_>>(),
        ids[3..].iter().copied().collect()
    );
    // In vain, it is tried less and less: after six minutes once in two.
    net.run_until(370_000);
    net.seen.clear();
    net.run_until(610_000);
    let late: Vec<usize> = ids[3..].iter().map(|id| knocks(&net, id)).collect();
    assert!(late.iter().all(|tries| (1..=3).contains(tries)), "{late:?} in four minutes");
}

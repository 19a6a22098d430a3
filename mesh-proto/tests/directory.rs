//! The directory: what it believes, and that all nodes come to believe the same.
#![allow(clippy::unwrap_used, reason = "a test says what it expects in the shortest way")]

#[path = "directory/net.rs"]
mod net;
mod support;

use mesh_proto::{
    codec::{self, Ext, Wire},
    directory::*,
    identity::*,
    record::*,
    time::*,
};
use net::*;
use proptest::prelude::*;
use support::*;

/// A directory with one linked peer, to be fed by hand.
struct One {
    directory: Directory,
    peer: NodeId,
}

impl One {
    fn new() -> Self {
        let mut directory = Directory::new(key(100).id(), Revocations::new(mesh()), 1, Millis(0));
        let peer = key(101).id();
        directory.handle(Input::LinkUp(peer), at(0));
        while directory.poll_effect().is_some() {}
        Self { directory, peer }
    }

    fn hear(&mut self, aged: Aged, now: u64) -> Vec<Effect> {
        self.directory.handle(Input::Gossip { from: self.peer, bytes: announce(aged) }, at(now));
        std::iter::from_fn(|| self.directory.poll_effect()).filter(|e| !matches!(e, Effect::Send { .. })).collect()
    }

    fn refused(&self, label: &str) -> u64 {
        self.directory.refused().get(label).copied().unwrap_or(0)
    }
}

fn one_member() -> (NodeKey, CertChain, One) {
    let chain = server(&mut founder(), &key(1));
    (key(1), chain, One::new())
}

#[test]
fn a_members_own_record_is_taken_and_a_newer_one_takes_its_place() {
    let (key, chain, mut one) = one_member();
    assert_eq!(one.hear(aged(&bare(&key, &chain, 1, at(0)), &key, 0), 0), [Effect::Changed(key.id())]);
    assert_eq!(one.hear(aged(&bare(&key, &chain, 2, at(0)), &key, 0), 10), [Effect::Changed(key.id())]);
    assert_eq!(one.directory.get(&key.id()).unwrap().record.version.sequence, 2);
}

#[test]
fn replays_are_turned_away_and_counted() {
    let (key, chain, mut one) = one_member();
    let old = aged(&bare(&key, &chain, 1, at(0)), &key, 0);
    let new = aged(&bare(&key, &chain, 2, at(0)), &key, 0);
    one.hear(old.clone(), 0);
    one.hear(new.clone(), 0);
    assert_eq!((one.hear(old, 5), one.hear(new, 5)), (vec![], vec![]));
    assert_eq!(one.refused("stale"), 2);
}

#[test]
fn what_is_not_signed_by_its_own_node_is_refused_and_tells_on_the_relay() {
    let (victim, chain, mut one) = one_member();
    let record = bare(&victim, &chain, 9, at(0));
    let forged = aged(&record, &key(2), 0);
    // Gossip passes on what it cannot judge; on the ALPN of our own each answers for what it sends.
    assert_eq!(one.hear(forged.clone(), 0), []);
    let frame = SyncFrame::Records { records: vec![forged], more: false, ext: Ext::default() };
    one.directory.handle(Input::Frame { from: one.peer, bytes: codec::encode(&frame).unwrap() }, at(0));
    assert_eq!(one.directory.poll_effect(), Some(Effect::Offence { from: one.peer, what: "signature" }));
    assert_eq!((one.directory.len(), one.refused("signature")), (0, 2));
}

#[test]
fn every_impossible_record_is_refused_for_its_own_reason() {
    let mut desk = founder();
    let (node, other) = (key(1), key(2));
    let chain = server(&mut desk, &node);
    let client = member(&mut desk, &node, &Terms::new(MemberRole::Client, Nonce([2; 16])));
    let strange = {
        let mut desk = Admission::found(key(50), DAY).unwrap();
        server(&mut desk, &node)
    };
    let future = DAY.after(SKEW).after(Millis(1));
    let good = full(&node, &chain);
    let version = Version { incarnation: future.0, sequence: 0 };
    let cases = [
        ("other_mesh", Record { mesh: MeshId([1; 32]), ..good.clone() }),
        ("cert_other_mesh", Record { chain: strange, ..good.clone() }),
        ("cert_other_node", Record { chain: server(&mut desk, &other), ..good.clone() }),
        ("client_serves", Record { chain: client, ..good.clone() }),
        ("future_dated", Record { issued_at: future, ..good.clone() }),
        ("future_incarnation", Record { version, ..good.clone() }),
        ("lifetime", Record { lifetime: Millis::secs(100_000), ..good.clone() }),
        ("other_contact", Record { contact: Contact { node: other.id(), ..good.contact.clone() }, ..good.clone() }),
        ("expired", Record { issued_at: DAY.before(SKEW).before(Millis::secs(8)), ..good.clone() }),
    ];
    let mut one = One::new();
    for (label, record) in cases {
        one.hear(aged(&record, &node, 0), 0);
        assert_eq!(one.refused(label), 1, "{label}: {:?}", one.directory.refused());
    }
    assert!(one.directory.is_empty());
    assert_eq!(one.hear(aged(&good, &node, 0), 0), [Effect::Changed(node.id())]);
}

#[test]
fn two_words_of_one_version_are_counted_and_the_first_stands() {
    let (key, chain, mut one) = one_member();
    let record = bare(&key, &chain, 1, at(0));
    one.hear(aged(&record, &key, 0), 0);
    one.hear(aged(&Record { draining: true, ..record }, &key, 0), 0);
    assert_eq!(one.refused("equivocation"), 1);
    assert!(!one.directory.get(&key.id()).unwrap().record.draining);
}

#[test]
fn a_record_that_is_not_renewed_falls_at_the_end_of_its_lifetime_counted_from_its_signature() {
    let (key, chain, mut one) = one_member();
    one.hear(aged(&bare(&key, &chain, 1, at(0)), &key, 3000), 0);
    assert_eq!(one.directory.get(&key.id()).unwrap().until(), Millis(4000));
    assert!(one.directory.next_wakeup() <= Millis(4000));
    one.directory.handle(Input::Wake, at(3999));
    assert_eq!(one.directory.len(), 1);
    one.directory.handle(Input::Wake, at(4000));
    let effects: Vec<_> = std::iter::from_fn(|| one.directory.poll_effect()).collect();
    assert!(effects.contains(&Effect::Gone { node: key.id(), why: Gone::Expired }));
    assert_eq!((one.directory.len(), one.directory.tombstones()), (0, 1));
}

#[test]
fn relaying_does_not_raise_the_dead() {
    let (key, chain, mut one) = one_member();
    let last = aged(&bare(&key, &chain, 5, at(0)), &key, 0);
    one.hear(last.clone(), 0);
    one.directory.handle(Input::Dead { node: key.id(), incarnation: DAY.0 }, at(2600));
    // Its last record from a slower relay, and one that was signed just before the end and came late.
    one.hear(Aged { age: Millis(2700), ..last }, 2700);
    one.hear(aged(&bare(&key, &chain, 6, at(100)), &key, 2900), 3000);
    assert!(one.directory.is_empty());
    // The fence has moved: that one cannot come back younger either.
    one.hear(aged(&bare(&key, &chain, 6, at(100)), &key, 0), 3500);
    assert_eq!((one.directory.len(), one.refused("stale")), (0, 3));
    // What it signs after its supposed death shows that it lives.
    one.hear(aged(&bare(&key, &chain, 7, at(4000)), &key, 100), 4100);
    assert_eq!(one.directory.len(), 1);
}

#[test]
fn a_node_that_starts_again_is_believed_at_once() {
    let (key, chain, mut one) = one_member();
    one.hear(aged(&bare(&key, &chain, 5, at(0)), &key, 0), 0);
    one.directory.handle(Input::Dead { node: key.id(), incarnation: DAY.0 }, at(2600));
    let version = Version { incarnation: DAY.0 + 1000, sequence: 0 };
    let restarted = Record { version, ..bare(&key, &chain, 0, at(1000)) };
    one.hear(aged(&restarted, &key, 1700), 2700);
    assert_eq!(one.directory.len(), 1);
    // A late verdict on the life before does not touch this one.
    one.directory.handle(Input::Dead { node: key.id(), incarnation: DAY.0 }, at(2800));
    assert_eq!(one.directory.len(), 1);
}

#[test]
fn tombstones_outlive_everything_but_the_certificate() {
    let (node, chain, mut one) = one_member();
    one.hear(aged(&bare(&node, &chain, 5, at(0)), &node, 0), 0);
    one.directory.handle(Input::Left { node: node.id(), incarnation: DAY.0 }, at(10));
    let almost = CERT_LIFETIME.0;
    let old = Record { issued_at: at(almost).unix, ..bare(&node, &chain, 4, at(0)) };
    one.hear(aged(&old, &node, 0), almost);
    assert_eq!((one.refused("stale"), one.directory.len()), (1, 0));
}

#[test]
fn who_leads_an_earlier_life_than_one_that_fell_here_is_told_when_it_says_so() {
    let mut desk = founder();
    let (me, peer) = (key(1).id(), key(2));
    let chain = server(&mut desk, &peer);
    let mut directory = Directory::new(me, Revocations::new(mesh()), 1, Millis(0));
    directory.handle(Input::LinkUp(peer.id()), at(0));
    let version = Version { incarnation: DAY.0 + 50, sequence: 3 };
    let record = Record { version, ..bare(&peer, &chain, 3, at(0)) };
    directory.handle(Input::Gossip { from: peer.id(), bytes: announce(aged(&record, &peer, 0)) }, at(60));
    directory.handle(Input::Dead { node: peer.id(), incarnation: version.incarnation }, at(70));
    while directory.poll_effect().is_some() {}
    let items = vec![Item { node: peer.id(), version: Version { incarnation: DAY.0, sequence: 9 } }];
    let frame = SyncFrame::Items { ranges: vec![Range::ALL], items, ext: Ext::default() };
    directory.handle(Input::Frame { from: peer.id(), bytes: codec::encode(&frame).unwrap() }, at(80));
    let items = vec![Item { node: peer.id(), version }];
    let told = SyncFrame::Items { ranges: Vec::new(), items, ext: Ext::default() };
    let effects: Vec<_> = std::iter::from_fn(|| directory.poll_effect()).collect();
    assert!(effects.contains(&Effect::Send { to: peer.id(), frame: told }), "{effects:?}");
}

#[test]
fn its_own_record_from_outside_is_not_taken_and_a_later_life_is_outrun() {
    let mut desk = founder();
    let (me, peer) = (key(1), key(2).id());
    let chain = server(&mut desk, &me);
    let mut directory = Directory::new(me.id(), Revocations::new(mesh()), 1, Millis(0));
    directory.handle(Input::LinkUp(peer), at(0));
    let own = aged(&bare(&me, &chain, 1, at(0)), &me, 0);
    directory.handle(Input::Own(own.record.clone()), at(0));
    while directory.poll_effect().is_some() {}
    directory.handle(Input::Gossip { from: peer, bytes: announce(own) }, at(5));
    assert_eq!(directory.poll_effect(), None);
    let version = Version { incarnation: DAY.0 + 50, sequence: 3 };
    let later = Record { version, ..bare(&me, &chain, 3, at(0)) };
    directory.handle(Input::Gossip { from: peer, bytes: announce(aged(&later, &me, 0)) }, at(6));
    assert_eq!(directory.poll_effect(), Some(Effect::Outrun(version)));
    // The same from a list of versions, as a tombstone would tell; nothing is followed twice in a round, nor into the
    // future.
    let lie = Version { incarnation: u64::MAX, sequence: 0 };
    let soon = Version { incarnation: DAY.0 + 5_000, sequence: 0 };
    let cases = [
        (60, version, Some(Effect::Outrun(version))),
        (70, version, None),
        (3_000, lie, None),
        (3_001, soon, None),
        (5_000, soon, Some(Effect::Outrun(soon))),
    ];
    for (now, told, outrun) in cases {
        let items = vec![Item { node: me.id(), version: told }];
        let frame = SyncFrame::Items { ranges: vec![Range::ALL], items, ext: Ext::default() };
        directory.handle(Input::Frame { from: peer, bytes: codec::encode(&frame).unwrap() }, at(now));
        let effects: Vec<_> = std::iter::from_fn(|| directory.poll_effect()).collect();
        assert_eq!(effects.into_iter().find(|effect| matches!(effect, Effect::Outrun(_))), outrun);
    }
}

#[test]
fn whoever_is_not_linked_is_not_listened_to() {
    let (node, chain, mut one) = one_member();
    let bytes = announce(aged(&bare(&node, &chain, 1, at(0)), &node, 0));
    one.directory.handle(Input::Gossip { from: key(7).id(), bytes }, at(0));
    assert_eq!((one.directory.len(), one.refused("not_linked")), (0, 1));
}

#[test]
fn a_flood_from_one_member_is_bounded_in_both_directions() {
    let members = members(60);
    let mut one = One::new();
    for (key, chain) in &members {
        one.hear(Aged { age: Millis(0), record: lasting(key, chain, 1, 0) }, 0);
    }
    let empty = RangeDigest { range: Range::ALL, count: 0, sum: [0; 16] };
    let ask = SyncFrame::Digest { ranges: vec![empty], revocations: 0, more: false, ext: Ext::default() };
    let bytes = codec::encode(&ask).unwrap();
    let mut sent = 0;
    for _ in 0..20_000 {
        one.directory.handle(Input::Frame { from: one.peer, bytes: bytes.clone() }, at(1000));
        while let Some(effect) = one.directory.poll_effect() {
            if let Effect::Send { frame, .. } = effect {
                sent += codec::encode(&frame).unwrap().len();
            }
        }
    }
    assert!(sent < 3 << 20, "{sent} bytes for a flood of 20,000 questions");
    assert!(one.refused("send_budget") > 0);
    // Nor does it help to come anew.
    for _ in 0..50 {
        one.directory.handle(Input::LinkDown(one.peer), at(1000));
        one.directory.handle(Input::LinkUp(one.peer), at(1000));
        one.directory.handle(Input::Frame { from: one.peer, bytes: bytes.clone() }, at(1000));
        while let Some(effect) = one.directory.poll_effect() {
            assert!(!matches!(effect, Effect::Send { frame: SyncFrame::Records { .. }, .. }));
        }
    }
    let garbage = vec![1; 250_000];
    for _ in 0..100 {
        one.directory.handle(Input::Frame { from: one.peer, bytes: garbage.clone() }, at(1000));
    }
    assert!(one.refused("over_budget") > 50);
}

#[test]
fn a_newer_builds_frame_is_counted_and_no_offence() {
    let mut one = One::new();
    one.directory.handle(Input::Frame { from: one.peer, bytes: vec![1, 77] }, at(0));
    assert_eq!((one.directory.poll_effect(), one.refused("unknown_variant")), (None, 1));
    one.directory.handle(Input::Frame { from: one.peer, bytes: vec![1, 0] }, at(0));
    assert_eq!(one.directory.poll_effect(), Some(Effect::Offence { from: one.peer, what: "malformed" }));
}

#[test]
fn nodes_that_meet_know_all_of_both_sides_at_once() {
    let members = members(5);
    let mut net = Net::new(&ids(&members));
    for (key, chain) in &members {
        net.tell(key.id(), Input::Own(lasting(key, chain, 0, 0)));
    }
    let ids = ids(&members);
    // A chain of links: what the first knows reaches the last, and the other way round.
    for pair in ids.windows(2) {
        net.link(pair[0], pair[1]);
    }
    net.run_until(20_000);
    assert_eq!(net.views().len(), 1);
    assert_eq!(net.nodes[&ids[0]].len(), 5);
}

#[test]
fn a_mesh_in_agreement_spends_a_fixed_number_of_bytes_whatever_its_size() {
    let mut costs = Vec::new();
    for size in [20, 400] {
        let members = members(size);
        let (a, b) = (key(10_000).id(), key(10_001).id());
        let mut net = Net::new(&[a, b]);
        net.link(a, b);
        for (key, chain) in &members {
            let bytes = announce(Aged { age: Millis(0), record: lasting(key, chain, 0, 0) });
            net.tell(a, Input::Gossip { from: b, bytes: bytes.clone() });
            net.tell(b, Input::Gossip { from: a, bytes });
        }
        net.run_until(10_000);
        (net.bytes, net.frames) = (0, 0);
        net.run_until(110_000);
        costs.push(net.bytes);
        assert!(net.frames <= 140, "{} frames", net.frames);
    }
    assert!(costs[1] <= costs[0] + 300 && costs[1] < 140 * 40, "{costs:?} bytes in 100 s");
}

#[test]
fn one_difference_in_a_big_mesh_costs_logarithmically_many_bytes() {
    let members = members(400);
    let (a, b) = (key(10_000).id(), key(10_001).id());
    let mut net = Net::new(&[a, b]);
    net.link(a, b);
    for (key, chain) in &members {
        let bytes = announce(Aged { age: Millis(0), record: lasting(key, chain, 0, 0) });
        net.tell(a, Input::Gossip { from: b, bytes: bytes.clone() });
        net.tell(b, Input::Gossip { from: a, bytes });
    }
    net.bytes = 0;
    let (key, chain) = &members[17];
    let bytes = announce(Aged { age: Millis(0), record: lasting(key, chain, 1, 0) });
    net.tell(a, Input::Gossip { from: b, bytes });
    net.run_until(5_000);
    assert_eq!(net.views().len(), 1);
    assert!(net.bytes < 4_000, "{} bytes for one record of {}", net.bytes, lasting(key, chain, 1, 0).len());
}

#[test]
fn a_late_joiner_of_a_big_mesh_is_told_everything_in_bounded_frames() {
    let members = members(600);
    let (old, new) = (key(10_000).id(), key(10_001).id());
    let mut net = Net::new(&[old, new]);
    net.tell(old, Input::LinkUp(key(5).id()));
    for (key, chain) in &members {
        let bytes = announce(Aged { age: Millis(0), record: lasting(key, chain, 0, 0) });
        net.tell(old, Input::Gossip { from: super_peer(), bytes });
    }
    assert_eq!(net.nodes[&old].len(), 600);
    net.bytes = 0;
    net.link(old, new);
    net.run_until(net.now + 4_000);
    assert_eq!(net.nodes[&new].len(), 600);
    assert!(net.largest <= SyncFrame::LIMIT, "{}", net.largest);
    let payload: usize = members.iter().map(|(key, chain)| lasting(key, chain, 0, 0).len() + 80).sum();
    assert!(net.bytes < payload * 2, "{} bytes for {payload}", net.bytes);
}

fn super_peer() -> NodeId {
    key(5).id()
}

#[test]
fn a_healed_partition_comes_to_one_view() {
    let members = members(6);
    let ids = ids(&members);
    let mut net = Net::new(&ids);
    for (key, chain) in &members {
        net.tell(key.id(), Input::Own(lasting(key, chain, 0, 0)));
    }
    net.link_all();
    net.run_until(5_000);
    let (left, right) = ids.split_at(2);
    for (a, b) in left.iter().flat_map(|a| right.iter().map(move |b| (*a, *b))) {
        net.tell(a, Input::LinkDown(b));
        net.tell(b, Input::LinkDown(a));
        net.tell(a, Input::Dead { node: b, incarnation: DAY.0 });
        net.tell(b, Input::Dead { node: a, incarnation: DAY.0 });
    }
    net.now = 10_000;
    for (key, chain) in &members {
        net.tell(key.id(), Input::Own(lasting(key, chain, 1, 10_000)));
    }
    net.seen.clear();
    net.run_until(30_000);
    assert_eq!(net.views().len(), 2);
    // Both sides keep trying those they lost.
    let reached = net.seen.iter().filter(|(_, effect)| matches!(effect, Effect::Reach(_))).count();
    assert!(reached >= 6, "{reached} tries in 20 s");
    net.link(left[0], right[0]);
    net.run_until(40_000);
    assert_eq!(net.views().len(), 1);
    assert_eq!(net.nodes[&ids[0]].len(), 6);
}

#[test]
fn who_reaches_one_of_the_fallen_tries_the_others_at_once() {
    let members = members(30);
    let ids = ids(&members);
    let mut net = Net::new(&ids);
    for (key, chain) in &members {
        net.tell(key.id(), Input::Own(lasting(key, chain, 0, 0)));
    }
    net.link_all();
    net.run_until(5_000);
    let (me, others) = (ids[0], &ids[1..]);
    for other in others {
        net.tell(me, Input::LinkDown(*other));
        net.tell(me, Input::Dead { node: *other, incarnation: DAY.0 });
    }
    let tries = |net: &mut Net, until: u64| {
        net.seen.clear();
        net.run_until(until);
        let reached = net.seen.iter().filter_map(|(at, effect)| match effect {
            Effect::Reach(contact) if *at == me => Some(contact.node),
            _ => None,
        });
        reached.collect::<Vec<NodeId>>()
    };
    let slowly = tries(&mut net, 30_000);
    assert!(slowly.len() <= 6, "{} tries in 25 s, all in vain", slowly.len());
    let mut reached = others[0];
    let mut linked = vec![reached];
    for step in 1..=20 {
        net.tell(me, Input::LinkUp(reached));
        let next = tries(&mut net, 30_000 + step * 600);
        assert!(!next.is_empty(), "step {step}");
        reached = next[0];
        assert!(!linked.contains(&reached), "who is linked is not tried");
        linked.push(reached);
    }
}

#[test]
fn a_revocation_reaches_everybody_and_removes_its_node_everywhere() {
    let members = members(5);
    let ids = ids(&members);
    let mut net = Net::new(&ids);
    for (key, chain) in &members {
        net.tell(key.id(), Input::Own(lasting(key, chain, 0, 0)));
    }
    net.link_all();
    let expelled = ids[3];
    let mut list = RevocationList::empty(mesh()).next(DAY);
    list.nodes.push(expelled);
    let list = Signed::sign(&list, &key(0)).unwrap();
    net.tell(ids[0], Input::Revoke { root: key(0).id(), list });
    net.settle();
    for id in ids.iter().filter(|id| **id != expelled) {
        let node = &net.nodes[id];
        assert_eq!((node.revocations().number(), node.len()), (1, 4), "{id:?}");
        assert!(net.seen.contains(&(*id, Effect::Expel(expelled))));
        assert!(net.seen.contains(&(*id, Effect::Gone { node: expelled, why: Gone::Revoked })));
    }
    // It is not taken again, and not spoken with.
    let (key, chain) = &members[3];
    net.tell(ids[0], Input::LinkUp(expelled));
    let bytes = announce(Aged { age: Millis(0), record: lasting(key, chain, 9, 0) });
    net.tell(ids[0], Input::Gossip { from: ids[1], bytes });
    assert_eq!(net.nodes[&ids[0]].refused()["cert_revoked"], 1);
}

#[test]
fn what_is_answered_is_the_same_from_the_same_seed() {
    let trace = || {
        let members = members(6);
        let mut net = Net::new(&ids(&members));
        for (key, chain) in &members {
            net.tell(key.id(), Input::Own(lasting(key, chain, 0, 0)));
        }
        net.link_all();
        net.run_until(60_000);
        (net.bytes, net.frames, net.seen)
    };
    assert_eq!(trace(), trace());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_member_sends_the_directory_stays_whole(
        frames in prop::collection::vec((0usize..21, prop::collection::vec((0usize..900, any::<u8>()), 0..4), 0u64..3_000), 1..30)
    ) {
        thread_local! { static SAMPLES: Vec<Sample> = samples(); }
        let mut one = One::new();
        let mut now = 0;
        for (which, flips, later) in frames {
            now += later;
            let mut bytes = SAMPLES.with(|samples| samples[which].bytes.clone());
            for (at, byte) in flips {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            one.directory.handle(Input::Frame { from: one.peer, bytes: bytes.clone() }, at(now));
            one.directory.handle(Input::Gossip { from: one.peer, bytes }, at(now));
            while let Some(effect) = one.directory.poll_effect() {
                if let Effect::Send { frame, .. } = effect {
                    // What is answered is within its own limits.
                    codec::encode(&frame).unwrap();
                }
            }
            prop_assert!(one.directory.next_wakeup().0 > now);
            // Only who signed for itself is in it.
            prop_assert!(one.directory.iter().all(|(node, _)| *node == key(1).id()));
        }
    }
}

/// Half a minute in a debug build: `cargo nextest run -p mesh-proto --release --run-ignored only`.
#[test]
#[ignore = "ten thousand nodes take half a minute"]
fn ten_thousand_nodes_agree_for_thirty_bytes_a_round_and_a_joiner_has_them_all_in_ten_seconds() {
    let members = members(10_000);
    let (a, b, new) = (key(10_000_000).id(), key(10_000_001).id(), key(10_000_002).id());
    let mut net = Net::new(&[a, b, new]);
    net.link(a, b);
    let feeders: Vec<NodeId> = (0..200).map(|n| key(20_000_000 + n).id()).collect();
    for ((at, (key, chain)), feeder) in (0u64..).zip(&members).zip(feeders.iter().cycle()) {
        let bytes = announce(Aged { age: Millis(0), record: lasting(key, chain, 0, at / 100) });
        net.now = at / 100;
        for here in [a, b] {
            net.tell(here, Input::LinkUp(*feeder));
            net.tell(here, Input::Gossip { from: *feeder, bytes: bytes.clone() });
            net.tell(here, Input::LinkDown(*feeder));
        }
    }
    net.settle();
    assert_eq!((net.nodes[&a].len(), net.nodes[&b].len()), (10_000, 10_000));
    net.bytes = 0;
    net.run_until(net.now + 100_000);
    println!("in agreement: {} bytes in 100 s", net.bytes);
    assert!(net.bytes < 6_000);

    let (key, chain) = &members[4_711];
    net.bytes = 0;
    net.tell(a, Input::LinkUp(feeders[0]));
    let bytes = announce(Aged { age: Millis(0), record: lasting(key, chain, 1, net.now) });
    net.tell(a, Input::Gossip { from: feeders[0], bytes });
    net.tell(a, Input::LinkDown(feeders[0]));
    net.run_until(net.now + 4_000);
    println!("one difference: {} bytes", net.bytes);
    assert!(net.bytes < 6_000);

    (net.bytes, net.frames) = (0, 0);
    let start = net.now;
    net.link(a, new);
    while net.nodes[&new].len() < 10_000 && net.now < start + 20_000 {
        net.run_until(net.now + 100);
    }
    println!("a joiner: {} ms, {} bytes, {} frames, largest {}", net.now - start, net.bytes, net.frames, net.largest);
    assert!(net.nodes[&new].len() == 10_000 && net.now - start <= 10_000);
}

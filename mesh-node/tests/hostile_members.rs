//! Members that send each other what no honest member sends: it is refused and counted, and changes nothing.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;
mod hostile_support;

use std::{
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use hostile_support::*;
use iroh::endpoint::{Connection, ConnectionError};
use mesh_node::manage::{MeshControl, Role, TicketOrder};
use mesh_proto::{
    codec::{self, Ext, Wire},
    directory::{Aged, SyncFrame},
    identity::{AdmitRefusal, AdmitReply, MemberRole, MeshId, NodeId, Signable, Signed, Ticket},
    infer::{Ask, Reply},
    record::{Record, Version},
    suspicion::ProbeFrame,
    time::Millis,
};
use serde::{Deserialize, Serialize};

/// A record whose caps nobody checks before it is sent.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Unchecked(Record);

impl Wire for Unchecked {
    const NAME: &'static str = "record";
    const LIMIT: usize = 1 << 20;
}

impl Signable for Unchecked {
    const DOMAIN: &'static str = Record::DOMAIN;
}

/// No record at all.
#[derive(Serialize, Deserialize)]
struct Nothing;

impl Wire for Nothing {
    const NAME: &'static str = "record";
    const LIMIT: usize = 1;
}

impl Signable for Nothing {
    const DOMAIN: &'static str = Record::DOMAIN;
}

#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
struct UncheckedAged<T> {
    age: Millis,
    record: Signed<T>,
}

/// [`SyncFrame`] as far as its records.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
enum Frame<T> {
    Digest,
    Items,
    Want,
    Records { records: Vec<UncheckedAged<T>>, more: bool, ext: Ext },
}

impl<T> Wire for Frame<T> {
    const NAME: &'static str = "sync frame";
    const LIMIT: usize = 1 << 20;
}

fn unchecked(member: &Member, record: Record) -> Vec<u8> {
    let record = Signed::sign(&Unchecked(record), &member.peer.key).unwrap();
    let records = vec![UncheckedAged { age: Millis(0), record }];
    codec::encode(&Frame::Records { records, more: false, ext: Ext::default() }).unwrap()
}

/// The connection is read on: the next frame, of a kind that nobody knows, is counted.
async fn is_open(node: &Node, connection: &Connection) {
    let before = node.counter("frames_unknown");
    // It may be stopped while it is sent.
    send(connection, 7, b"later").await;
    node.counts("frames_unknown", before + 1).await;
    assert_eq!(connection.close_reason(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_cannot_be_believed_are_refused_and_counted_and_forgeries_close_the_connection() {
    let honest = Honest::new().await;
    let host = &honest.host;
    let member = Member::new(&honest.ticket).await;
    let first = member.link().await;
    let theirs = member.overhear(&first, &host.id()).await.claim().unwrap();
    let doors = member.overhear(&first, &honest.door.id()).await.claim().unwrap();
    // The host's model, by the member's own word: what all the lies below are about.
    let lie = || member.record(theirs.models.clone());
    let far = unix().after(Millis::secs(600));
    let told = |record: Record| records(vec![member.sign(&record)]);
    let mut unsigned = told(lie());
    let end = unsigned.len() - 2;
    unsigned[end - 64..end].fill(0);
    let aged = Aged { age: Record::MAX_LIFETIME, record: member.sign(&lie()) };
    let expired = SyncFrame::Records { records: vec![aged], more: false, ext: Ext::default() };
    let offences = [
        ("signature", unsigned),
        ("signature", told(Record { version: Version { sequence: u64::MAX, ..doors.version }, ..doors.clone() })),
        ("other_mesh", told(Record { mesh: MeshId([7; 32]), ..lie() })),
        ("other_contact", told(Record { contact: theirs.contact.clone(), ..lie() })),
    ];
    let mistakes = [
        ("own", told(Record { models: vec![], ..theirs.clone() })),
        ("cert_other_node", told(Record { chain: doors.chain.clone(), ..lie() })),
        ("future_dated", told(Record { issued_at: far, ..lie() })),
        ("future_incarnation", told(Record { version: Version { incarnation: far.0, sequence: 0 }, ..lie() })),
        ("lifetime", told(Record { lifetime: Millis(1), ..lie() })),
        ("lifetime", told(Record { lifetime: Millis(u64::MAX), ..lie() })),
        ("expired", codec::encode(&expired).unwrap()),
        ("cap", unchecked(&member, Record { ext: Ext(vec![(1, vec![]); 17]), ..lie() })),
        ("cap", unchecked(&member, Record { models: vec![theirs.models[0].clone(); 65], ..lie() })),
        ("too_long", unchecked(&member, Record { ext: Ext(vec![(1, vec![0; 16_000])]), ..lie() })),
    ];
    let refused = async |what: &str, frame: &[u8], offence: bool| {
        let label = format!("record_{what}");
        let before = host.counter(&label);
        let connection = member.link().await;
        assert!(send(&connection, SYNC, frame).await, "{what}");
        host.counts(&label, before + 1).await;
        if offence {
            closed(&connection, 400).await;
        } else {
            is_open(host, &connection).await;
        }
        assert!(!host.mesh.view().peers.contains_key(&member.id()), "{what} was believed");
    };
    for (what, frame) in &offences {
        refused(what, frame, true).await;
    }
    for (what, frame) in &mistakes {
        refused(what, frame, false).await;
    }
    honest.are_well().await;

    // Of two records, the older one counts no more, and of one version only the first.
    let (old, new) = (lie(), member.record(vec![]));
    let connection = member.link().await;
    member.tell(&connection, &new).await;
    host.until("it is taken", |host| host.mesh.view().peers.contains_key(&member.id())).await;
    member.tell(&connection, &old).await;
    host.counts("record_stale", 1).await;
    member.tell(&connection, &Record { draining: true, ..new.clone() }).await;
    host.counts("record_equivocation", 1).await;
    // And an echo of the host's own is not taken from outside.
    let own = member.overhear(&connection, &host.id()).await;
    send(&connection, SYNC, &records(vec![own])).await;
    host.counts("record_own", 1).await;
    is_open(host, &connection).await;
    assert_eq!(*host.mesh.view().peers[&member.id()].record, new);
    honest.are_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_record_of_another_node_cannot_be_replayed() {
    let honest = Honest::new().await;
    let member = Member::new(&honest.ticket).await;
    let at_host = member.link().await;
    let old = member.overhear(&at_host, &honest.host.id()).await;
    let then = old.claim().unwrap().version;
    let newer = |node: &Node| node.mesh.view().peers[&honest.host.id()].record.version > then;
    honest.door.until("the host has said more since", newer).await;
    assert!(matches!(member.hello(&honest.door_at()).await, AdmitReply::Welcome { .. }));
    let at_door = member.link_to(&honest.door_at()).await;
    let before = honest.door.counter("record_stale");
    for _ in 0..20 {
        send(&at_door, SYNC, &records(vec![old.clone()])).await;
    }
    honest.door.counts("record_stale", before + 20).await;
    assert!(newer(&honest.door));
    is_open(&honest.door, &at_door).await;
    honest.are_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_record_that_lists_models_is_refused() {
    let honest = Honest::new().await;
    let ticket = honest.host.ticket(TicketOrder { role: Role::Client, ..order() }).await;
    let member = Member::new(&ticket).await;
    let connection = member.publish(vec![honest.door.word_of(&honest.host.id())]).await;
    honest.host.counts("record_client_serves", 1).await;
    is_open(&honest.host, &connection).await;
    assert!(!honest.host.mesh.view().peers.contains_key(&member.id()));
    // As what it is, it is welcome.
    member.tell(&connection, &member.record(vec![])).await;
    honest.door.until("it is a member like others", |door| door.mesh.view().peers.contains_key(&member.id())).await;
    honest.are_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_are_too_long_unknown_cut_off_or_nonsense_change_nothing() {
    let honest = Honest::new().await;
    let host = &honest.host;
    let member = Member::new(&honest.ticket).await;
    let connection = member.link().await;
    for (broken, (kind, length)) in
        (1..).zip([(SYNC, SyncFrame::LIMIT + 1), (PROBE, ProbeFrame::LIMIT + 1), (SYNC, 1 << 20)])
    {
        send(&connection, kind, &vec![1; length]).await;
        host.counts("frames_broken", broken).await;
    }
    for kind in [2, 77, 255] {
        send(&connection, kind, &[0; 1000]).await;
    }
    host.counts("frames_unknown", 3).await;
    // A newer release's words, not ours: no offence.
    send(&connection, SYNC, &[1, 5, 1, 2, 3]).await;
    host.counts("record_unknown_variant", 1).await;
    send(&connection, PROBE, &[1, 6]).await;
    host.counts("probe_unknown", 1).await;
    is_open(host, &connection).await;

    let digest = lacking_all();
    let accuse = codec::encode(&ProbeFrame::Accuse { node: honest.door.id(), incarnation: u64::MAX }).unwrap();
    let record = records(vec![member.sign(&member.record(vec![]))]);
    let cut = |kind, frame: &[u8], step: usize| -> Vec<(u8, Vec<u8>)> {
        (0..frame.len()).step_by(step).map(|end| (kind, frame[..end].to_vec())).collect()
    };
    let mut nonsense = [cut(SYNC, &digest, 1), cut(PROBE, &accuse, 1), cut(SYNC, &record, 29)].concat();
    nonsense.extend([(SYNC, vec![1, 0, 0, 0, 0, 0, 0]), (PROBE, vec![1, 1, 5, 5]), (SYNC, vec![1; 200])]);
    for (kind, frame) in nonsense {
        let connection = member.link().await;
        send(&connection, kind, &frame).await;
        closed(&connection, 400).await;
    }
    assert!(host.counter("probe_malformed") >= accuse.len() as u64 && host.counter("record_malformed") > 10);
    assert!(!host.mesh.view().peers.contains_key(&member.id()));
    honest.are_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_probes_and_accusations_leave_the_mesh_and_its_memory_as_they_were() {
    let honest = Honest::new().await;
    let (host, door) = (&honest.host, &honest.door);
    let member = Member::new(&honest.ticket).await;
    let connection = member.publish(vec![]).await;
    host.until("it is taken", |host| host.mesh.view().peers.contains_key(&member.id())).await;
    let before = memory_kib("self");
    let began = Instant::now();
    let flood = async {
        for number in 0..5000 {
            send(&connection, PROBE, &codec::encode(&ProbeFrame::Ping(number)).unwrap()).await;
        }
        for number in 0..2000u32 {
            let mut node = [3; 32];
            node[..4].copy_from_slice(&number.to_le_bytes());
            let lie = ProbeFrame::Accuse { node: NodeId(node), incarnation: unix().0 };
            send(&connection, PROBE, &codec::encode(&lie).unwrap()).await;
        }
        for node in [host, door] {
            let record = &if node.id() == host.id() { door } else { host }.mesh.view().peers[&node.id()].record;
            for _ in 0..500 {
                let lie = ProbeFrame::Accuse { node: node.id(), incarnation: record.version.incarnation };
                send(&connection, PROBE, &codec::encode(&lie).unwrap()).await;
                let lie = ProbeFrame::Vouch(node.id());
                send(&connection, PROBE, &codec::encode(&lie).unwrap()).await;
            }
        }
    };
    let requests = async {
        let mut longest = Duration::ZERO;
        for _ in 0..5 {
            let began = Instant::now();
            door.works().await;
            longest = longest.max(began.elapsed());
        }
        longest
    };
    let ((), longest) = tokio::join!(flood, requests);
    host.counts("probe_accuses_unknown", 2000).await;
    let grown = memory_kib("self").saturating_sub(before);
    println!("9000 probes in {:?}; the longest request {longest:?}; {grown} KiB", began.elapsed());
    assert!(longest < Duration::from_secs(20), "{longest:?}");
    assert!(grown < 64 << 10, "{grown} KiB");
    // Nobody is taken for dead, and of the two thousand nothing is left.
    assert_eq!(host.mesh.view().peers.len(), 2);
    honest.are_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_anti_entropy_is_answered_and_read_within_its_budget_only() {
    let honest = Honest::new().await;
    let host = &honest.host;
    let member = Member::new(&honest.ticket).await;
    let connection = member.link().await;
    let before = memory_kib("self");
    let began = Instant::now();
    let greedy = lacking_all();
    for _ in 0..3000 {
        send(&connection, SYNC, &greedy).await;
    }
    host.counts("record_send_budget", 1).await;
    let (sent, elapsed) = (member.heard.bytes.load(SeqCst), began.elapsed());
    // 2 MiB at once and 1 MiB a second; each frame may overdraw it once.
    let budget = (2 << 20) + (1 << 20) * (elapsed.as_secs() + 1) + (64 << 10);
    assert!(sent < budget, "{sent} bytes in {elapsed:?}, {budget} were to be had");
    // A thousand signatures to check in each: charged for that, and not for their few bytes.
    let nothing = || UncheckedAged { age: Millis(0), record: Signed::sign(&Nothing, &member.peer.key).unwrap() };
    let records = (0..SyncFrame::MAX_RECORDS).map(|_| nothing()).collect();
    let costly = codec::encode(&Frame::Records { records, more: false, ext: Ext::default() }).unwrap();
    let (frames, charge) = (100, (SyncFrame::MAX_RECORDS << 10) as u64);
    let began = Instant::now();
    for _ in 0..frames {
        assert!(send(&connection, SYNC, &costly).await);
    }
    let checked = |host: &Node| host.counter("record_malformed") / SyncFrame::MAX_RECORDS as u64;
    host.until("the flood is checked or refused", |host| checked(host) + host.counter("record_over_budget") >= frames)
        .await;
    // 8 MiB at once and 4 MiB a second, overdrawn by one frame.
    let budget = (8 << 20) + (4 << 20) * (began.elapsed().as_secs() + 1) + charge;
    assert!(checked(host) * charge <= budget, "{} frames in {:?}", checked(host), began.elapsed());
    let grown = memory_kib("self").saturating_sub(before);
    println!("{sent} bytes in {elapsed:?}; {grown} KiB");
    assert!(grown < 128 << 10, "{grown} KiB");
    assert_eq!(connection.close_reason(), None);
    honest.are_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_has_no_more_connections_than_it_can_need() {
    let honest = Honest::new().await;
    let member = Member::new(&honest.ticket).await;
    let mut asking = Vec::new();
    for _ in 0..80 {
        asking.push(member.peer.dial(&honest.at(), INFER).await.unwrap());
    }
    let reasons = || asking.iter().filter_map(Connection::close_reason);
    honest.host.until("all but 32 are turned away", |_| reasons().count() >= 80 - 32).await;
    let expected = |why: &ConnectionError| matches!(why, ConnectionError::Reset) || code(why) == Some(429);
    assert!(reasons().all(|why| expected(&why)), "{:?}", reasons().collect::<Vec<_>>());
    assert!(reasons().count() < 80);
    drop(asking);
    // Links it may renew at will: the oldest ones go.
    for _ in 0..40 {
        let link = member.link().await;
        is_open(&honest.host, &link).await;
    }
    let again = async {
        loop {
            let connection = member.peer.dial(&honest.at(), INFER).await.unwrap();
            let closed = tokio::time::timeout(Duration::from_millis(500), connection.closed()).await;
            if closed.is_err() {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("who closes some may open others");
    honest.are_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expelled_member_is_dropped_in_mid_stream_and_does_not_come_back_anywhere() {
    let honest = Honest::new().await;
    let (host, at) = (&honest.host, honest.at());
    let sleeper = Node::join(&honest.ticket, MemberRole::Client, None).await;
    let sleeps = sleeper.id();
    host.until("the sleeper is here", |host| host.mesh.view().peers.contains_key(&sleeps)).await;
    let life = host.mesh.view().peers[&sleeps].record.version.incarnation;
    let sleeper = sleeper.stop().await;

    let member = Member::new(&honest.ticket).await;
    let (link, asking) = (member.publish(vec![]).await, member.asking().await);
    honest.door.until("it is a member", |door| door.mesh.view().peers.contains_key(&member.id())).await;
    let model = host.locals.all().values().next().unwrap().key();
    let endless = Ask { request: request("#LONG"), model, deadline: None, ext: Ext::default() };
    let mut stream = ask(&asking, &endless).await;
    let mut tokens = 0;
    while tokens < 20 {
        if let Reply::Tokens { tokens: some, .. } = word(&mut stream).await.unwrap() {
            tokens += some.len();
        }
    }
    host.mesh.expel(member.id()).await.unwrap();
    while reply(&mut stream).await.is_ok() {}
    closed(&asking, 403).await;
    closed(&link, 403).await;
    let engine = host.engine.clone().unwrap();
    host.until("its generation is dropped", |_| engine.cancelled() == 1).await;

    let refused = |reply: AdmitReply| matches!(reply, AdmitReply::Refused { reason: AdmitRefusal::Expelled, .. });
    assert!(refused(member.hello(&at).await) && refused(member.peer.join(&honest.ticket).await));
    for alpn in [MESH, INFER, GOSSIP] {
        closed(&member.peer.dial(&at, alpn).await.unwrap(), 403).await;
    }
    // Others hear of it: who was there at once, and who was not when it is back.
    let shuns = async |there: &mesh_proto::identity::Contact| {
        let shunned = async {
            while !refused(member.hello(there).await) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, shunned).await.expect("the news in time");
        closed(&member.peer.dial(there, INFER).await.unwrap(), 403).await;
    };
    shuns(&honest.door_at()).await;
    let sleeper = sleeper.again().await;
    let is_back = |host: &Node| {
        let view = host.mesh.view();
        view.peers.get(&sleeps).is_some_and(|peer| peer.record.version.incarnation > life && peer.linked)
    };
    host.until("the sleeper is back", is_back).await;
    shuns(&host.mesh.view().contact(&sleeps).unwrap().clone()).await;
    assert!(!sleeper.mesh.view().peers.contains_key(&member.id()));
    honest.are_well().await;
    sleeper.works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_ticket_and_an_expulsion_outlive_the_founders_restart() {
    let host = Node::found(Some(MODEL)).await;
    let issued = host.mesh.ticket(order()).await.unwrap();
    let ticket: Ticket = issued.ticket.parse().unwrap();
    let good = host.ticket(order()).await;
    let member = Member::new(&ticket).await;
    host.mesh.revoke(issued.id).await.unwrap();
    host.mesh.expel(member.id()).await.unwrap();
    let host = host.stop().await.again().await;
    let at = host.ticket(order()).await.contacts[0].clone();
    let stranger = Peer::new().await;
    assert_eq!(stranger.refused(&at, |session| joining(&ticket, session)).await, AdmitRefusal::Revoked);
    assert!(matches!(member.hello(&at).await, AdmitReply::Refused { reason: AdmitRefusal::Expelled, .. }));
    let here = Ticket::new(vec![at], good.invitation.clone(), *good.secret());
    let door = Node::join(&here, MemberRole::Client, None).await;
    door.owners(MODEL, &[host.id()]).await;
    door.works().await;
}

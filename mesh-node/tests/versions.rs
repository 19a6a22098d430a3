//! Two releases in one mesh: a member whose every word carries what a later release may add, beside nodes of this one.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;
mod hostile_support;

use std::sync::{Arc, atomic::Ordering::SeqCst};

use hostile_support::*;
use iroh::endpoint::Connection;
use mesh_node::manage::MeshControl;
use mesh_proto::{
    Channel, FinishReason, GenerateRequest, ModelId, Prompt, TokenId, Usage,
    codec::{self, Ext},
    directory::{Aged, Announce, SyncFrame},
    identity::{AdmitReply, AdmitRequest, MemberRole},
    infer::{Ask, Piece, Reply},
    record::{Build, Capabilities, Claim, ModelIdentity, ModelState, PrefixSketch, Record, ServedModel},
    suspicion::ProbeFrame,
    time::Millis,
};

/// What the later release serves.
const LATER: &str = "later/model";

/// Additions that this release does not know.
fn later() -> Ext {
    Ext(vec![(60_001, vec![1, 2, 3]), (60_002, vec![]), (60_002, vec![9; 200])])
}

/// A model in a form that this release serves, with all that it does not know about it.
fn model(like: ServedModel) -> ServedModel {
    ServedModel {
        id: ModelId::new(LATER),
        identity: ModelIdentity { content: [9; 32], ..ModelIdentity::default() },
        engine: "quantum".into(),
        family: "later".into(),
        capabilities: Capabilities(u64::MAX),
        ext: later(),
        ..like
    }
}

/// The whole record of a later release.
fn record(member: &Member, like: ServedModel) -> Record {
    let ready = model(like.clone());
    let elsewhere = ServedModel { id: ModelId::new("later/paged"), state: ModelState::Other(9), ..model(like) };
    let claim = Claim { model: ready.identity.key(), slot: 0, term: 1, weight: 1, serving: true, ext: later() };
    let sketch = PrefixSketch { model: ready.identity.key(), kind: 77, bytes: vec![1, 2, 3] };
    let protocols = ["mesh-llm/infer/1", "mesh-llm/infer/2", "mesh-llm/blobs/1"].map(String::from).to_vec();
    Record {
        build: Build { release: "9.9.9".into(), protocols },
        models: vec![ready, elsewhere],
        claims: vec![claim],
        prefixes: vec![sketch],
        ext: later(),
        ..member.record(vec![])
    }
}

/// Says what this release has no name for, wherever an enum may grow and however a frame may be marked.
async fn chatter(connection: &Connection) {
    send(connection, 9, b"another kind of frame").await;
    for variant in [5, 100, 250] {
        send(connection, SYNC, &[1, variant, 1, 2, 3]).await;
        send(connection, PROBE, &[1, variant + 1 - u8::from(variant == 250), 7]).await;
    }
    // Another codec version altogether.
    send(connection, SYNC, &[2, 0, 0]).await;
    send(connection, PROBE, &[2, 0, 0]).await;
}

/// Answers as a later release does: with replies, reasons and additions of its own between those that both know.
fn answer(_: &Ask) -> Vec<Act> {
    let unknown = |variant| Act::Frame(vec![1, variant, 4, 4, 4]);
    let piece = |text: &str| Piece::Text { channel: Channel::Content, text: text.into() };
    let tokens = |at, words: &[&str]| {
        let tokens = (at..).take(words.len()).map(TokenId).collect();
        let pieces = words.iter().map(|text| piece(text)).collect();
        Act::Say(Reply::Tokens { at, tokens, pieces, logprobs: Vec::new() })
    };
    let finished = Reply::Finished {
        logprobs: Vec::new(),
        pieces: vec![piece("!")],
        reason: FinishReason::Stop,
        stop: None,
        usage: Usage { prompt_tokens: 2, completion_tokens: 4, ..Usage::default() },
        ext: later(),
    };
    vec![
        unknown(6),
        Act::Say(Reply::Accepted { prompt_tokens: 2, ext: later() }),
        unknown(99),
        tokens(0, &["From", " the"]),
        unknown(250),
        tokens(2, &[" future"]),
        Act::Say(finished),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_release_is_listed_asked_and_answered() {
    let honest = Honest::new().await;
    let newer = Member::answering(&honest.ticket, Arc::new(answer)).await;
    assert!(matches!(newer.hello(&honest.at()).await, AdmitReply::Welcome { .. }), "additions to a greeting");
    let link = newer.link().await;
    chatter(&link).await;
    let said = record(&newer, honest.door.word_of(&honest.host.id()));
    let aged = Aged { age: Millis(0), record: newer.sign(&said) };
    let frame = SyncFrame::Records { records: vec![aged], more: false, ext: later() };
    send(&link, SYNC, &codec::encode(&frame).unwrap()).await;

    // Listed, by the door too, which heard of it from the host alone; and word for word as it was signed.
    for node in [&honest.host, &honest.door] {
        node.owners(LATER, &[newer.id()]).await;
        assert_eq!(*node.mesh.view().peers[&newer.id()].record, said);
        let listed: Vec<String> = node.router.list().into_iter().map(|listed| listed.id).collect();
        assert_eq!(listed, [LATER, MODEL], "what is in no state that is known here cannot be asked for");
        let status = node.mesh.status();
        let peer = status.peers.iter().find(|peer| peer.id == newer.id().to_string()).unwrap();
        assert_eq!((peer.version.as_str(), peer.models.clone()), ("9.9.9", vec![LATER.to_owned()]));
    }

    // Asked, at both doors.
    for node in [&honest.host, &honest.door] {
        let request = GenerateRequest::new(ModelId::new(LATER), Prompt::Text("hello".into()));
        let said = node.ask_for(request).await;
        assert_eq!((said.text.as_str(), said.finish, said.error), ("From the future!", Some(FinishReason::Stop), None));
    }
    assert_eq!(newer.heard.asks.load(SeqCst), 2);

    // And answered: what it adds to a request and need not be understood is skipped.
    let own = honest.host.locals.all().values().next().unwrap().key();
    let extra = Ext(vec![(60_001, vec![1]), (60_003, vec![2; 500])]);
    let asked = Ask { request: request("and now?"), model: own, deadline: Some(Millis::secs(60)), ext: extra };
    let mut stream = ask(&newer.asking().await, &asked).await;
    let mut text = String::new();
    loop {
        match word(&mut stream).await.unwrap() {
            Reply::Tokens { pieces, .. } => {
                let texts = pieces
                    .iter()
                    .filter_map(|piece| if let Piece::Text { text, .. } = piece { Some(text) } else { None });
                texts.for_each(|more| text.push_str(more));
            }
            Reply::Finished { reason, .. } => break assert_eq!((text.as_str(), reason), (FOX, FinishReason::Stop)),
            _ => {}
        }
    }

    // None of it was taken for an attack.
    chatter(&link).await;
    honest.host.counts("frames_unknown", 2).await;
    honest.host.counts("probe_unknown", 8).await;
    honest.host.counts("record_version", 2).await;
    assert_eq!(honest.host.counter("record_unknown_variant"), 6);
    assert_eq!(link.close_reason(), None);
    honest.are_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_digests_lists_wants_and_probes_are_answered_whatever_they_carry() {
    let honest = Honest::new().await;
    let newer = Member::new(&honest.ticket).await;
    let link = newer.link().await;
    let all = mesh_proto::directory::Range::ALL;
    let digest = mesh_proto::directory::RangeDigest { range: all, count: 0, sum: [0; 16] };
    let frames = [
        SyncFrame::Digest { ranges: vec![digest], revocations: 0, more: false, ext: later() },
        SyncFrame::Items { ranges: vec![all], items: vec![], ext: later() },
        SyncFrame::Want { nodes: vec![honest.host.id()], ext: later() },
    ];
    for frame in frames {
        let before = newer.heard.bytes.load(SeqCst);
        send(&link, SYNC, &codec::encode(&frame).unwrap()).await;
        honest.host.until("it is answered", |_| newer.heard.bytes.load(SeqCst) > before).await;
    }
    let held = newer.overhear(&link, &honest.host.id()).await;
    assert_eq!(held.claim().unwrap().node, honest.host.id());
    let newer_probe = codec::encode(&ProbeFrame::Ping(7)).unwrap();
    assert!(send(&link, PROBE, &newer_probe).await);
    assert_eq!(link.close_reason(), None);
    // An announcement with additions fits what gossip carries, and this release reads it.
    let aged = Aged { age: Millis(0), record: held };
    let announce = Announce { aged, ext: later() };
    assert_eq!(codec::decode::<Announce>(&codec::encode(&announce).unwrap()).unwrap(), announce);
    honest.are_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_releases_ticket_and_requests_for_admission_let_in_as_before() {
    let host = Node::found(Some(MODEL)).await;
    let mut ticket = host.ticket(order()).await;
    ticket.ext = Ext(ticket.ext.0.into_iter().chain(later().0).collect());
    let ticket = ticket.to_text().unwrap().parse().unwrap();
    let door = Node::join(&ticket, MemberRole::Client, None).await;
    door.owners(MODEL, &[host.id()]).await;
    door.works().await;

    let newer = Peer::new().await;
    let joined = newer.visit(&ticket.contacts[0], |session| {
        let AdmitRequest::Join { invitation, proof, .. } = AdmitRequest::join(&ticket, session) else { unreachable!() };
        codec::encode(&AdmitRequest::Join { invitation, proof, ext: later() }).unwrap()
    });
    let Some(AdmitReply::Admitted { chain, .. }) = joined.await else { panic!("not admitted") };
    for request in
        [AdmitRequest::Renew { chain: chain.clone(), ext: later() }, AdmitRequest::Hello { chain, ext: later() }]
    {
        let reply = newer.visit(&ticket.contacts[0], |_| codec::encode(&request).unwrap()).await.unwrap();
        assert!(!matches!(reply, AdmitReply::Refused { .. }), "{reply:?}");
    }
    // A request that only the later release knows is refused, and that is all.
    let unknown = newer.refused(&ticket.contacts[0], |_| vec![1, 3, 1, 2]).await;
    assert_eq!(unknown, mesh_proto::identity::AdmitRefusal::Malformed);
    door.works().await;
}

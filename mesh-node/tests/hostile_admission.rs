//! Strangers at a node's doors: what gets them in, and that nothing else does.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;
mod hostile_support;
mod mesh_support;

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use hostile_support::*;
use mesh_node::manage::{MeshControl, Role, TicketOrder};
use mesh_proto::{
    codec,
    identity::{AdmitRefusal, AdmitReply, AdmitRequest, Secret, Ticket},
};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_gets_no_byte_out_of_any_protocol_of_members() {
    let honest = Honest::new().await;
    let stranger = Peer::new().await;
    for at in [honest.at(), honest.door_at()] {
        for alpn in [MESH, INFER, GOSSIP] {
            let connection = stranger.dial(&at, alpn).await.expect("the handshake itself is open to all");
            let opened = async {
                let (mut send, mut recv) = connection.open_bi().await.ok()?;
                let _ = send.write_all(&[1; 64]).await;
                recv.read_chunk(1).await.ok().flatten()
            };
            let ((), got) = tokio::join!(closed(&connection, 403), opened);
            assert!(got.is_none(), "it answered {got:?}");
            assert!(connection.accept_uni().await.is_err() && connection.accept_bi().await.is_err());
        }
        let unknown = stranger.dial(&at, b"mesh-llm/admin/1").await.unwrap_err();
        // TLS's alert 120: no such protocol.
        assert!(unknown.contains("120") || unknown.contains("NoApplicationProtocol"), "{unknown}");
    }
    honest.are_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_gets_in_whom_it_names_as_often_and_as_long_as_it_says() {
    let honest = Honest::new().await;
    let (host, at) = (&honest.host, honest.at());
    let stranger = Peer::new().await;

    let guessed = Ticket::new(vec![at.clone()], honest.ticket.invitation.clone(), Secret::from_bytes([9; 32]));
    assert_eq!(stranger.refused(&at, |session| joining(&guessed, session)).await, AdmitRefusal::Proof);

    let expired = host.ticket(TicketOrder { lifetime_s: 0, ..order() }).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(stranger.refused(&at, |session| joining(&expired, session)).await, AdmitRefusal::Expired);

    let bound = host.ticket(TicketOrder { node: Some(honest.door.id()), ..order() }).await;
    assert_eq!(stranger.refused(&at, |session| joining(&bound, session)).await, AdmitRefusal::BoundToAnother);

    let issued = host.mesh.ticket(order()).await.unwrap();
    host.mesh.revoke(issued.id).await.unwrap();
    let revoked: Ticket = issued.ticket.parse().unwrap();
    assert_eq!(stranger.refused(&at, |session| joining(&revoked, session)).await, AdmitRefusal::Revoked);
    // Who lacks the secret is not even told that.
    let guessed = Ticket::new(vec![at.clone()], revoked.invitation.clone(), Secret::from_bytes([9; 32]));
    assert_eq!(stranger.refused(&at, |session| joining(&guessed, session)).await, AdmitRefusal::Proof);

    // The door did not issue it, and may not admit.
    let there = honest.door_at();
    assert_eq!(stranger.refused(&there, |session| joining(&honest.ticket, session)).await, AdmitRefusal::NotMine);

    let once = host.ticket(TicketOrder { uses: Some(1), role: Role::Client, ..order() }).await;
    let first = Peer::new().await;
    assert!(matches!(first.join(&once).await, AdmitReply::Admitted { .. }));
    assert_eq!(stranger.refused(&at, |session| joining(&once, session)).await, AdmitRefusal::UsedUp);
    assert!(matches!(first.join(&once).await, AdmitReply::Admitted { .. }), "who comes again does not count again");

    // None of that made it a member.
    let connection = stranger.dial(&at, MESH).await.unwrap();
    closed(&connection, 403).await;
    honest.are_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_overheard_is_worth_nothing_in_another_connection() {
    let honest = Honest::new().await;
    let (at, rightful) = (honest.at(), Peer::new().await);
    let mut overheard = Vec::new();
    let first = rightful.visit(&at, |session| {
        overheard = joining(&honest.ticket, session);
        overheard.clone()
    });
    assert!(matches!(first.await, Some(AdmitReply::Admitted { .. })));
    assert_eq!(rightful.refused(&at, |_| overheard.clone()).await, AdmitRefusal::Proof, "its own, replayed");
    assert_eq!(Peer::new().await.refused(&at, |_| overheard.clone()).await, AdmitRefusal::Proof, "another's");
    // A certificate is nobody's but its node's, either.
    let member = Member::new(&honest.ticket).await;
    let hello = AdmitRequest::Hello { chain: member.chain.clone(), ext: Default::default() };
    let thief = Peer::new().await;
    assert_eq!(thief.refused(&at, |_| codec::encode(&hello).unwrap()).await, AdmitRefusal::Certificate);
    closed(&thief.dial(&at, INFER).await.unwrap(), 403).await;
    honest.are_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_desk_refuses_what_is_too_long_cut_off_or_nonsense() {
    let honest = Honest::new().await;
    let (at, stranger) = (honest.at(), Peer::new().await);
    for length in [4097, 1 << 20] {
        let cut = stranger.visit(&at, |_| vec![1; length]).await;
        assert!(cut.is_none(), "it said {cut:?} to {length} bytes");
    }
    for garbage in [&[][..], &[0], &[1], &[1, 200], &[1, 0, 0xfd, 255, 255, 255, 255, 255, 255, 255, 255], &[255; 4096]]
    {
        assert_eq!(stranger.refused(&at, |_| garbage.to_vec()).await, AdmitRefusal::Malformed, "{garbage:?}");
    }
    let whole = stranger.visit(&at, |session| {
        let mut long = joining(&honest.ticket, session);
        long.push(0);
        long
    });
    assert!(
        matches!(whole.await, Some(AdmitReply::Refused { reason: AdmitRefusal::Malformed, .. })),
        "bytes after the end"
    );
    let mut length = 0;
    stranger
        .refused(&at, |session| {
            let bytes = joining(&honest.ticket, session);
            length = bytes.len();
            bytes[..length - 1].to_vec()
        })
        .await;
    let cuts = stream::iter(0..length).map(|end| {
        let (stranger, at, ticket) = (&stranger, &at, &honest.ticket);
        async move { (end, stranger.refused(at, |session| joining(ticket, session)[..end].to_vec()).await) }
    });
    let refusals: Vec<_> = cuts.buffer_unordered(8).collect().await;
    assert_eq!(refusals.len(), length);
    for (end, refusal) in refusals {
        assert_eq!(refusal, AdmitRefusal::Malformed, "cut at {end}");
    }
    honest.are_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_opens_the_desk_and_says_nothing_is_shown_out_after_five_seconds() {
    let honest = Honest::new().await;
    let (at, stranger) = (honest.at(), Peer::new().await);
    let began = Instant::now();
    let mute = stranger.dial(&at, ADMIT).await.unwrap();
    let slow = stranger.dial(&at, ADMIT).await.unwrap();
    let (mut send, _recv) = slow.open_bi().await.unwrap();
    send.write_all(&[1, 0, 100]).await.unwrap();
    // Neither keeps others waiting.
    assert!(matches!(Peer::new().await.join(&honest.ticket).await, AdmitReply::Admitted { .. }));
    closed(&mute, 0).await;
    closed(&slow, 0).await;
    let waited = began.elapsed();
    assert!(waited > Duration::from_secs(4) && waited < Duration::from_secs(30), "{waited:?}");
    honest.are_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_that_streams_without_end_fills_no_memory() {
    let honest = Honest::new().await;
    let (at, stranger) = (honest.at(), Peer::new().await);
    let connection = stranger.dial(&at, ADMIT).await.unwrap();
    // The desk reads one stream; these are others, and nobody reads them.
    let mut taken = 0;
    let mut open = Vec::new();
    for _ in 0..64 {
        let Ok(Ok(mut stream)) = tokio::time::timeout(Duration::from_secs(1), connection.open_uni()).await else {
            break;
        };
        let wrote = tokio::time::timeout(Duration::from_millis(100), async {
            loop {
                match stream.write(&[0; 4096]).await {
                    Ok(bytes) => taken += bytes,
                    Err(_) => return,
                }
            }
        });
        let _ = wrote.await;
        open.push(stream);
        if taken > 1 << 20 {
            break;
        }
    }
    // What its own side has not sent yet is among them: some 10 MB can be, where the window does not hold it back.
    let sent = connection.stats().udp_tx.bytes;
    assert!(sent < 512 << 10, "{sent} bytes went out unread");
    drop(open);
    honest.are_well().await;
}

/// Strangers in the flood, and what the node's memory may grow by.
const STRANGERS: usize = 1000;
const GROWTH_KIB: u64 = 160 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_strangers_neither_stop_a_members_requests_nor_fill_the_nodes_memory() {
    let farm = mesh_support::Farm::new();
    let host = farm.found("a", "--model mesh-tiny --mlx").await;
    let door = farm.join("door", "client").await;
    door.lists(&[("mesh-tiny", 1)]).await;
    let body = json!({ "model": "mesh-tiny", "temperature": 0,
        "messages": [{ "role": "user", "content": "What is the capital of France?" }] });
    let ask = async || {
        let began = Instant::now();
        let answer = door.post("/v1/chat/completions", &body).await;
        assert_eq!(answer.headers()["x-mesh-node"], host.id.as_str());
        let answer: serde_json::Value = answer.json().await.unwrap();
        assert_eq!(answer["choices"][0]["message"]["content"], "The capital of France is Paris.");
        began.elapsed()
    };
    ask().await;
    let ticket: Ticket = std::fs::read_to_string(farm.ticket()).unwrap().parse().unwrap();
    let process = host.child.id().unwrap().to_string();
    let before = memory_kib(&process);
    let began = Instant::now();
    let flood = tokio::spawn(async move {
        let crowd: Vec<Peer> = stream::iter(0..20).then(|_| Peer::new()).collect().await;
        let knocks = stream::iter(0..STRANGERS).map(|number| {
            let (stranger, at) = (crowd[number % crowd.len()].clone(), ticket.contacts[0].clone());
            async move { stranger.dial(&at, [ADMIT, MESH, INFER][number % 3]).await.ok() }
        });
        let kept: Vec<_> = knocks.buffer_unordered(50).collect().await;
        (crowd, kept)
    });
    let mut longest = Duration::ZERO;
    let mut asked = 0;
    while !flood.is_finished() {
        longest = longest.max(ask().await);
        asked += 1;
    }
    let (crowd, kept) = flood.await.unwrap();
    let grown = memory_kib(&process).saturating_sub(before);
    let came = kept.iter().flatten().count();
    println!("{came} of {STRANGERS} in {:?}: {asked} requests, the longest {longest:?}; {grown} KiB", began.elapsed());
    assert!(came > STRANGERS / 2, "{came} shook hands");
    assert!(longest < Duration::from_secs(20), "{longest:?}");
    assert!(grown < GROWTH_KIB, "{grown} KiB");
    drop(kept);
    for stranger in crowd {
        stranger.endpoint.close().await;
    }
    ask().await;
    // And the desk is free again.
    let late = farm.join("late", "client").await;
    late.lists(&[("mesh-tiny", 1)]).await;
}

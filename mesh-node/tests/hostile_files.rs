//! Model files between nodes: who may have them, and what peers that lie about them can do.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;
mod hostile_support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use catalog::hub::{Hub, Secret, Selection, Stage};
use hostile_support::*;
use iroh::endpoint::Connection;
use iroh_blobs::{
    get::fsm,
    protocol::{ERR_PERMISSION, GetRequest},
    provider::events::EventSender,
    store::mem::MemStore,
};
use mesh_node::{
    cli::{Share, Way},
    manage::{MeshControl, Role, TicketOrder},
};
use mesh_proto::{
    codec::{self, Ext},
    files::{FileName, FileState, FileSum, FilesAsk, FilesReply},
    identity::{NodeId, Ticket},
};
use test_hub::{Content, Repo, RunningHub};
use tokio::time::{sleep, timeout};

const BYTES: u64 = 3_000_000;

fn repo(name: &str, seed: u64) -> Repo {
    Repo::new(name).file("config.json", format!("{{\"seed\":{seed}}}")).lfs("weights", Content::generated(seed, BYTES))
}

fn hub() -> RunningHub {
    test_hub::Hub::new().repo(repo("org/open", 1)).start().unwrap()
}

/// A founder that shares what is open, and its ticket.
async fn founder(hub: &RunningHub) -> (Node, Ticket) {
    let node = Node::with_files(Way::Found { name: "test".into() }, hub.url(), Share::default()).await;
    let ticket = node.ticket(order()).await;
    (node, ticket)
}

async fn joiner(hub: &RunningHub, ticket: &Ticket) -> Node {
    Node::with_files(Way::Join(vec![ticket.clone()]), hub.url(), Share::default()).await
}

/// Both know of each other.
async fn meet(one: &Node, two: &Node) {
    for (node, other) in [(one, two), (two, one)] {
        node.until("they meet", |node| node.mesh.view().peers.get(&other.id()).is_some_and(|peer| peer.linked)).await;
    }
}

/// Downloads a whole repository as a node does that is to serve it; the stages that were told.
async fn download(node: &Node, repo: &str, token: Option<&str>) -> Vec<Stage> {
    let mut config = node.files.clone().unwrap().hub;
    config.token = token.and_then(Secret::new);
    let hub = Hub::with_elsewhere(config, node.mesh.elsewhere().unwrap()).unwrap();
    let listing = hub.files(repo, "main").await.unwrap();
    let (repo, revision) = (repo.to_owned(), "main".to_owned());
    let selection = Selection { repo, revision, commit: listing.commit, files: listing.files };
    let told = Mutex::new(Vec::new());
    let downloaded = hub.download(&selection, |progress| told.lock().unwrap().push(progress.stage));
    let snapshot = timeout(PATIENCE, downloaded).await.expect("a download in time").unwrap();
    for file in hub.verify(&selection.repo, |_| {}).unwrap() {
        assert!(file.right, "{file:?}");
    }
    assert_eq!(snapshot.files.len(), 2);
    told.into_inner().unwrap()
}

/// The weights' name.
fn weights(node: &Node, repo: &str) -> FileName {
    let hub = Hub::new(node.files.clone().unwrap().hub).unwrap();
    let files = hub.cached(repo, "main").unwrap().files;
    let hex = files.iter().find_map(|file| file.sha256.clone()).unwrap();
    let sum = data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap().try_into().unwrap();
    FileName { sum: FileSum::Sha256(sum), bytes: BYTES }
}

fn question(repo: &str, file: FileName) -> FilesAsk {
    FilesAsk { repo: repo.into(), files: vec![file], wants: false, ext: Ext::default() }
}

async fn answer(connection: &Connection, asked: &FilesAsk) -> Result<FilesReply, String> {
    let (mut send, mut recv) = ask_raw(connection, &framed(&codec::encode(asked).unwrap())).await;
    let _ = send.finish();
    let bytes = timeout(PATIENCE, frame(&mut recv)).await.expect("an answer in time")?;
    Ok(codec::decode(&bytes).unwrap())
}

#[tokio::test]
async fn strangers_and_members_that_do_not_serve_get_nothing() {
    let hub = hub();
    let (host, ticket) = founder(&hub).await;
    download(&host, "org/open", None).await;
    let file = weights(&host, "org/open");
    let stranger = Peer::new().await;
    let clients = host.ticket(TicketOrder { role: Role::Client, ..order() }).await;
    let client = Member::new(&clients).await;
    for peer in [&stranger, &client.peer] {
        for alpn in [FILES, BLOBS] {
            if let Ok(connection) = peer.dial(&ticket.contacts[0], alpn).await {
                closed(&connection, 403).await;
            }
        }
    }
    // The client is in for all else, and one that may serve gets an answer.
    client.link().await;
    let server = Member::new(&ticket).await;
    let connection = server.peer.dial(&ticket.contacts[0], FILES).await.unwrap();
    let reply = answer(&connection, &question("org/open", file)).await.unwrap();
    assert!(matches!(reply.files[..], [FileState::Here { .. }]), "{reply:?}");
    assert_eq!(host.counter("files_bytes_sent"), 0);
}

#[tokio::test]
async fn two_nodes_that_begin_at_once_ask_the_hub_for_each_byte_once() {
    let names = ["org/a", "org/b", "org/c", "org/d"];
    let hub = names.iter().zip(1..).fold(test_hub::Hub::new(), |hub, (name, seed)| hub.repo(repo(name, seed)));
    let hub = hub.throttle(Some(6_000_000)).start().unwrap();
    let (one, ticket) = founder(&hub).await;
    let two = joiner(&hub, &ticket).await;
    meet(&one, &two).await;
    for name in names {
        tokio::join!(download(&one, name, None), download(&two, name, None));
        assert_eq!(hub.bytes_sent(&format!("{name}/weights")), BYTES, "{name}");
    }
    assert!(one.counter("files_bytes_received") + two.counter("files_bytes_received") >= 4 * BYTES);
}

#[tokio::test]
async fn what_only_some_may_read_on_the_hub_goes_to_nobody_unless_its_owner_says_so() {
    let closed = repo("org/closed", 2).gated(["hf_t"]);
    let hidden = repo("org/hidden", 3).private(["hf_t"]);
    let hub = test_hub::Hub::new().repo(closed).repo(hidden).start().unwrap();
    let also = Share::Open { also: vec!["org/hidden".into()] };
    let host = Node::with_files(Way::Found { name: "test".into() }, hub.url(), also).await;
    let ticket = host.ticket(order()).await;
    let member = Member::new(&ticket).await;
    let connection = member.peer.dial(&ticket.contacts[0], FILES).await.unwrap();
    for (name, shared) in [("org/closed", false), ("org/hidden", true)] {
        download(&host, name, Some("hf_t")).await;
        let file = weights(&host, name);
        let reply = answer(&connection, &question(name, file)).await.unwrap();
        assert_eq!(matches!(reply.files[..], [FileState::Here { .. }]), shared, "{name}: {reply:?}");
        // The same bytes under the name of a repository that they are not of are not found either.
        let reply = answer(&connection, &question("org/hidden", FileName { bytes: 1, ..file })).await.unwrap();
        assert_eq!(reply.files, [FileState::Absent]);
        for climbing in ["../..", "org/../../hidden", "/"] {
            let reply = answer(&connection, &question(climbing, file)).await.unwrap();
            assert_eq!(reply.files, [FileState::Absent], "{climbing}");
        }
    }
    // Another node has to ask the hub itself, as itself.
    let other = joiner(&hub, &ticket).await;
    meet(&host, &other).await;
    download(&other, "org/closed", Some("hf_t")).await;
    assert_eq!(hub.bytes_sent("org/closed/weights"), 2 * BYTES);
    assert_eq!(host.counter("files_bytes_sent"), 0);
}

#[tokio::test]
async fn requests_that_no_node_makes_are_refused_and_floods_are_bounded() {
    let hub = hub();
    let (host, ticket) = founder(&hub).await;
    download(&host, "org/open", None).await;
    let file = weights(&host, "org/open");
    let member = Member::new(&ticket).await;
    let files = member.peer.dial(&ticket.contacts[0], FILES).await.unwrap();
    let asked = question("org/open", file);
    let FileState::Here { root } = answer(&files, &asked).await.unwrap().files[0] else { panic!("it has it") };

    // A blob that is not here, a collection, another kind of request, and noise.
    let blobs = member.peer.dial(&ticket.contacts[0], BLOBS).await.unwrap();
    for request in [GetRequest::blob([9; 32]), GetRequest::all(root)] {
        let connected = fsm::start(blobs.clone(), request, Default::default()).next().await.unwrap();
        let fsm::ConnectedNext::StartRoot(start) = connected.next().await.unwrap() else { panic!("it begins") };
        assert!(timeout(PATIENCE, start.next().next()).await.expect("it ends").is_err());
    }
    host.counts("files_refused", 2).await;
    let mut refused = host.counter("files_refused");
    for bytes in [[&[8][..], &root].concat(), vec![255; 64], vec![0; 3]] {
        let (mut send, mut recv) = ask_raw(&blobs, &bytes).await;
        let _ = send.finish();
        let ended = timeout(PATIENCE, recv.read_to_end(1 << 20)).await.expect("it ends");
        let reset = iroh::endpoint::ReadToEndError::Read(iroh::endpoint::ReadError::Reset(ERR_PERMISSION));
        assert_eq!(format!("{:?}", ended.unwrap_err()), format!("{reset:?}"));
        refused += 1;
        host.counts("files_refused", refused).await;
    }
    for bytes in [vec![255; 64], framed(&[1, 2, 3]), framed(&vec![0; 30_000])] {
        let (mut send, mut recv) = ask_raw(&files, &bytes).await;
        let _ = send.finish();
        assert!(timeout(PATIENCE, recv.read_to_end(1 << 20)).await.expect("it ends").is_err());
    }

    // As many questions as fit into the pipe: some are answered, the rest is refused, and others are served meanwhile.
    let mut answered = 0;
    for _ in 0..1200 {
        answered += u32::from(answer(&files, &asked).await.is_ok());
    }
    assert!((1..1200).contains(&answered), "{answered}");
    assert!(host.counter("files_refused") >= refused + u64::from(1200 - answered));
    let other = joiner(&hub, &ticket).await;
    meet(&host, &other).await;
    download(&other, "org/open", None).await;
    assert_eq!(hub.bytes_sent("org/open/weights"), BYTES);
}

#[tokio::test]
async fn an_expelled_member_is_cut_off_in_the_middle_of_a_file() {
    let hub = test_hub::Hub::new()
        .repo(Repo::new("org/long").file("config.json", "{}").lfs("weights", Content::generated(5, 200_000_000)))
        .start()
        .unwrap();
    let (host, ticket) = founder(&hub).await;
    download(&host, "org/long", None).await;
    let file = FileName { bytes: 200_000_000, ..weights(&host, "org/long") };
    let member = Member::new(&ticket).await;
    let link = member.publish(vec![]).await;
    let files = member.peer.dial(&ticket.contacts[0], FILES).await.unwrap();
    let here = async {
        loop {
            if let FileState::Here { root } = answer(&files, &question("org/long", file)).await.unwrap().files[0] {
                return root;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    let root = timeout(PATIENCE, here).await.expect("it is read over in time");
    let blobs = member.peer.dial(&ticket.contacts[0], BLOBS).await.unwrap();
    let connected = fsm::start(blobs.clone(), GetRequest::blob(root), Default::default()).next().await.unwrap();
    let fsm::ConnectedNext::StartRoot(start) = connected.next().await.unwrap() else { panic!("it begins") };
    let (mut content, size) = start.next().next().await.unwrap();
    assert_eq!(size, 200_000_000);
    let (mut got, mut expelled) = (0, false);
    let error = loop {
        match timeout(PATIENCE, content.next()).await.expect("more in time") {
            fsm::BlobContentNext::More((more, Ok(item))) => {
                content = more;
                if let bao_tree::io::BaoContentItem::Leaf(leaf) = item {
                    got += leaf.data.len();
                }
                if got > 1_000_000 && !expelled {
                    expelled = true;
                    host.mesh.expel(member.id()).await.unwrap();
                }
            }
            fsm::BlobContentNext::More((_, Err(error))) => break error,
            fsm::BlobContentNext::Done(_) => panic!("it got all"),
        }
    };
    assert!(got < 200_000_000, "{got}, {error:?}");
    for connection in [&blobs, &files, &link] {
        closed(connection, 403).await;
    }
}

/// Answers every question so, and gives these bytes to whoever asks for them.
fn gives(store: MemStore, said: impl Fn(&FilesAsk) -> FileState + Send + Sync + 'static) -> Gives {
    let said = Arc::new(said);
    Arc::new(move |connection: Connection| {
        let (store, said) = (store.clone(), said.clone());
        tokio::spawn(async move {
            if connection.alpn() == BLOBS {
                return iroh_blobs::provider::handle_connection(connection, (*store).clone(), EventSender::DEFAULT)
                    .await;
            }
            while let Ok((mut send, mut recv)) = connection.accept_bi().await {
                let Ok(bytes) = frame(&mut recv).await else { continue };
                let ask: FilesAsk = codec::decode(&bytes).unwrap();
                let files = ask.files.iter().map(|_| said(&ask)).collect();
                let reply = codec::encode(&FilesReply { files, ext: Ext::default() }).unwrap();
                let _ = send.write_all(&framed(&reply)).await;
                let _ = send.finish();
                let _ = send.stopped().await;
            }
        });
    })
}

async fn sees(node: &Node, peer: NodeId) {
    node.until("the liar is here", |node| {
        node.mesh.view().peers.get(&peer).is_some_and(|peer| peer.record.build.protocols.len() == 2)
    })
    .await;
}

#[tokio::test]
async fn what_liars_send_is_not_used_and_the_hub_is_asked() {
    let hub = hub();
    let (host, ticket) = founder(&hub).await;
    // Of the right length, honestly encoded, and something else; for the small file, too.
    let store = MemStore::new();
    let wrong = store.add_bytes(vec![7; BYTES as usize]).await.unwrap().hash;
    let short = store.add_bytes(vec![7; 10]).await.unwrap().hash;
    let says = move |ask: &FilesAsk| {
        let root = if ask.files[0].bytes == BYTES { wrong } else { short };
        FileState::Here { root: *root.as_bytes() }
    };
    let liar = Member::giving(&ticket, gives(store.clone(), says)).await;
    // Of another length than it says; and one that has nothing at all.
    let other = Member::giving(&ticket, gives(store, move |_| FileState::Here { root: *short.as_bytes() })).await;
    let empty = Member::giving(&ticket, gives(MemStore::new(), |_| FileState::Here { root: [3; 32] })).await;
    for member in [&liar, &other, &empty] {
        member.publish(vec![]).await;
        sees(&host, member.id()).await;
    }
    download(&host, "org/open", None).await;
    assert_eq!(hub.bytes_sent("org/open/weights"), BYTES);
    assert!(host.counter("files_wrong") >= 2 && host.counter("files_bytes_received") >= BYTES);

    // An honest node that joins them gets the right file, from the one that has it.
    let joined = joiner(&hub, &ticket).await;
    meet(&host, &joined).await;
    download(&joined, "org/open", None).await;
}

#[tokio::test]
async fn who_says_that_it_fetches_a_file_and_does_not_delays_it_for_a_while_only() {
    let hub = hub();
    let (host, ticket) = founder(&hub).await;
    let idle = Member::giving(&ticket, gives(MemStore::new(), |_| FileState::Coming { progress: 5 })).await;
    idle.publish(vec![]).await;
    sees(&host, idle.id()).await;
    let told = download(&host, "org/open", None).await;
    assert!(told.contains(&Stage::OthersTurn), "{told:?}");
    assert_eq!(hub.bytes_sent("org/open/weights"), BYTES);
}

#[tokio::test]
async fn who_wants_a_file_gets_it_from_iroh_blobs_own_provider_too() {
    let hub = hub();
    let (host, ticket) = founder(&hub).await;
    download(&host, "org/open", None).await;
    let dir = host.files.clone().unwrap().hub;
    let (large, small) = {
        let hub = Hub::new(dir).unwrap();
        let files = hub.cached("org/open", "main").unwrap().files;
        let read = |sha: bool| {
            let file = files.iter().find(|file| file.sha256.is_some() == sha).unwrap();
            let name = file.sha256.clone().or(file.git_oid.clone()).unwrap();
            std::fs::read(hub.blob("org/open", &name, file.bytes).unwrap().unwrap()).unwrap()
        };
        (read(true), read(false))
    };
    let store = MemStore::new();
    let roots = (store.add_bytes(large).await.unwrap().hash, store.add_bytes(small).await.unwrap().hash);
    let says = move |ask: &FilesAsk| {
        let root = if ask.files[0].bytes == BYTES { roots.0 } else { roots.1 };
        FileState::Here { root: *root.as_bytes() }
    };
    let member = Member::giving(&ticket, gives(store, says)).await;
    member.publish(vec![]).await;
    let joined = joiner(&hub, &ticket).await;
    sees(&joined, member.id()).await;
    meet(&host, &joined).await;
    hub.clear_log();
    let told = download(&joined, "org/open", None).await;
    assert!(told.contains(&Stage::Elsewhere), "{told:?}");
    assert_eq!(hub.content_bytes_sent(), 0, "two sources, and the hub is none of them");
}

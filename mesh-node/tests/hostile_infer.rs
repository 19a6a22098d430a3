//! Members that ask what nobody should, and members that answer what no host does.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;
mod hostile_support;

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use hostile_support::*;
use iroh::endpoint::{Connection, RecvStream};
use mesh_proto::{
    Channel, FinishReason, GenerateError, TokenId, Usage,
    codec::{self, Ext, Wire},
    infer::{Ask, Piece, Reply},
    placement::ModelKey,
    record::{Load, ServedModel},
    time::Millis,
};

fn model(honest: &Honest) -> ModelKey {
    honest.host.locals.all().values().next().unwrap().key()
}

fn fox(honest: &Honest) -> Ask {
    Ask { request: request("and now?"), model: model(honest), deadline: None, ext: Ext::default() }
}

/// Reads an answer to its end.
async fn whole(stream: &mut RecvStream) -> (String, Reply) {
    let mut text = String::new();
    loop {
        match word(stream).await.expect("a whole answer") {
            Reply::Tokens { pieces, .. } => {
                for piece in pieces {
                    if let Piece::Text { text: more, .. } = piece {
                        text.push_str(&more);
                    }
                }
            }
            last @ (Reply::Finished { .. } | Reply::Failed(_)) => return (text, last),
            _ => {}
        }
    }
}

async fn is_answered(connection: &Connection, honest: &Honest) {
    let (text, last) = whole(&mut ask(connection, &fox(honest)).await).await;
    assert_eq!(text, FOX);
    assert!(matches!(last, Reply::Finished { reason: FinishReason::Stop, .. }), "{last:?}");
}

/// Asks until the host says that it is too much.
async fn until_busy(connection: &Connection, honest: &Honest) -> GenerateError {
    let busy = async {
        loop {
            match word(&mut ask(connection, &fox(honest)).await).await {
                Ok(Reply::Failed(error)) => return error,
                Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(end) => panic!("{end}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, busy).await.expect("the host counts them")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_has_so_many_requests_open_and_others_are_answered_beside_them() {
    let honest = Honest::new().await;
    let member = Member::new(&honest.ticket).await;
    let connection = member.asking().await;
    let mut open = Vec::new();
    for _ in 0..512 {
        open.push(ask_raw(&connection, &100u32.to_le_bytes()).await);
    }
    assert!(matches!(until_busy(&connection, &honest).await, GenerateError::Busy { retry_after_s: 1, .. }));
    // However many connections it makes.
    let second = member.asking().await;
    assert!(matches!(until_busy(&second, &honest).await, GenerateError::Busy { .. }));
    honest.door.works().await;
    assert!(honest.host.counter("requests_refused") >= 2);
    drop(open);
    connection.close(0u32.into(), b"enough");
    let free = async {
        loop {
            match word(&mut ask(&second, &fox(&honest)).await).await.unwrap() {
                Reply::Failed(GenerateError::Busy { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
                _ => return,
            }
        }
    };
    tokio::time::timeout(PATIENCE, free).await.expect("what is given up is free again");
    is_answered(&second, &honest).await;
    honest.are_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_takes_memory_as_it_comes_and_no_more_of_it_than_a_peer_may_have() {
    let honest = Honest::new().await;
    let member = Member::new(&honest.ticket).await;
    let connection = member.asking().await;
    is_answered(&connection, &honest).await;
    let before = memory_kib("self");
    let longest = (Ask::LIMIT as u32).to_le_bytes();
    let (mut first, mut second) = (ask_raw(&connection, &longest).await, ask_raw(&connection, &longest).await);
    // Both together are beyond 64 MiB, which one of the two is told at once; a small request fits beside the other.
    let (busy, (mut send, mut waiting)) = tokio::select! {
        said = word(&mut first.1) => (said, second),
        said = word(&mut second.1) => (said, first),
    };
    assert!(matches!(busy, Ok(Reply::Failed(GenerateError::Busy { .. }))), "{busy:?}");
    is_answered(&connection, &honest).await;
    honest.door.works().await;
    let (_send, mut recv) = ask_raw(&connection, &(Ask::LIMIT as u32 + 1).to_le_bytes()).await;
    assert!(reply(&mut recv).await.unwrap_err().contains("Reset(400)"), "longer than any request may be");
    let claimed = memory_kib("self").saturating_sub(before);
    assert!(claimed < 32 << 10, "{claimed} KiB for mere claims");
    send.reset(1u32.into()).unwrap();
    assert!(reply(&mut waiting).await.is_err());

    let began = Instant::now();
    let nonsense = framed(&vec![1; Ask::LIMIT]);
    let (_send, mut recv) = ask_raw(&connection, &nonsense).await;
    assert!(reply(&mut recv).await.unwrap_err().contains("Reset(400)"));
    drop(nonsense);
    let grown = memory_kib("self").saturating_sub(before);
    println!("{claimed} KiB for claims; 33 MiB of nonsense in {:?}, {grown} KiB", began.elapsed());
    assert!(grown < 192 << 10, "{grown} KiB, both ends in this process");
    is_answered(&connection, &honest).await;
    honest.are_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_none_are_reset_and_others_of_the_same_connection_go_on() {
    let honest = Honest::new().await;
    let member = Member::new(&honest.ticket).await;
    let connection = member.asking().await;
    let good = codec::encode(&fox(&honest)).unwrap();
    let mut bad: Vec<Vec<u8>> = (0..good.len()).map(|end| framed(&good[..end])).collect();
    // The length is right, and less comes; no length at all; another version; bytes behind the end; noise.
    bad.extend((0..good.len() + 4).step_by(7).map(|end| framed(&good)[..end].to_vec()));
    bad.extend([framed(&[&[2], &good[1..]].concat()), framed(&[&good[..], &[0]].concat()), framed(&[0xff; 3000])]);
    let before = honest.host.counter("requests_refused");
    for bytes in &bad {
        let (mut send, mut recv) = ask_raw(&connection, bytes).await;
        let _ = send.finish();
        let end = reply(&mut recv).await.unwrap_err();
        assert!(end.contains("Reset(400)"), "{end}: {bytes:?}");
    }
    assert_eq!(honest.host.counter("requests_refused"), before + bad.len() as u64);
    is_answered(&connection, &honest).await;
    honest.are_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_demands_and_nobody_knows_is_refused_by_name_and_the_rest_is_skipped() {
    let honest = Honest::new().await;
    let member = Member::new(&honest.ticket).await;
    let connection = member.asking().await;
    let even = Ask { ext: Ext::default().with(901, vec![1]).with(902, vec![]), ..fox(&honest) };
    match word(&mut ask(&connection, &even).await).await.unwrap() {
        Reply::Failed(GenerateError::Invalid { field, message }) => {
            assert_eq!(field, "ext 902");
            assert!(message.contains("902"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    let odd = Ask { ext: Ext::default().with(901, vec![7; 1000]), ..fox(&honest) };
    assert_eq!(whole(&mut ask(&connection, &odd).await).await.0, FOX);
    let other = Ask { model: ModelKey([7; 32]), ..fox(&honest) };
    let refused = word(&mut ask(&connection, &other).await).await.unwrap();
    assert_eq!(
        refused,
        Reply::Failed(GenerateError::NotServed { model: MODEL.into() }),
        "the name alone is not enough"
    );
    let brief = Ask { request: request("#HANG"), deadline: Some(Millis(100)), ..fox(&honest) };
    let mut stream = ask(&connection, &brief).await;
    assert!(matches!(word(&mut stream).await, Ok(Reply::Accepted { .. })));
    assert!(word(&mut stream).await.unwrap_err().contains("Reset(0)"), "its time is over");
    let engine = honest.host.engine.clone().unwrap();
    honest.host.until("nothing runs for it", |_| engine.cancelled() == 1).await;
    honest.are_well().await;
}

fn say(at: u32, words: &[&str]) -> Act {
    let tokens = (at..).take(words.len()).map(TokenId).collect();
    let piece = |text: &&str| Piece::Text { channel: Channel::Content, text: (*text).into() };
    Act::Say(Reply::Tokens { at, tokens, pieces: words.iter().map(piece).collect(), logprobs: Vec::new() })
}

fn accepted() -> Act {
    Act::Say(Reply::Accepted { prompt_tokens: 2, ext: Ext::default() })
}

/// A host's word on its model, with a load that draws requests.
fn idle(said: ServedModel) -> ServedModel {
    ServedModel { load: Load { ttft_ms: 1, tokens_per_kilosecond: 1_000_000_000, ..Load::default() }, ..said }
}

/// A liar beside an honest host. Clients get the whole answer, and nothing twice. How often the liar was asked in so many
/// requests, once it was asked so often.
async fn beside(acts: Vec<Act>, least: u32, requests: u32) -> u32 {
    let honest = Honest::new().await;
    let liar = Member::answering(&honest.ticket, Arc::new(move |_: &Ask| acts.clone())).await;
    let _link = liar.publish(vec![idle(honest.door.word_of(&honest.host.id()))]).await;
    honest.door.owners(MODEL, &[honest.host.id(), liar.id()]).await;
    let asks = || liar.heard.asks.load(SeqCst);
    let began = Instant::now();
    for number in 0.. {
        if number >= requests && asks() >= least {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "the liar was asked {} times in {number} requests", asks());
        honest.door.works().await;
    }
    asks()
}

/// Such a liar is left alone after three times: then it gets one request each time that its breaker half opens, after
/// 1, 2, 4, 8, … s; and no test takes longer than a minute.
const BREAKER: u32 = 3 + 7;

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_says_it_does_not_serve_the_model_costs_no_answer() {
    let not_served = Reply::Failed(GenerateError::NotServed { model: MODEL.into() });
    assert!(beside(vec![Act::Say(not_served)], 1, 10).await >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_silent_costs_no_answer_and_is_avoided() {
    let asked = beside(vec![Act::Hang], 1, 40).await;
    assert!(asked <= BREAKER, "{asked} of 40 and more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_talks_nonsense_costs_no_answer_and_is_avoided() {
    let asked = beside(vec![Act::Frame(vec![1, 2, 255, 255, 255]), Act::Hang], 1, 60).await;
    assert!(asked <= BREAKER, "{asked} of 60 and more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_frames_are_impossibly_long_costs_no_answer_and_is_avoided() {
    let asked = beside(vec![Act::Raw(vec![255; 4096]), Act::Hang], 1, 60).await;
    assert!(asked <= BREAKER, "{asked} of 60 and more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_tokens_say_nothing_costs_no_answer_and_is_avoided() {
    // No tokens; and a piece of no text.
    let asked = beside(vec![Act::Frame(vec![1, 2, 0, 0, 1, 0, 0, 1, b'x']), Act::Hang], 1, 60).await;
    assert!(asked <= BREAKER, "{asked} of 60 and more");
    let asked = beside(vec![Act::Frame(vec![1, 2, 0, 1, 0, 1, 0, 0, 0]), Act::Hang], 1, 60).await;
    assert!(asked <= BREAKER, "{asked} of 60 and more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_out_of_step_costs_no_answer() {
    assert!(beside(vec![say(3, &[" fox"]), Act::Hang], 1, 30).await >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_accepts_before_it_talks_nonsense_costs_no_answer() {
    assert!(beside(vec![accepted(), Act::Frame(vec![1, 2, 255, 255, 255]), Act::Hang], 1, 30).await >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_accepts_before_it_talks_nonsense_is_avoided() {
    let asked = beside(vec![accepted(), Act::Frame(vec![1, 2, 255, 255, 255]), Act::Hang], 1, 60).await;
    assert!(asked <= BREAKER, "{asked} of 60 and more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_repeats_itself_costs_no_answer_and_no_word_is_heard_twice() {
    let repeats = vec![accepted(), say(0, &["The", " quick"]), say(1, &[" quick"]), Act::Hang];
    let asked = beside(repeats, 1, 60).await;
    assert!(asked >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_breaks_off_in_mid_stream_is_gone_on_from() {
    for end in [vec![Act::Reset], vec![], vec![Act::Hang]] {
        let begins =
            vec![accepted(), say(0, &["The"]), say(1, &[" quick", " brown"]), Act::Wait(Duration::from_millis(5))];
        assert!(beside([begins, end].concat(), 1, 6).await >= 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn words_of_a_newer_release_are_skipped_in_an_answer() {
    let newer = || Act::Frame(vec![1, 5, 1, 2, 3]);
    let usage = Usage { prompt_tokens: 2, completion_tokens: 10, ..Usage::default() };
    let finished = Reply::Finished {
        logprobs: Vec::new(),
        pieces: vec![],
        reason: FinishReason::Stop,
        stop: None,
        usage,
        ext: Ext::default().with(60_001, vec![1]),
    };
    let first = ["The", " quick", " brown", " fox"];
    let rest = [" jumps", " over", " the", " lazy", " dog", "."];
    let acts = vec![
        newer(),
        accepted(),
        newer(),
        say(0, &first),
        Act::Frame(vec![1, 250]),
        say(4, &rest),
        newer(),
        Act::Say(finished),
    ];
    // It is as good as any, and so is asked like any.
    assert!(beside(acts, 1, 5).await >= 1);
}

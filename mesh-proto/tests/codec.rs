//! The codec and every decoder on it, against what honest and hostile peers send.
#![allow(clippy::unwrap_used, reason = "a test says what it expects in the shortest way")]

mod support;

use std::collections::BTreeMap;

use mesh_proto::{
    GenerateError, PoolTask, TokenId,
    codec::{self, CodecError, Ext, Wire},
    directory::{Range, RangeDigest, SyncFrame},
    identity::{AdmitReply, AdmitRequest, Contact, RevocationList},
    infer::{Ask, Piece, Reply},
    record::Record,
    suspicion::ProbeFrame,
};
use proptest::prelude::*;
use support::*;

#[test]
fn what_is_encoded_decodes_to_the_same_bytes() {
    for sample in samples() {
        assert_eq!((sample.decode)(&sample.bytes).unwrap(), sample.bytes, "{}", sample.name);
    }
}

#[test]
fn a_frame_cut_at_any_byte_is_refused() {
    for sample in samples() {
        for end in 0..sample.bytes.len() {
            assert!((sample.decode)(&sample.bytes[..end]).is_err(), "{} cut at {end}", sample.name);
        }
    }
}

#[test]
fn bytes_after_the_end_are_refused() {
    for sample in samples() {
        let mut bytes = sample.bytes.clone();
        bytes.push(0);
        let error = (sample.decode)(&bytes).unwrap_err();
        assert!(matches!(error, CodecError::Trailing { extra: 1, .. }), "{}: {error}", sample.name);
    }
}

#[test]
fn another_major_version_is_named_before_anything_is_decoded() {
    for mut sample in samples() {
        sample.bytes[0] = 2;
        let error = (sample.decode)(&sample.bytes).unwrap_err();
        assert!(matches!(error, CodecError::Version { found: 2, .. }), "{}", sample.name);
    }
}

#[test]
fn a_newer_builds_variant_is_told_apart_from_garbage() {
    let error = codec::decode::<SyncFrame>(&[1, 5, 0]).unwrap_err();
    assert_eq!(error, CodecError::UnknownVariant { what: "sync frame", found: 5 });
    let error = codec::decode::<ProbeFrame>(&[1, 200]).unwrap_err();
    assert_eq!(error, CodecError::UnknownVariant { what: "probe frame", found: 200 });
    let error = codec::decode::<Reply>(&[1, 6, 0]).unwrap_err();
    assert_eq!(error, CodecError::UnknownVariant { what: "reply", found: 6 });
    let error = codec::decode::<AdmitRequest>(&[1, 3, 0]).unwrap_err();
    assert_eq!(error, CodecError::UnknownVariant { what: "admission request", found: 3 });
    // A newer kind of error within a reply, and a newer kind of prompt: the frame is lost, and nothing else.
    let error = codec::decode::<Reply>(&[1, 4, 7, 0]).unwrap_err();
    assert_eq!(error, CodecError::Malformed { what: "reply" });
    let error = codec::decode::<ProbeFrame>(&[1, 251, 6, 0]).unwrap_err();
    assert_eq!(error, CodecError::Malformed { what: "probe frame" });
}

#[test]
fn every_variant_that_exists_is_counted_in_variants() {
    let mut most = BTreeMap::<&str, u8>::new();
    for sample in samples().iter().filter(|sample| sample.name.contains(": ")) {
        let kind = sample.name.split(": ").next().unwrap();
        let entry = most.entry(kind).or_default();
        *entry = (*entry).max(sample.bytes[1] + 1);
    }
    let known = [
        ("sync", SyncFrame::VARIANTS),
        ("probe", ProbeFrame::VARIANTS),
        ("admission request", AdmitRequest::VARIANTS),
        ("admission reply", AdmitReply::VARIANTS),
        ("reply", Reply::VARIANTS),
        ("pool task", PoolTask::VARIANTS),
    ];
    assert_eq!(most.len(), known.len());
    for (kind, variants) in known {
        assert_eq!(most[kind], variants, "{kind}");
    }
}

#[test]
fn a_hostile_length_is_refused_without_allocating() {
    // A want of 2^60 nodes, and a record body of 2^60 bytes.
    let huge = [253, 0, 0, 0, 0, 0, 0, 0, 16];
    let want = [&[1, 2][..], &huge].concat();
    assert!(matches!(codec::decode::<SyncFrame>(&want), Err(CodecError::Malformed { .. })));
    let records = [&[1, 3, 1, 0][..], &huge].concat();
    assert!(matches!(codec::decode::<SyncFrame>(&records), Err(CodecError::Malformed { .. })));
    // An ask whose id, and one whose resumed tokens, are said to be so long; tokens and pieces of a reply.
    let id = [&[1][..], &huge].concat();
    assert_eq!(codec::decode::<Ask>(&id).unwrap_err(), CodecError::Malformed { what: "ask" });
    let whole = codec::encode(&resuming_ask()).unwrap();
    // Behind the list's length come 5 bytes of tokens, no local time, the key, no deadline, no additions.
    let at = whole.len() - (1 + 5 + 1 + 32 + 1 + 1);
    assert_eq!(whole[at], 3, "the length of `resume`");
    let resume = [&whole[..at], &huge, &whole[at + 1..]].concat();
    assert_eq!(codec::decode::<Ask>(&resume).unwrap_err(), CodecError::Malformed { what: "ask" });
    for reply in
        [[&[1, 2, 0][..], &huge].concat(), [&[1, 2, 0, 1, 9][..], &huge].concat(), [&[1, 3][..], &huge].concat()]
    {
        assert_eq!(codec::decode::<Reply>(&reply).unwrap_err(), CodecError::Malformed { what: "reply" });
    }
}

#[test]
fn an_ask_as_long_as_the_api_takes_a_body_travels_and_a_longer_one_does_not() {
    let long = |bytes: usize| {
        let mut ask = resuming_ask();
        ask.request.prompt = mesh_proto::Prompt::Text("x".repeat(bytes));
        ask
    };
    let ask = long(32 << 20);
    assert_eq!(codec::decode::<Ask>(&codec::encode(&ask).unwrap()).unwrap(), ask);
    assert!(matches!(codec::encode(&long(33 << 20)), Err(CodecError::TooLong { .. })));
    assert!(matches!(codec::decode::<Ask>(&vec![1; (33 << 20) + 1]), Err(CodecError::TooLong { .. })));
}

#[test]
fn counts_of_an_ask_and_of_a_reply_beyond_their_caps_are_named() {
    let field = |result: Result<Vec<u8>, CodecError>| match result.unwrap_err() {
        CodecError::Cap { cap, .. } => cap.field,
        error => panic!("{error}"),
    };
    type Case = (&'static str, fn(&mut Ask));
    let cases: [Case; 5] = [
        ("request id", |ask| ask.request.id.0 = "x".repeat(129)),
        ("model id", |ask| ask.request.model = mesh_proto::ModelId::new("x".repeat(257))),
        ("stop", |ask| ask.request.stop = vec![String::new(); 65]),
        ("logit_bias", |ask| {
            let bias = ask.request.sampling.logit_bias[0];
            ask.request.sampling.logit_bias = vec![bias; (1 << 16) + 1];
        }),
        ("ext", |ask| ask.ext = Ext(vec![(1, vec![]); 17])),
    ];
    for (name, spoil) in cases {
        let mut ask = chat_ask();
        spoil(&mut ask);
        assert_eq!(field(codec::encode(&ask)), name);
    }
    let text = |text: &str| Piece::Text { channel: mesh_proto::Channel::Content, text: text.into() };
    let pieces = vec![text("x"); Reply::MAX_PIECES + 1];
    let tokens = vec![TokenId(0); Reply::MAX_TOKENS + 1];
    let said =
        |tokens: Vec<TokenId>, pieces| field(codec::encode(&Reply::Tokens { at: 0, tokens, pieces, logprobs: vec![] }));
    assert_eq!(said(vec![TokenId(0)], pieces), "pieces");
    assert_eq!(said(tokens, vec![]), "tokens");
    assert_eq!(said(vec![], vec![text("x")]), "tokens");
    assert_eq!(said(vec![TokenId(0)], vec![text("x"), text("")]), "text");
    let nothing =
        codec::encode(&Reply::Tokens { at: 0, tokens: vec![], pieces: vec![], logprobs: vec![] }).unwrap_err();
    assert_eq!(nothing.to_string(), "reply: tokens has 0, 1 to 65536 are allowed");
    assert_eq!(codec::decode::<Reply>(&[1, 2, 0, 0, 0, 0]).unwrap_err().label(), "cap", "nor from outside");
}

/// An ask's bytes in which one list is said to hold `count` of `element`.
fn swollen(list: &str, count: u32, element: &[u8]) -> Vec<u8> {
    let mut ask = chat_ask();
    let prompt = mesh_proto::Prompt::Chat(mesh_proto::ChatPrompt::default());
    let named = mesh_proto::GenerateRequest::new(ask.request.model, prompt);
    ask.request = mesh_proto::GenerateRequest { id: ask.request.id, ..named };
    let (id, model) = (ask.request.id.0.len(), ask.request.model.as_str().len());
    let bytes = codec::encode(&ask).unwrap();
    // Version, both names with their lengths, the prompt's kind; then the lists of messages and tools.
    let messages = 1 + 1 + id + 1 + model + 1;
    // Thinking, effort, budget.
    let variables = messages + 2 + 3;
    // Temperature, top_p, top_k, min_p, typical_p, the penalties and their reach, DRY, XTC, the seed.
    let bias = variables + 1 + (4 + 4 + 1 + 4 + 4) + (3 * 4 + 2) + 1 + 2 * 4 + 1;
    // Tool choice, parallel calls, constraint, logprobs; the most and the least tokens.
    let stop = bias + 1 + 4 + 2;
    let at = match list {
        "messages" => messages,
        "tools" => messages + 1,
        "variables" => variables,
        "bias" => bias,
        _ => stop,
    };
    assert_eq!(bytes[at], 0, "the length of {list}");
    let length = [&[0xfc][..], &count.to_le_bytes()].concat();
    [&bytes[..at], &length, &element.repeat(count as usize), &bytes[at + 1..]].concat()
}

#[test]
fn lists_of_nothing_end_at_their_caps_before_they_take_memory() {
    // A message of nothing takes 6 bytes here and 150 in memory; one with two calls of nothing 12 and 300.
    let message = [2, 0, 0, 0, 0, 0];
    let calls = [3, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0];
    let cases: [(&str, u32, &[u8]); 6] = [
        ("messages", 16_384, &message),
        ("messages", 16_384 / 3, &calls),
        ("tools", 4_096, &[0, 0]),
        ("variables", 64, &[0, 0]),
        ("bias", 65_536, &[0, 0, 0, 0, 0]),
        ("stop", 64, &[0]),
    ];
    for (list, most, element) in cases {
        let full = swollen(list, most, element);
        assert!(codec::decode::<Ask>(&full).is_ok(), "{list} of {most}");
        let beyond = swollen(list, most + 1, element);
        assert_eq!(codec::decode::<Ask>(&beyond).unwrap_err(), CodecError::Malformed { what: "ask" }, "{list}");
        let frame = swollen(list, (Ask::LIMIT / element.len() - 200) as u32, element);
        assert!(frame.len() > Ask::LIMIT - 8192 && frame.len() <= Ask::LIMIT);
        let before = peak();
        assert!(codec::decode::<Ask>(&frame).is_err(), "{list}");
        let grown = peak() - before;
        assert!(grown < 64 << 10, "{list}: {grown} KiB for a frame of 33 MiB");
    }
    let calls = [&[3, 0, 0, 0xfb][..], &4097u16.to_le_bytes(), &[0; 3 * 4097 + 2]].concat();
    assert!(codec::decode::<Ask>(&swollen("messages", 1, &calls)).is_err(), "calls of one message");
    let pieces = [&[1, 2, 0, 1, 9, 0xfc][..], &1_000_000u32.to_le_bytes(), &[0; 3_000_000]].concat();
    assert_eq!(codec::decode::<Reply>(&pieces).unwrap_err(), CodecError::Malformed { what: "reply" });
}

/// The most memory this process ever had, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[test]
fn bounded_lists_read_json_as_others_do() {
    let ask = chat_ask();
    let text = serde_json::to_string(&ask.request).unwrap();
    assert_eq!(serde_json::from_str::<mesh_proto::GenerateRequest>(&text).unwrap(), ask.request);
    let mut many = ask.request;
    many.stop = vec!["x".into(); 65];
    let text = serde_json::to_string(&many).unwrap();
    let error = serde_json::from_str::<mesh_proto::GenerateRequest>(&text).unwrap_err().to_string();
    assert!(error.contains("65") && error.contains("at most 64"), "{error}");
}

#[test]
fn every_error_of_a_generation_travels() {
    let errors = [
        GenerateError::invalid("resume", "no"),
        GenerateError::ContextOverflow { prompt_tokens: 300, context_tokens: 20 },
        GenerateError::Busy { waiting: 9, retry_after_s: 2 },
        GenerateError::ShuttingDown,
        GenerateError::NotServed { model: "tiny".into() },
        GenerateError::Unavailable("gone".into()),
        GenerateError::Engine("broken".into()),
    ];
    for (number, error) in (0..).zip(errors) {
        let bytes = codec::encode(&Reply::Failed(error.clone())).unwrap();
        assert_eq!((bytes[2], codec::decode::<Reply>(&bytes)), (number, Ok(Reply::Failed(error))));
    }
}

#[test]
fn longer_than_its_kind_is_refused_before_decoding_and_not_sent() {
    let error = codec::decode::<ProbeFrame>(&[1; 129]).unwrap_err();
    assert!(matches!(error, CodecError::TooLong { found: 129, limit: 128, .. }));
    let mut desk = founder();
    let chain = server(&mut desk, &key(1));
    let mut record = full(&key(1), &chain);
    record.models[0].ext = Ext(vec![(1, vec![0; 1024]); 16]);
    assert!(matches!(codec::encode(&record), Err(CodecError::TooLong { .. })));
}

#[test]
fn counts_and_lengths_beyond_their_caps_are_named() {
    let digest = RangeDigest { range: Range::ALL, count: 0, sum: [0; 16] };
    let frame = SyncFrame::Digest { ranges: vec![digest; 257], revocations: 0, more: false, ext: Ext::default() };
    assert_eq!(codec::encode(&frame).unwrap_err().to_string(), "sync frame: ranges has 257, at most 256 are allowed");

    let mut desk = founder();
    let chain = server(&mut desk, &key(1));
    type Case = (&'static str, fn(&mut Record));
    let cases: [Case; 6] = [
        ("models", |record| record.models = vec![record.models[0].clone(); 65]),
        ("model id", |record| record.models[0].id = mesh_proto::ModelId::new("x".repeat(257))),
        ("sketch", |record| record.prefixes[0].bytes = vec![0; 1025]),
        ("direct addresses", |record| record.contact.direct = vec![record.contact.direct[0]; Contact::MAX_DIRECT + 1]),
        ("ext", |record| record.ext = Ext(vec![(1, vec![]); 17])),
        ("ext bytes", |record| record.ext = Ext(vec![(1, vec![0; 1025])])),
    ];
    for (field, spoil) in cases {
        let mut record = full(&key(1), &chain);
        spoil(&mut record);
        match codec::encode(&record).unwrap_err() {
            CodecError::Cap { cap, .. } => assert_eq!(cap.field, field),
            error => panic!("{field}: {error}"),
        }
    }
}

#[test]
fn the_fullest_revocation_list_fits_its_frame() {
    let list = RevocationList {
        nodes: vec![key(1).id(); RevocationList::MAX_NODES],
        serials: vec![[1; 16]; RevocationList::MAX_SERIALS],
        invitations: vec![mesh_proto::identity::Nonce([1; 16]); RevocationList::MAX_INVITATIONS],
        ..RevocationList::empty(mesh())
    };
    let bytes = codec::encode(&list).unwrap();
    assert!(bytes.len() < RevocationList::LIMIT && bytes.len() + 200 < SyncFrame::LIMIT);
}

#[test]
fn what_an_older_build_does_not_know_it_carries_on() {
    let mut desk = founder();
    let chain = server(&mut desk, &key(1));
    let newer = full(&key(1), &chain);
    assert_eq!(newer.ext.get(900), Some(&b"later"[..]));
    let older: Record = codec::decode(&codec::encode(&newer).unwrap()).unwrap();
    assert_eq!(older.ext, newer.ext);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_frames_never_panic(which in any::<prop::sample::Index>(), flips in prop::collection::vec((0usize..4096, any::<u8>()), 1..6)) {
        thread_local! { static SAMPLES: Vec<Sample> = samples(); }
        SAMPLES.with(|samples| {
            let sample = which.get(samples);
            let mut bytes = sample.bytes.clone();
            for (at, byte) in flips {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            // Accepted or refused; what is accepted can be said again.
            let _ = (sample.decode)(&bytes);
        });
    }

    #[test]
    fn random_bytes_never_panic(which in any::<prop::sample::Index>(), mut bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        thread_local! { static SAMPLES: Vec<Sample> = samples(); }
        if let Some(first) = bytes.first_mut() { *first = 1; }
        SAMPLES.with(|samples| { let _ = (which.get(samples).decode)(&bytes); });
    }
}

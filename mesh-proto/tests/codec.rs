//! The codec and every decoder on it, against what honest and hostile peers send.
#![allow(clippy::unwrap_used, reason = "a test says what it expects in the shortest way")]

mod support;

use std::collections::BTreeMap;

use mesh_proto::{
    codec::{self, CodecError, Ext, Wire},
    directory::{Range, RangeDigest, SyncFrame},
    identity::{Contact, RevocationList},
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
    let known = [("sync", SyncFrame::VARIANTS), ("probe", ProbeFrame::VARIANTS)];
    for (kind, variants) in known {
        assert_eq!(most[kind], variants, "{kind}");
    }
    assert_eq!(most["admission request"], 2);
    assert_eq!(most["admission reply"], 2);
}

#[test]
fn a_hostile_length_is_refused_without_allocating() {
    // A want of 2^60 nodes, and a record body of 2^60 bytes.
    let huge = [253, 0, 0, 0, 0, 0, 0, 0, 16];
    let want = [&[1, 2][..], &huge].concat();
    assert!(matches!(codec::decode::<SyncFrame>(&want), Err(CodecError::Malformed { .. })));
    let records = [&[1, 3, 1, 0][..], &huge].concat();
    assert!(matches!(codec::decode::<SyncFrame>(&records), Err(CodecError::Malformed { .. })));
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
    fn mutated_frames_never_panic(which in 0usize..21, flips in prop::collection::vec((0usize..4096, any::<u8>()), 1..6)) {
        thread_local! { static SAMPLES: Vec<Sample> = samples(); }
        SAMPLES.with(|samples| {
            let sample = &samples[which];
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
    fn random_bytes_never_panic(which in 0usize..21, mut bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        thread_local! { static SAMPLES: Vec<Sample> = samples(); }
        if let Some(first) = bytes.first_mut() { *first = 1; }
        SAMPLES.with(|samples| { let _ = (samples[which].decode)(&bytes); });
    }
}

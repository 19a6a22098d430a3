//! docs/wire.md, checked: every hexadecimal block in it is what this build says.
#![allow(clippy::unwrap_used, reason = "a test says what it expects in the shortest way")]

mod support;

use std::{collections::BTreeMap, fmt::Write as _, fs, path::PathBuf};

use mesh_proto::{
    PoolTask,
    codec::{self, Ext, Wire},
    directory::{Announce, SyncFrame},
    files::{FilesAsk, FilesReply},
    identity::{
        AdmitReply, AdmitRequest, CertChain, Contact, INVITATION_LIFETIME, Invitation, MembershipCert, RevocationList,
        Ticket,
    },
    infer::{self, Ask, Reply},
    record::Record,
    suspicion::ProbeFrame,
};
use support::*;

fn page() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/wire.md")
}

/// ```` ```hex name ```` blocks by name.
fn blocks(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut rest = text;
    while let Some(start) = rest.find("```hex ") {
        let block = &rest[start + 7..];
        let (name, block) = block.split_once('\n').unwrap();
        let (body, after) = block.split_once("```").unwrap();
        found.insert(name.trim().to_owned(), body.trim().to_owned());
        rest = after;
    }
    found
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (at, byte) in bytes.iter().enumerate() {
        let gap = if at == 0 {
            ""
        } else if at % 32 == 0 {
            "\n"
        } else {
            " "
        };
        write!(text, "{gap}{byte:02x}").unwrap();
    }
    text
}

fn unhex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

fn wanted() -> BTreeMap<String, String> {
    let samples = samples();
    let mut wanted: BTreeMap<_, _> =
        samples.iter().map(|sample| (sample.name.to_owned(), hex(&sample.bytes))).collect();
    let beat = &samples.iter().find(|sample| sample.name == "reply: beat").unwrap().bytes;
    let prefix = u32::try_from(beat.len()).unwrap().to_le_bytes();
    assert_eq!(prefix.len(), infer::PREFIX);
    wanted.insert("a beat in its frame".to_owned(), hex(&[&prefix[..], beat].concat()));
    wanted
}

/// `UPDATE_WIRE=1` writes this build's bytes into the page: for a new format, never for a released one.
#[test]
fn the_hexadecimal_blocks_of_the_page_are_what_this_build_says() {
    let mut text = fs::read_to_string(page()).unwrap();
    let here = blocks(&text);
    let wanted = wanted();
    if std::env::var_os("UPDATE_WIRE").is_some() {
        for (name, body) in &wanted {
            let start = text.find(&format!("```hex {name}\n")).unwrap() + 8 + name.len();
            let end = start + text[start..].find("```").unwrap();
            text.replace_range(start..end, &format!("{body}\n"));
        }
        let sent = ticket().to_text().unwrap();
        let start = text.find("```ticket\n").unwrap() + 10;
        let end = start + text[start..].find("```").unwrap();
        text.replace_range(start..end, &format!("{sent}\n"));
        fs::write(page(), text).unwrap();
        return;
    }
    assert_eq!(here.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
    for (name, body) in wanted {
        assert_eq!(here[&name], body, "{name}");
    }
}

#[test]
fn what_stands_on_the_page_decodes() {
    let here = blocks(&fs::read_to_string(page()).unwrap());
    for sample in samples() {
        let bytes = unhex(&here[sample.name]);
        assert_eq!((sample.decode)(&bytes).unwrap(), bytes, "{}", sample.name);
    }
}

#[test]
fn the_pages_ticket_is_read() {
    let text = fs::read_to_string(page()).unwrap();
    let (_, rest) = text.split_once("```ticket\n").unwrap();
    let (sent, _) = rest.split_once("```").unwrap();
    let read: Ticket = sent.trim().parse().unwrap();
    assert_eq!(read, ticket());
    assert_eq!(read.invitation.claim().unwrap().not_after, DAY.after(INVITATION_LIFETIME));
}

#[test]
fn the_limits_on_the_page_are_the_codes() {
    let text = fs::read_to_string(page()).unwrap();
    let limits = [
        (Invitation::NAME, Invitation::LIMIT),
        (MembershipCert::NAME, MembershipCert::LIMIT),
        (CertChain::NAME, CertChain::LIMIT),
        (AdmitRequest::NAME, AdmitRequest::LIMIT),
        (AdmitReply::NAME, AdmitReply::LIMIT),
        (RevocationList::NAME, RevocationList::LIMIT),
        (Record::NAME, Record::LIMIT),
        (Announce::NAME, Announce::LIMIT),
        (SyncFrame::NAME, SyncFrame::LIMIT),
        (ProbeFrame::NAME, ProbeFrame::LIMIT),
        (Ask::NAME, Ask::LIMIT),
        (PoolTask::NAME, PoolTask::LIMIT),
        (Reply::NAME, Reply::LIMIT),
        (FilesAsk::NAME, FilesAsk::LIMIT),
        (FilesReply::NAME, FilesReply::LIMIT),
    ];
    for (name, limit) in limits {
        let row = format!("| {name} | {limit} |");
        assert!(text.contains(&row), "missing: {row}");
    }
    let caps = [
        ("models", Record::MAX_MODELS),
        ("direct addresses", Contact::MAX_DIRECT),
        ("ext tags", Ext::MAX_TAGS),
        ("tokens of a reply", Reply::MAX_TOKENS),
        ("pieces of a reply", Reply::MAX_PIECES),
        ("inputs of a pool task", PoolTask::MAX_INPUTS),
        ("tokens of a pool task", PoolTask::MAX_TOKENS),
        ("files of a question", FilesAsk::MAX_FILES),
        ("a repository's name", FilesAsk::MAX_REPO),
    ];
    for (name, cap) in caps {
        let row = format!("| {name} | {cap} |");
        assert!(text.contains(&row), "missing: {row}");
    }
}

/// A build that has learned to say more, and this one.
#[test]
fn two_versions_side_by_side_talk() {
    let mut desk = founder();
    let chain = server(&mut desk, &key(1));
    // The newer one's record has an addition and a state that this build does not know.
    let mut record = full(&key(1), &chain);
    record.ext = record.ext.with(4000, vec![1, 2, 3]);
    record.models[0].state = mesh_proto::record::ModelState::Other(9);
    record.models[0].capabilities.0 |= 1 << 63;
    let bytes = announce(aged(&record, &key(1), 0));
    let read: Announce = codec::decode(&bytes).unwrap();
    let read = read.aged.record.open(&key(1).id()).unwrap();
    assert_eq!(read, record);
    assert!(!read.serves(&record.models[0].id));
}

/// The same about a request: an addition may be skipped, or must be understood.
#[test]
fn an_odd_addition_to_an_ask_is_understood_without_and_an_even_one_is_named() {
    let (plain, now) = (chat_ask(), |ask: &Ask| codec::decode::<Ask>(&codec::encode(ask).unwrap()).unwrap());
    assert_eq!(plain.unknown_demand(), None);
    let odd = Ask { ext: Ext::default().with(901, b"a hint".to_vec()), ..plain.clone() };
    assert_eq!(now(&odd), odd);
    assert_eq!((now(&odd).unknown_demand(), &now(&odd).request), (None, &plain.request));
    let pool = pool_ask();
    assert_eq!((now(&pool).unknown_demand(), now(&pool).pools(), plain.pools()), (None, true, false));
    let even = Ask { ext: Ext::default().with(901, vec![]).with(900, b"a schema".to_vec()), ..plain };
    assert_eq!(now(&even).unknown_demand(), Some(900));
}

/// And about an answer: what was added to a reply is carried and not asked for.
#[test]
fn an_addition_to_a_reply_is_understood_without() {
    let ext = Ext::default().with(900, b"later".to_vec());
    let accepted = Reply::Accepted { prompt_tokens: 7, ext };
    assert_eq!(codec::decode::<Reply>(&codec::encode(&accepted).unwrap()).unwrap(), accepted);
}

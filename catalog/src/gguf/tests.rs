//! GGUF headers, real, hand-made and hostile; must not touch a real model's data.

use std::{fs, io::Write, path::Path};

use proptest::prelude::*;

use super::{Header, read, writer::Writer};

fn parse(bytes: &[u8]) -> Result<Header, String> {
    let mut file = tempfile::Builder::new().suffix(".gguf").tempfile().unwrap();
    file.write_all(bytes).unwrap();
    read(file.path()).map_err(|error| {
        let message = error.to_string();
        assert!(!message.contains('\n'), "one line: {message}");
        assert!(message.contains(".gguf: "), "names its file: {message}");
        message
    })
}

fn refusal(bytes: &[u8]) -> String {
    parse(bytes).unwrap_err()
}

/// One of everything.
fn small() -> Writer {
    let tokens = [super::writer::text("a"), super::writer::text("b\n"), vec![1, 0, 0, 0, 0, 0, 0, 0, 0xff]].concat();
    Writer::new("toy")
        .number("toy.block_count", 2)
        .raw("toy.signed", 5, &(-3_i32).to_le_bytes())
        .raw("toy.wide", 10, &u64::MAX.to_le_bytes())
        .raw("toy.eps", 6, &0.5_f32.to_le_bytes())
        .raw("toy.flag", 7, &[1])
        .array("toy.heads", 5, 2, &[4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff])
        .array("toy.flags", 7, 3, &[1, 0, 1])
        .array("toy.scores", 6, 2, &[0; 8])
        .array("tokenizer.ggml.tokens", 8, 3, &tokens)
        .tensor("a", &[32, 2], 2, 36)
        .tensor("strange", &[7], 200, 40)
        .tensor("b", &[3], 0, 12)
}

#[test]
fn the_bundled_models_header_is_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/mesh-tiny/mesh-tiny.Q4_1.gguf");
    let header = read(&path).unwrap();
    assert_eq!(header.architecture(), "qwen3");
    assert_eq!((header.own("block_count"), header.own("attention.head_count_kv")), (Some(6), Some(2)));
    assert_eq!(header.own("context_length"), Some(4096));
    assert_eq!(header.texts("tokenizer.ggml.tokens").unwrap().len(), 1280);
    assert_eq!(header.numbers("tokenizer.ggml.token_type").unwrap().len(), 1280);
    assert!(header.text("tokenizer.chat_template").unwrap().contains("<|im_start|>"));
    assert!(header.float("qwen3.attention.layer_norm_rms_epsilon").unwrap() > 0.0);
    // llama-server: "loaded meta data with 26 key-value pairs and 68 tensors", "model buffer size = 1.48 MiB".
    assert_eq!(header.tensors().len(), 68);
    let bytes: u64 = header.tensors().iter().map(|tensor| tensor.bytes).sum();
    assert_eq!(format!("{:.2}", bytes as f64 / 1048576.0), "1.48");
}

#[test]
fn every_kind_of_value_is_found_under_its_key() {
    let header = parse(&small().bytes()).unwrap();
    assert_eq!(header.own("block_count"), Some(2));
    assert_eq!((header.number("toy.signed"), header.numbers("toy.signed")), (None, Some(vec![-3])));
    assert_eq!((header.own("wide"), header.numbers("toy.wide")), (Some(u64::MAX), Some(vec![i64::MAX])));
    assert_eq!((header.float("toy.eps"), header.flag("toy.flag")), (Some(0.5), Some(true)));
    assert_eq!(header.numbers("toy.heads"), Some(vec![4, -1]));
    assert_eq!(header.numbers("toy.flags"), Some(vec![1, 0, 1]));
    assert!(header.has("toy.scores") && header.numbers("toy.scores").is_none());
    assert_eq!(header.texts("tokenizer.ggml.tokens").unwrap(), ["a", "b\n", "\u{fffd}"]);
    for wrong in ["toy.heads", "nope", "toy.flag"] {
        assert!(header.text(wrong).is_none() && header.number(wrong).is_none() && header.texts(wrong).is_none());
    }
    let sizes: Vec<u64> = header.tensors().iter().map(|tensor| tensor.bytes).collect();
    assert_eq!(sizes, [36, 64, 12], "an unknown kind reaches to the next tensor");
}

#[test]
fn version_two_is_read_and_others_are_named() {
    assert!(parse(&Writer::new("x").header(2)).is_ok());
    for (version, said) in [(1, "too old"), (4, "update it"), (3 << 24, "big-endian"), (2 << 24, "big-endian")] {
        let message = refusal(&small().header(version));
        assert!(message.contains(said), "{message}");
    }
}

#[test]
fn what_is_no_gguf_file_is_named() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
    for (bytes, said) in [(&b""[..], "empty"), (b"GG", "does not start"), (b"vers", "not a GGUF"), (pointer, "git lfs")]
    {
        let message = refusal(bytes);
        assert!(message.contains(said), "{message}");
    }
    let dir = tempfile::tempdir().unwrap();
    assert!(read(dir.path()).unwrap_err().to_string().contains("not a plain file"));
    assert!(read(&dir.path().join("x.gguf")).unwrap_err().to_string().contains("no such file"));
}

#[test]
fn a_file_cut_anywhere_is_named_and_missing_bytes_are_counted() {
    let whole = small().bytes();
    let data = small().header(3).len().next_multiple_of(32);
    // The last tensor of twelve bytes ends before the padding does.
    let needed = data + 64 + 64 + 12;
    for length in 0..whole.len() {
        let parsed = parse(&whole[..length]);
        if length >= needed {
            assert!(parsed.is_ok(), "{length}");
            continue;
        }
        let message = parsed.unwrap_err();
        if length >= data {
            assert!(message.contains(&format!("{} are missing", needed - length)), "{length}: {message}");
        }
        if length >= 4 {
            assert!(message.contains("still being downloaded"), "{length}: {message}");
        }
    }
}

#[test]
fn absurd_counts_and_lengths_are_refused_without_allocating() {
    let huge = 1_u64 << 63;
    let mut entries = small();
    entries.entries = huge;
    let mut tensors = small();
    tensors.tensors = u64::MAX;
    // Four bytes of length that promise much more than the file has.
    let array = |kind, length| Writer::new("x").array("x.a", kind, length, &[0; 16]).bytes();
    let text = Writer::new("x").raw("x.t", 8, &huge.to_le_bytes()).bytes();
    let nested = Writer::new("x").array("x.a", 9, 1, &[0; 16]).bytes();
    for (bytes, said) in [
        (entries.bytes(), "claims"),
        (tensors.bytes(), "claims"),
        (array(10, huge), "claims"),
        (array(8, u64::MAX), "claims"),
        (array(0, 1 << 40), "claims"),
        (text, "a text of"),
        (nested, "array of kind 9"),
        (Writer::new("x").raw("x.k", 77, &[0; 4]).bytes(), "kind 77"),
        (Writer::new("x").number("x.k", 1).number("x.k", 1).bytes(), "twice"),
        (small().tensor("a", &[1], 0, 4).bytes(), "twice"),
        (Writer::new("x").number("general.alignment", 3).bytes(), "alignment"),
        (Writer::new("x").info("t", &[huge, 2], 0, 0).bytes(), "overflows"),
        (Writer::new("x").info("t", &[1 << 62, 1], 0, 0).bytes(), "overflows"),
        (Writer::new("x").info("t", &[31], 8, 0).bytes(), "whole blocks"),
        (Writer::new("x").info("t", &[1; 9], 0, 0).bytes(), "9 dimensions"),
        (Writer::new("x").info("t", &[1], 0, u64::MAX - 2).bytes(), "beyond any file"),
        (Writer::new("x").info("t", &[1 << 40], 0, 0).bytes(), "are missing"),
    ] {
        let message = refusal(&bytes);
        assert!(message.contains(said), "{said}: {message}");
    }
}

#[test]
fn a_header_of_gigabytes_is_refused_by_its_size() {
    // A sparse file: what its counts claim is there, as zeros, and costs the disk nothing.
    let file = tempfile::Builder::new().suffix(".gguf").tempfile().unwrap();
    let array = |kind: u32, length: u64| Writer::new("x").array("x.a", kind, length, &[]).header(3);
    for kind in [8, 10] {
        fs::write(file.path(), array(kind, 1 << 32)).unwrap();
        file.as_file().set_len(1 << 40).unwrap();
        let message = read(file.path()).unwrap_err().to_string();
        assert!(message.contains("256 MiB"), "{message}");
    }
    fs::write(file.path(), Writer::new("x").raw("x.t", 8, &(1_u64 << 30).to_le_bytes()).header(3)).unwrap();
    file.as_file().set_len(1 << 40).unwrap();
    assert!(read(file.path()).unwrap_err().to_string().contains("a text of 1073741824 bytes"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_change_of_bytes_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = small().bytes();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(header) = parse(&bytes) {
            let _ = (header.architecture(), header.own("block_count"), header.numbers("toy.heads"));
        }
    }

    #[test]
    fn no_garbage_after_the_magic_panics(garbage in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = parse(&[b"GGUF\x03\0\0\0", &garbage[..]].concat());
    }
}

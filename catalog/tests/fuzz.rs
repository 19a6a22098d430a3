//! Mutated names, listings and headers for as long as one likes: no panic, no memory by a header's word, no case that hangs.
//!
//! A second of each runs with the other tests.
//! `MESH_FUZZ_SECONDS=600 MESH_FUZZ_SEED=1 cargo test --release -p catalog --test fuzz -- --ignored --nocapture gguf`
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it expects and saw in the shortest way")]

use std::{
    env,
    fmt::Write as _,
    fs,
    io::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use catalog::{
    Format, ModelFiles, fit, gguf,
    reference::{self, FileInfo, Reference},
};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What a case may take beside what its input is worth. Vectors allocated ahead of what was read are 100 KB, buffers for
/// reading 8 KB, an error's backtrace more than both.
const MEMORY_BYTES: usize = 4 << 20;
/// What each byte of the input may take. A text of a header takes its own bytes thrice and 24 more for eight of length, a tensor
/// some 200 for 32, a number eight for one; vectors twice that while they grow.
const MEMORY_A_BYTE: usize = 100;
/// A case that takes longer hangs: the longest of millions take milliseconds.
const HANGS: Duration = Duration::from_secs(10);
/// Inputs grow no longer.
const MOST_BYTES: usize = 1 << 14;
/// Most mutants kept of one target. Guess: enough to get deeper, few enough to come back to each.
const MOST_KEPT: usize = 256;
/// What headers lie with.
const TELLING: [u64; 12] =
    [0, 1, 2, 255, 4096, 65_536, 1 << 31, 1 << 32, 1 << 60, i64::MAX as u64, u64::MAX - 7, u64::MAX];
/// What parsers look for.
const WORDS: [&str; 40] = [
    "hf://",
    "https://",
    "huggingface.co/",
    "localhost:8080/mirror/",
    "/resolve/main/",
    "/tree/",
    "?show_file_info=",
    "@",
    ":",
    "/",
    "../",
    "%2F",
    "%00",
    "%",
    "refs/pr/1",
    ":Q4_K_M",
    "UD-",
    ".gguf",
    "-00001-of-00002.gguf",
    "mmproj-F16.gguf",
    "model.safetensors.index.json",
    "config.json",
    "\n",
    "ü",
    "general.architecture",
    "split.count",
    ".block_count",
    "GGUF",
    "\"dtype\":\"F32\"",
    "\"dtype\":\"I4\"",
    "\"shape\":[",
    "\"data_offsets\":[0,8]",
    "18446744073709551615",
    "9223372036854775807",
    "1e999",
    "{\"a\":",
    "[[[[[[[[",
    "\"__metadata__\":{}",
    "\\u0000",
    "}",
];

/// A small seeded generator (splitmix64): a seed and a case's number are the case.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn roll(&mut self, below: usize) -> usize {
        (self.next() % below.max(1) as u64) as usize
    }

    /// A copy with a few changes; `other` lends pieces.
    fn mutate(&mut self, bytes: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..1 + self.roll(4) {
            let at = self.roll(bytes.len() + 1);
            let end = (at + self.roll(17)).min(bytes.len());
            match self.roll(10) {
                0 if at < bytes.len() => bytes[at] = self.next() as u8,
                1 if at < bytes.len() => bytes[at] ^= 1 << self.roll(8),
                2 => bytes.insert(at, self.next() as u8),
                3 => drop(bytes.drain(at..end)),
                4 if self.roll(4) == 0 => bytes.truncate(at),
                5 => {
                    let again = bytes[at..end].repeat(1 + self.roll(8));
                    bytes.splice(at..at, again);
                }
                6 => {
                    let word = WORDS[self.roll(WORDS.len())];
                    bytes.splice(at..if self.roll(2) == 0 { at } else { end }, word.bytes());
                }
                7 | 8 => {
                    let number = TELLING[self.roll(TELLING.len())].to_le_bytes();
                    let width = [1, 4, 8][self.roll(3)].min(bytes.len() - at);
                    bytes[at..at + width].copy_from_slice(&number[..width]);
                }
                _ => {
                    let from = self.roll(other.len());
                    let to = (from + self.roll(64)).min(other.len());
                    bytes.splice(at..end, other[from..to].iter().copied());
                }
            }
        }
        bytes.truncate(MOST_BYTES);
        bytes
    }
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

/// Reads mutants of seeds until the time is over. `read` says whether it was one that counts, and panics where something is
/// wrong with what it read.
fn fuzz(name: &str, seeds: Vec<Vec<u8>>, seconds: u64, read: impl Fn(&[u8]) -> bool) {
    // The allocator counts for the whole process.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for seed in &seeds {
        assert!(read(seed), "{name}: a seed is no good: {}", seed.escape_ascii());
    }
    let (seed, first) = (number("MESH_FUZZ_SEED", 1), seeds.len());
    let (mut dice, mut pool) = (Dice(seed), seeds);
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut case, mut accepted, mut longest, mut most) = (0_u64, 0_u64, Duration::ZERO, 0);
    while Instant::now() < end {
        for _ in 0..64 {
            case += 1;
            let (base, lender) = (dice.roll(pool.len()), dice.roll(pool.len()));
            let bytes = dice.mutate(&pool[base], &pool[lender]);
            let (begun, before) = (Instant::now(), MEMORY.current_usage());
            MEMORY.reset_peak_usage();
            let told = || format!("case {case} of seed {seed}, {name}: {}", bytes.escape_ascii());
            let Ok(good) = catch_unwind(AssertUnwindSafe(|| read(&bytes))) else { panic!("{}", told()) };
            let (took, taken) = (begun.elapsed(), MEMORY.peak_usage().saturating_sub(before));
            assert!(took < HANGS, "{took:?}: {}", told());
            assert!(taken < MEMORY_BYTES + MEMORY_A_BYTE * bytes.len(), "{taken} bytes: {}", told());
            (longest, most) = (longest.max(took), most.max(taken));
            accepted += u64::from(good);
            if good && pool.len() < MOST_KEPT {
                pool.push(bytes);
            } else if good {
                // The first ones are the valid ones.
                let at = first + dice.roll(MOST_KEPT - first);
                pool[at] = bytes;
            }
        }
    }
    println!(
        "{name}: {case} cases of seed {seed} in {seconds} s, {accepted} accepted; {longest:?} and {most} bytes at most"
    );
    assert!(accepted > 0 && case > 100, "{case} cases, {accepted} accepted");
}

// What people type, and what a repository may list.

const ENDPOINT: Option<&str> = Some("http://localhost:8080/mirror/");

fn references(seconds: u64) {
    let listing = "config.json\nmodel.safetensors\nmodel.safetensors.index.json\ntokenizer.json\nx-Q4_K_M.gguf\n\
                   big/x-Q8_0-00001-of-00002.gguf\nbig/x-Q8_0-00002-of-00002.gguf\nmmproj-F16.gguf";
    let typed = [
        "Qwen3-4B-MLX",
        "./a/path",
        "mlx-community/Qwen3-4B-4bit@refs/pr/1",
        "unsloth/Qwen3-4B-GGUF@main:UD-Q4_K_XL",
        "org/name/big/x-Q8_0-00001-of-00002.gguf",
        "hf://org/name/a%20b%40c.gguf@main",
        "https://huggingface.co/org/name/resolve/refs/pr/1/a%20%C3%BC/x.gguf?download=true#x",
        "http://localhost:8080/mirror/org/name/tree/main",
        "https://hf.co/org/name?show_file_info=x.gguf",
    ];
    let seeds = typed.iter().map(|typed| format!("{typed}\n{listing}").into_bytes()).collect();
    fuzz("references and listings", seeds, seconds, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let (typed, listing) = text.split_once('\n').unwrap_or((&text, ""));
        let line = |said: String| assert!(!said.contains('\n') && said.len() < 4096, "one line: {said:?}");
        let _ = catalog::on_hub(typed, None, "http://localhost:8080/mirror/").map_err(|error| line(error.to_string()));
        let found = match Reference::parse(typed, ENDPOINT) {
            Ok(found) => found,
            Err(error) => {
                line(error.to_string());
                return false;
            }
        };
        assert_eq!(Reference::parse(&found.to_string(), ENDPOINT).as_ref(), Ok(&found), "said again, it differs");
        let Reference::Hub(hub) = found else { return true };
        for below in [&hub.file, &hub.revision].into_iter().flatten() {
            assert!(
                !below.starts_with('/') && below.split('/').all(|part| !matches!(part, "" | "." | "..")),
                "{below}"
            );
        }
        let info = |(number, path): (usize, &str)| FileInfo { path: path.to_owned(), bytes: TELLING[number % 12] };
        let files: Vec<FileInfo> = listing.split('\n').enumerate().map(info).collect();
        for format in [None, Some(Format::Mlx), Some(Format::Gguf)] {
            match reference::pick(&files, &hub, format) {
                Ok(picked) => {
                    assert!(picked.files().all(|file| files.contains(file)), "a file that nobody listed");
                    let _ = picked.with_index(&files, bytes).map_err(|error| line(error.to_string()));
                }
                Err(error) => line(error.to_string()),
            }
        }
        true
    });
}

// Headers.

fn word(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

/// The header of a GGUF file of all kinds of values, with two tensors.
fn gguf_file() -> Vec<u8> {
    let entry = |key: &str, kind: u32, value: &[u8]| [&word(key)[..], &kind.to_le_bytes(), value].concat();
    let array = |key: &str, kind: u32, length: u64, values: &[u8]| {
        entry(key, 9, &[&kind.to_le_bytes()[..], &length.to_le_bytes(), values].concat())
    };
    let entries = [
        entry("general.architecture", 8, &word("toy")),
        entry("general.file_type", 4, &15_u32.to_le_bytes()),
        entry("toy.block_count", 10, &2_u64.to_le_bytes()),
        entry("toy.context_length", 4, &4096_u32.to_le_bytes()),
        entry("toy.embedding_length", 4, &64_u32.to_le_bytes()),
        entry("toy.attention.head_count", 5, &4_i32.to_le_bytes()),
        array("toy.attention.head_count_kv", 4, 2, &[1, 0, 0, 0, 2, 0, 0, 0]),
        array("toy.attention.sliding_window_pattern", 7, 2, &[0, 1]),
        entry("toy.rope.freq_base", 6, &1e6_f32.to_le_bytes()),
        entry("tokenizer.ggml.add_bos_token", 7, &[1]),
        array("tokenizer.ggml.tokens", 8, 3, &[word("a"), word("bc"), word("")].concat()),
        array("tokenizer.ggml.scores", 6, 3, &[0; 12]),
        array("tokenizer.ggml.token_type", 5, 3, &[1; 12]),
        entry("split.count", 2, &1_u16.to_le_bytes()),
    ];
    let tensor = |name: &str, shape: &[u64], kind: u32, offset: u64| {
        let sides: Vec<u8> = shape.iter().flat_map(|side| side.to_le_bytes()).collect();
        let rank = (shape.len() as u32).to_le_bytes();
        [&word(name)[..], &rank, &sides, &kind.to_le_bytes(), &offset.to_le_bytes()].concat()
    };
    let tensors = [tensor("a.weight", &[8, 2], 0, 0), tensor("b.weight", &[256], 12, 64)];
    let counts = [(tensors.len() as u64).to_le_bytes(), (entries.len() as u64).to_le_bytes()].concat();
    let mut bytes = [b"GGUF", &3_u32.to_le_bytes()[..], &counts, &entries.concat(), &tensors.concat()].concat();
    bytes.resize(bytes.len().next_multiple_of(32), 0);
    bytes
}

/// Writes a file without cutting it to nothing first, after which some disks would be waited for.
fn put(path: &Path, bytes: &[u8]) {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path).unwrap();
    file.write_all(bytes).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
}

fn is_one_line(path: &Path, error: impl std::fmt::Display) -> bool {
    let said = error.to_string();
    assert!(!said.contains('\n') && said.len() < 2048 && said.contains(path.to_str().unwrap()), "{said:?}");
    false
}

fn gguf_headers(seconds: u64) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    fuzz("GGUF headers", vec![gguf_file()], seconds, |bytes| {
        // Room for what mutants promise: most would only be cut short.
        put(&path, &[bytes, &[0; 512]].concat());
        let header = match gguf::read(&path) {
            Ok(header) => header,
            Err(error) => return is_one_line(&path, error),
        };
        let (mut said, mut bytes) = (String::new(), 0_u64);
        for tensor in header.tensors() {
            bytes = bytes.max(tensor.offset + tensor.bytes);
            write!(said, "{} {:?} {}", tensor.name, tensor.shape, tensor.kind).unwrap();
        }
        assert!(bytes <= fs::metadata(&path).unwrap().len(), "tensors beyond the end");
        for key in ["general.architecture", "toy.block_count", "tokenizer.ggml.tokens", "toy.attention.head_count_kv"] {
            let _ = (header.text(key), header.number(key), header.float(key), header.flag(key), header.has(key));
            let _ = (header.texts(key), header.numbers(key), header.own(key));
        }
        let files = match catalog::open_gguf(&path, None) {
            Ok(files) => files,
            Err(error) => return is_one_line(dir.path(), error),
        };
        let _ = catalog::facts(&files).map_err(|error| is_one_line(&path, error));
        let _ = fit::kv(&files).map_err(|error| is_one_line(&path, error));
        // What has lost all that could go wrong is not worth going on from.
        header.has("general.architecture") && !header.tensors().is_empty()
    });
}

fn safetensors_headers(seconds: u64) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let config = r#"{"model_type":"toy","num_hidden_layers":2,"num_attention_heads":4,"hidden_size":64,
        "layer_types":["full_attention","sliding_attention"],"sliding_window":8,"quantization":{"bits":4,"group_size":32}}"#;
    let tensors = r#"{"__metadata__":{"format":"mlx"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
        "b":{"dtype":"BF16","shape":[2,2],"data_offsets":[8,16]},"c":{"dtype":"U32","shape":[],"data_offsets":[16,20]}}"#;
    // A header as it stands in the file, and what stands in config.json behind a byte that no JSON has.
    let seed = |header: &str| [header.as_bytes(), &[0xff], config.as_bytes()].concat();
    let plain = r#"{"a":{"dtype":"F16","shape":[1,1],"data_offsets":[0,2]}}"#;
    fuzz("safetensors headers", vec![seed(tensors), seed(plain), seed("{}")], seconds, |bytes| {
        let at = bytes.iter().position(|byte| *byte == 0xff).unwrap_or(bytes.len());
        let (header, config) = (&bytes[..at], bytes.get(at + 1..).unwrap_or_default());
        put(&dir.path().join("config.json"), config);
        let files = |bytes: &[u8]| {
            put(&path, bytes);
            ModelFiles { id: mesh_proto::ModelId::new("m"), dir: dir.path().to_owned(), gguf: None }
        };
        let right = [&(header.len() as u64).to_le_bytes()[..], header].concat();
        let mut good = false;
        // As long as the header promises, where that is little; and as it came, its first bytes being the header's length.
        let promised = promised(header).filter(|bytes| *bytes < 4096).unwrap_or(0) as usize;
        for bytes in [[&right[..], &vec![0; promised]].concat(), right, bytes.to_vec()] {
            let files = files(&bytes);
            match catalog::facts(&files) {
                Ok(facts) => {
                    assert!(facts.weight_bytes <= bytes.len() as u64, "{facts:?}");
                    good = true;
                }
                Err(error) => drop(is_one_line(dir.path(), error)),
            }
        }
        let _ = fit::kv(&files(bytes)).map_err(|error| is_one_line(dir.path(), error));
        good
    });
}

/// The end of the last tensor, as far as a header says it.
fn promised(header: &[u8]) -> Option<u64> {
    let header: serde_json::Value = serde_json::from_slice(header).ok()?;
    let ends = header.as_object()?.values().filter_map(|tensor| tensor.get("data_offsets")?.get(1)?.as_u64());
    Some(ends.max().unwrap_or(0))
}

fn seconds() -> u64 {
    number("MESH_FUZZ_SECONDS", 60)
}

#[test]
#[ignore = "runs for MESH_FUZZ_SECONDS, 60 by default"]
fn reference_long() {
    references(seconds());
}

#[test]
#[ignore = "runs for MESH_FUZZ_SECONDS, 60 by default"]
fn gguf_long() {
    gguf_headers(seconds());
}

#[test]
#[ignore = "runs for MESH_FUZZ_SECONDS, 60 by default"]
fn safetensors_long() {
    safetensors_headers(seconds());
}

#[test]
fn a_second_of_names_and_listings() {
    references(1);
}

#[test]
fn a_second_of_gguf_headers() {
    gguf_headers(1);
}

#[test]
fn a_second_of_safetensors_headers() {
    safetensors_headers(1);
}

#[test]
fn a_header_that_claims_the_world_gets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let whole = gguf_file();
    // Every count and length of the file, and every place in between.
    for at in 4..whole.len() - 8 {
        for claim in [1_u64 << 60, 1 << 20, u64::MAX] {
            let mut bytes = whole.clone();
            bytes[at..at + 8].copy_from_slice(&claim.to_le_bytes());
            put(&path, &[&bytes[..], &[0; 512]].concat());
            let before = MEMORY.current_usage();
            MEMORY.reset_peak_usage();
            let _ = gguf::read(&path);
            assert!(MEMORY.peak_usage().saturating_sub(before) < MEMORY_BYTES, "{claim} at {at}");
        }
    }
}

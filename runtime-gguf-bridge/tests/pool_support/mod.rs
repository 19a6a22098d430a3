//! Tiny embedding models and rerankers as GGUF files: random weights that are the same in every run; must not test anything.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test file uses its part, and may fail loudly")]

use std::{collections::BTreeMap, fs, path::Path};

/// Tokens that the tiny models were "trained" for.
pub const CONTEXT: u32 = 64;
/// Values of a vector.
pub const WIDTH: u32 = 32;
const HIDDEN: u32 = 64;
const LAYERS: u32 = 2;

/// `pooling_type` of llama.cpp.
#[derive(Clone, Copy)]
pub enum Pooled {
    /// Not in the header.
    Unsaid,
    Mean,
    Cls,
    Rank,
}

/// A file in the making.
#[derive(Default)]
struct Writer {
    entries: u64,
    metadata: Vec<u8>,
    tensors: u64,
    infos: Vec<u8>,
    data: Vec<u8>,
    dice: u64,
}

fn text(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes()[..], value.as_bytes()].concat()
}

impl Writer {
    fn entry(&mut self, key: &str, kind: u32, value: &[u8]) {
        self.entries += 1;
        self.metadata.extend(text(key));
        self.metadata.extend(kind.to_le_bytes());
        self.metadata.extend(value);
    }

    fn number(&mut self, key: &str, value: u32) {
        self.entry(key, 4, &value.to_le_bytes());
    }

    fn flag(&mut self, key: &str, value: bool) {
        self.entry(key, 7, &[value.into()]);
    }

    fn array(&mut self, key: &str, kind: u32, length: usize, elements: &[u8]) {
        let value = [&kind.to_le_bytes()[..], &(length as u64).to_le_bytes(), elements].concat();
        self.entry(key, 9, &value);
    }

    /// Between -1 and 1.
    fn roll(&mut self) -> f32 {
        self.dice = self.dice.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.dice;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// f32, in rows of `shape[0]`: around `middle`, by so much.
    fn tensor(&mut self, name: &str, shape: &[u32], middle: f32, by: f32) {
        self.tensors += 1;
        self.infos.extend(text(name));
        self.infos.extend((shape.len() as u32).to_le_bytes());
        shape.iter().for_each(|side| self.infos.extend(u64::from(*side).to_le_bytes()));
        self.infos.extend(0_u32.to_le_bytes());
        self.infos.extend((self.data.len() as u64).to_le_bytes());
        for _ in 0..shape.iter().product::<u32>() {
            let value = middle + by * self.roll();
            self.data.extend(value.to_le_bytes());
        }
        self.data.resize(self.data.len().next_multiple_of(32), 0);
    }

    fn write(self, file: &Path) {
        let counts = [self.tensors.to_le_bytes(), self.entries.to_le_bytes()].concat();
        let mut bytes = [b"GGUF", &3_u32.to_le_bytes()[..], &counts, &self.metadata, &self.infos].concat();
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(self.data);
        fs::write(file, bytes).unwrap();
    }
}

/// A BERT whose words are letters, alone and within words.
pub fn write_bert(file: &Path, pooled: Pooled) {
    let mut writer = Writer::default();
    let name = |key: &str| format!("bert.{key}");
    writer.entry("general.architecture", 8, &text("bert"));
    writer.entry("general.name", 8, &text("tiny bert"));
    for (key, value) in [
        ("context_length", CONTEXT),
        ("embedding_length", WIDTH),
        ("feed_forward_length", HIDDEN),
        ("block_count", LAYERS),
        ("attention.head_count", 2),
    ] {
        writer.number(&name(key), value);
    }
    writer.entry(&name("attention.layer_norm_epsilon"), 6, &1e-12_f32.to_le_bytes());
    writer.flag(&name("attention.causal"), false);
    match pooled {
        Pooled::Unsaid => {}
        Pooled::Mean => writer.number(&name("pooling_type"), 1),
        Pooled::Cls => writer.number(&name("pooling_type"), 2),
        Pooled::Rank => writer.number(&name("pooling_type"), 4),
    }
    let marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
    let letters = || ('a'..='z').chain("0123456789.,?!".chars());
    // As llama.cpp has them: what begins a word carries a mark, what goes on in one does not.
    let tokens: Vec<String> =
        marks.into_iter().chain(letters().map(|c| format!("\u{2581}{c}"))).chain(letters().map(String::from)).collect();
    let words: Vec<u8> = tokens.iter().flat_map(|token| text(token)).collect();
    let kinds: Vec<u8> = (0..tokens.len()).flat_map(|id| (if id < 5 { 3_i32 } else { 1 }).to_le_bytes()).collect();
    writer.entry("tokenizer.ggml.model", 8, &text("bert"));
    writer.entry("tokenizer.ggml.pre", 8, &text("jina-v2-en"));
    writer.array("tokenizer.ggml.tokens", 8, tokens.len(), &words);
    writer.array("tokenizer.ggml.token_type", 5, tokens.len(), &kinds);
    writer.number("tokenizer.ggml.token_type_count", 2);
    for (key, id) in [("padding", 0), ("unknown", 1), ("bos", 2), ("cls", 2), ("seperator", 3), ("eos", 3), ("mask", 4)]
    {
        writer.number(&format!("tokenizer.ggml.{key}_token_id"), id);
    }
    let vocabulary = tokens.len() as u32;
    writer.tensor("token_embd.weight", &[WIDTH, vocabulary], 0.0, 1.0);
    writer.tensor("token_types.weight", &[WIDTH, 2], 0.0, 0.1);
    writer.tensor("position_embd.weight", &[WIDTH, CONTEXT], 0.0, 0.3);
    writer.tensor("token_embd_norm.weight", &[WIDTH], 1.0, 0.1);
    writer.tensor("token_embd_norm.bias", &[WIDTH], 0.0, 0.1);
    for layer in 0..LAYERS {
        let name = |part: &str| format!("blk.{layer}.{part}");
        for part in ["attn_q", "attn_k", "attn_v", "attn_output"] {
            writer.tensor(&name(&format!("{part}.weight")), &[WIDTH, WIDTH], 0.0, 0.4);
            writer.tensor(&name(&format!("{part}.bias")), &[WIDTH], 0.0, 0.1);
        }
        writer.tensor(&name("ffn_up.weight"), &[WIDTH, HIDDEN], 0.0, 0.3);
        writer.tensor(&name("ffn_up.bias"), &[HIDDEN], 0.0, 0.1);
        writer.tensor(&name("ffn_down.weight"), &[HIDDEN, WIDTH], 0.0, 0.3);
        writer.tensor(&name("ffn_down.bias"), &[WIDTH], 0.0, 0.1);
        for part in ["attn_output_norm", "layer_output_norm"] {
            writer.tensor(&name(&format!("{part}.weight")), &[WIDTH], 1.0, 0.1);
            writer.tensor(&name(&format!("{part}.bias")), &[WIDTH], 0.0, 0.1);
        }
    }
    if matches!(pooled, Pooled::Rank) {
        writer.tensor("cls.weight", &[WIDTH, WIDTH], 0.0, 0.3);
        writer.tensor("cls.bias", &[WIDTH], 0.0, 0.1);
        writer.tensor("cls.output.weight", &[WIDTH, 1], 0.0, 0.5);
        writer.tensor("cls.output.bias", &[1], 0.0, 0.1);
    }
    writer.write(file);
}

/// A copy of a GGUF file whose header has these numbers more.
pub fn with_numbers(from: &Path, to: &Path, numbers: &BTreeMap<&str, u32>) {
    let bytes = fs::read(from).unwrap();
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let (tensors, entries) = (number(8), number(16));
    let mut at = 24;
    for _ in 0..entries {
        at += 8 + number(at) as usize;
        let kind = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        at += 4;
        skip(&bytes, &mut at, kind);
    }
    let infos = at;
    for _ in 0..tensors {
        at += 8 + number(at) as usize;
        let sides = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        at += 4 + sides * 8 + 4 + 8;
    }
    let mut more = Writer::default();
    numbers.iter().for_each(|(key, value)| more.number(key, *value));
    let count = (entries + more.entries).to_le_bytes();
    let mut out = [&bytes[..16], &count, &bytes[24..infos], &more.metadata, &bytes[infos..at]].concat();
    out.resize(out.len().next_multiple_of(32), 0);
    out.extend(&bytes[at.next_multiple_of(32)..]);
    fs::write(to, out).unwrap();
}

fn skip(bytes: &[u8], at: &mut usize, kind: u32) {
    let length = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    *at += match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        8 => 8 + length(*at),
        9 => {
            let of = u32::from_le_bytes(bytes[*at..*at + 4].try_into().unwrap());
            let count = length(*at + 4);
            *at += 12;
            (0..count).for_each(|_| skip(bytes, at, of));
            0
        }
        _ => 8,
    };
}

//! Streams as llama-server sends them; must not need one.

use engine::text::TextModel;
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use tokenizers::Tokenizer;

use super::*;

/// GPT-2's byte alphabet.
fn alphabet(byte: u8) -> char {
    match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        0..=0x20 => char::from_u32(0x100 + u32::from(byte)).unwrap(),
        0x7f..=0xa0 => char::from_u32(0x121 + u32::from(byte) - 0x7f).unwrap(),
        0xad => '\u{143}',
    }
}

/// The 256 bytes, two pieces of characters, and a mark.
fn model() -> TextModel {
    let mut names: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    names.extend([vec![0xf0, 0x9f], vec![0x8e, 0x89], b"<|end|>".to_vec()]);
    let spelled = |name: &Vec<u8>| name.iter().map(|byte| alphabet(*byte)).collect::<String>();
    let vocab: serde_json::Map<String, Json> =
        names.iter().enumerate().map(|(id, name)| (spelled(name), json!(id))).collect();
    let json = json!({"version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "pre_tokenizer": null, "post_processor": null,
        "added_tokens": [{"id": END, "content": "<|end|>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}],
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": ""}});
    let tokenizer: Tokenizer = serde_json::from_value(json).unwrap();
    TextModel::new(tokenizer, None, Default::default())
}

const HEAD: u32 = 256;
const TAIL: u32 = 257;
const END: u32 = 258;

fn chunk(content: &str, token: u32, predicted: u32) -> Json {
    json!({"index": 0, "content": content, "tokens": [token], "stop": false, "tokens_predicted": predicted})
}

fn end(stop: &str, predicted: u32) -> Json {
    json!({"content": "", "tokens": [], "stop": true, "stop_type": stop, "tokens_predicted": predicted,
        "timings": {"cache_n": 3}})
}

fn read(chunks: &[Json]) -> Result<Vec<Said>, Unreadable> {
    let text = model();
    let fragments = Fragments::of(&text);
    let mut reader = Chunks::new(&text, &fragments);
    let mut out = Vec::new();
    chunks.iter().try_for_each(|chunk| reader.read(chunk, &mut out)).map(|()| out)
}

fn tokens(ids: &[u32]) -> Said {
    Said::Tokens(ids.iter().map(|id| Told { token: TokenId(*id), odds: None }).collect())
}

fn ended(eos: Option<u32>, silent: u32) -> Said {
    Said::End { eos: eos.map(TokenId), silent, cached: Some(3) }
}

#[test]
fn tokens_come_one_by_one_and_the_last_one_ends_it() {
    let progress = json!({"content": "", "tokens": [0], "stop": false, "tokens_predicted": 0,
        "prompt_progress": {"total": 9, "cache": 4, "processed": 9, "time_ms": 1}});
    let said = read(&[progress, chunk("H", 72, 1), chunk("i", 105, 2), chunk("", END, 3), end("eos", 3)]).unwrap();
    assert_eq!(said, [Said::Prompt { cached: 4 }, tokens(&[72]), tokens(&[105]), ended(Some(END), 0)]);
}

#[test]
fn markup_in_the_middle_comes_with_what_follows_it_and_a_bound_ends_without_a_token() {
    let said = read(&[chunk("", END, 1), chunk("H", 72, 2), chunk("", END, 3), end("limit", 3)]).unwrap();
    assert_eq!(said, [tokens(&[END, 72]), tokens(&[END]), ended(None, 0)]);
}

#[test]
fn the_tokens_of_a_character_are_found_again() {
    // 🎉 is f0 9f 8e 89, in two tokens here; é is c3 a9, of one byte each.
    let said = read(&[chunk("🎉", TAIL, 2), chunk("é", 0xa9, 4), chunk("🎉", 0x89, 8)]).unwrap();
    assert_eq!(said[..2], [tokens(&[HEAD, TAIL]), tokens(&[0xc3, 0xa9])]);
    // Four tokens leave no room for the longer ones.
    assert_eq!(said[2], tokens(&[0xf0, 0x9f, 0x8e, 0x89]));
    let three = read(&[chunk("🎉", 0x89, 3)]).unwrap();
    assert_eq!(three, [tokens(&[HEAD, 0x8e, 0x89])], "longest first");
}

#[test]
fn what_cannot_be_found_again_is_text_without_tokens() {
    let said = read(&[chunk("\u{fffd}x", 120, 3), end("limit", 5)]).unwrap();
    assert_eq!(said, [Said::Untold { text: "\u{fffd}x".into(), count: 3 }, ended(None, 2)]);
}

#[test]
fn what_is_no_chunk_is_refused_with_its_beginning() {
    for bad in [
        json!({}),
        json!({"tokens_predicted": 1, "content": "x"}),
        json!({"tokens_predicted": 1, "content": "x", "tokens": [1, 2]}),
        json!({"tokens_predicted": 1, "content": "x", "tokens": [-1]}),
        json!({"tokens_predicted": 0, "content": "x", "tokens": [1]}),
        json!({"tokens_predicted": 1, "tokens": [1]}),
    ] {
        assert!(read(std::slice::from_ref(&bad)).unwrap_err().to_string().contains("cannot be read"), "{bad}");
    }
}

proptest! {
    /// Whatever a model says, as long as it is UTF-8 in the end, comes out as it went in.
    #[test]
    fn any_text_in_any_tokens_is_read_as_it_was(text in "\\PC{0,12}", merge in any::<bool>()) {
        let mut ids: Vec<u32> = text.bytes().map(u32::from).collect();
        if merge {
            for (pair, merged) in [([0xf0, 0x9f], HEAD), ([0x8e, 0x89], TAIL)] {
                while let Some(at) = ids.windows(2).position(|two| *two == pair) {
                    ids.splice(at..at + 2, [merged]);
                }
            }
        }
        let (model, mut chunks, mut held) = (model(), Vec::new(), Vec::new());
        for (at, id) in ids.iter().enumerate() {
            held.extend_from_slice(model.token_bytes(TokenId(*id)).unwrap());
            if let Ok(whole) = std::str::from_utf8(&held) {
                chunks.push(chunk(whole, *id, at as u32 + 1));
                held.clear();
            }
        }
        let mut bytes = Vec::new();
        let mut count = 0;
        for said in read(&chunks).unwrap() {
            let Said::Tokens(tokens) = said else { panic!("{said:?}") };
            count += tokens.len();
            tokens.iter().for_each(|told| bytes.extend_from_slice(model.token_bytes(told.token).unwrap()));
        }
        prop_assert_eq!(String::from_utf8(bytes).unwrap(), text);
        prop_assert_eq!(count, ids.len());
    }
}

#[test]
fn likelihoods_come_with_their_token_alone() {
    let like = |id: u32, logprob: f64| json!({"id": id, "token": "?", "bytes": [id], "logprob": logprob});
    let with = |mut chunk: Json, id: u32| {
        let mut said = like(id, -0.5);
        said["top_logprobs"] = json!([like(72, -0.25), like(105, -1e300)]);
        chunk["completion_probabilities"] = json!([said]);
        chunk
    };
    let said = read(&[with(chunk("H", 72, 1), 72), with(chunk("i", 105, 2), 72), end("limit", 2)]).unwrap();
    let [Said::Tokens(first), Said::Tokens(second), _] = said.as_slice() else { panic!("{said:?}") };
    let odds = first[0].odds.clone().unwrap();
    assert_eq!(odds.chosen, -0.5);
    assert_eq!(odds.top.iter().map(|(token, _)| token.0).collect::<Vec<_>>(), [72, 105]);
    assert_eq!(second[0].odds, None, "another token's is not this one's");
}

//! Vocabularies of GGUF files against those that they were converted from; must not need a llama-server.

use std::{fs, path::PathBuf};

use catalog::gguf;
use mesh_proto::{ChatPrompt, Message, Role, TokenId};

use super::*;

fn tiny() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models/mesh-tiny")
}

#[test]
fn the_bundled_model_reads_and_writes_as_its_mlx_form_does() {
    let ours = text_model(&gguf::read(&tiny().join("mesh-tiny.Q4_1.gguf")).unwrap()).unwrap();
    let theirs = TextModel::load(&tiny()).unwrap();
    assert_eq!(ours.vocab_size(), theirs.vocab_size());
    for id in (0..theirs.vocab_size()).map(TokenId) {
        assert_eq!(ours.token_bytes(id), theirs.token_bytes(id), "{id:?}, {:?}", theirs.token_name(id));
    }
    let said = ["Hello!", "Hi.", "What is 7 + 5? 🦉"];
    let roles = [Role::User, Role::Assistant, Role::User];
    let messages: Vec<Message> = roles.into_iter().zip(said).map(|(role, text)| Message::text(role, text)).collect();
    for enable_thinking in [None, Some(true), Some(false)] {
        let chat = ChatPrompt { messages: messages.clone(), enable_thinking, ..ChatPrompt::default() };
        let now = jiff::civil::date(2026, 11, 21).at(12, 0, 0, 0);
        assert_eq!(ours.render(&chat, false, now), theirs.render(&chat, false, now));
    }
}

/// llama.cpp's sources hold vocabularies of many families, with texts and the tokens that they become:
/// `scripts/gguf/sources/fetch` brings them, in `models/`.
#[test]
#[ignore = "needs the vocabularies in llama.cpp's sources: MESH_LLM_TEST_VOCABULARIES=DIR"]
#[allow(clippy::print_stdout, reason = "what was compared is worth reading")]
fn what_llama_cpp_tokenised_is_read_back() {
    let dir = PathBuf::from(std::env::var_os("MESH_LLM_TEST_VOCABULARIES").unwrap());
    let mut compared = Vec::new();
    for entry in fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_name().unwrap().to_str().unwrap().to_owned();
        let beside = |ending: &str| fs::read_to_string(dir.join(format!("{name}.{ending}")));
        let (true, Ok(texts), Ok(tokens)) = (name.ends_with(".gguf"), beside("inp"), beside("out")) else { continue };
        // These look at words, and are for embeddings.
        if name.contains("bert") {
            continue;
        }
        let model = text_model(&gguf::read(&entry).unwrap()).unwrap();
        let mut count = 0;
        for (text, line) in texts.split("\n__ggml_vocab_test__\n").zip(tokens.lines()) {
            let ids = line.split_whitespace().map(|id| TokenId(id.parse().unwrap()));
            let bytes: Vec<u8> = ids.flat_map(|id| model.token_bytes(id).unwrap_or_default().to_vec()).collect();
            let read = String::from_utf8_lossy(&bytes).into_owned();
            // sentencepiece begins a text with a space of its own; some vocabularies fold compatible characters.
            let same = read == text || read.strip_prefix(' ') == Some(text);
            assert!(same, "{name}: {text:?} became {read:?}");
            count += 1;
        }
        compared.push((name, count));
    }
    assert!(compared.len() > 10, "{compared:?}");
    println!("{compared:#?}");
}

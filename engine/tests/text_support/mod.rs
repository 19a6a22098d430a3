//! Model folders made in the test: tokenizers whose tokens are whatever bytes the test wants.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::{fs, path::Path, sync::Arc};

use engine::text::{Answer, Piece, Prepared, TextModel, TextRequest};
use jiff::civil::{DateTime, date};
use mesh_proto::{Channel, ChatPrompt, Message, Prompt, Role, TokenId, ToolCallDelta, ToolDefinition};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

/// A template of ChatML form with thinking and Hermes tools.
pub const TEMPLATE: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
    {% if tools %}{{ tools | tojson }}\n{% endif %}<|im_start|>assistant\n{% if enable_thinking %}<think>\n{% endif %}\
    {# </think> #}";

pub const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/// GPT-2's byte alphabet, as every byte-level tokenizer has it.
pub fn alphabet(byte: u8) -> char {
    match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        0..=0x20 => char::from_u32(0x100 + u32::from(byte)).unwrap(),
        0x7f..=0xa0 => char::from_u32(0x121 + u32::from(byte) - 0x7f).unwrap(),
        0xad => '\u{143}',
    }
}

/// Tokens in bytes → the tokenizer's names for them.
pub fn byte_level(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| alphabet(*byte)).collect()
}

/// A `tokenizer.json`: a vocabulary without merges, and the decoder.
pub fn tokenizer(vocabulary: &[String], added: &[(&str, bool)], decoder: Json) -> Json {
    let vocab: serde_json::Map<String, Json> =
        vocabulary.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
    let added: Vec<Json> = added
        .iter()
        .enumerate()
        .map(|(n, (content, special))| {
            json!({"id": vocabulary.len() + n, "content": content, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": special})
        })
        .collect();
    json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        "post_processor": null, "decoder": decoder,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": []}})
}

/// The byte-level decoder.
pub fn byte_level_decoder() -> Json {
    json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true})
}

/// A model folder with a byte-level tokenizer: the 256 bytes first, then `more`, then specials and `<think>` tags.
pub struct Model {
    pub folder: TempDir,
    pub text: Arc<TextModel>,
    vocabulary: Vec<String>,
}

impl Model {
    pub fn with_tokens<B: AsRef<[u8]>>(more: &[B]) -> Self {
        let added: Vec<(&str, bool)> =
            SPECIAL.map(|token| (token, true)).into_iter().chain([("<think>", false), ("</think>", false)]).collect();
        Self::with_added(more, &added, TEMPLATE)
    }

    pub fn with_added<B: AsRef<[u8]>>(more: &[B], added: &[(&str, bool)], template: &str) -> Self {
        let mut vocabulary: Vec<String> = (0..=255).map(|byte| byte_level(&[byte])).collect();
        for token in more {
            let name = byte_level(token.as_ref());
            // An added token with the same name is the token meant.
            if !vocabulary.contains(&name) && !added.iter().any(|(token, _)| *token == name) {
                vocabulary.push(name);
            }
        }
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "tokenizer.json", &tokenizer(&vocabulary, added, byte_level_decoder()));
        let config = json!({"eos_token": "<|im_end|>", "bos_token": null, "chat_template": template});
        write(folder.path(), "tokenizer_config.json", &config);
        vocabulary.extend(added.iter().map(|(token, _)| (*token).to_owned()));
        let text = Arc::new(TextModel::load(folder.path()).unwrap());
        Self { folder, text, vocabulary }
    }

    /// A token by its bytes, or an added one by its name.
    pub fn id(&self, token: impl AsRef<[u8]>) -> TokenId {
        let (bytes, name) = (byte_level(token.as_ref()), String::from_utf8_lossy(token.as_ref()));
        let found = self.vocabulary.iter().rposition(|known| *known == *name || *known == bytes);
        TokenId(u32::try_from(found.unwrap()).unwrap())
    }

    pub fn plain(&self) -> Prepared {
        self.text.prepare(TextRequest::new(&Prompt::Text("x".into())), now()).unwrap()
    }

    pub fn chat(&self, tools: bool, thinking: Option<bool>) -> Prepared {
        let mut chat = chat_prompt("Hi");
        chat.enable_thinking = thinking;
        chat.tools = if tools { vec![weather()] } else { Vec::new() };
        self.text.prepare(TextRequest::new(&Prompt::Chat(chat)), now()).unwrap()
    }
}

pub fn write(folder: &Path, name: &str, json: &Json) {
    fs::write(folder.join(name), serde_json::to_vec(json).unwrap()).unwrap();
}

pub fn now() -> DateTime {
    date(2026, 11, 20).at(10, 30, 0, 0)
}

pub fn chat_prompt(text: &str) -> ChatPrompt {
    ChatPrompt { messages: vec![Message::text(Role::User, text)], ..ChatPrompt::default() }
}

pub fn weather() -> ToolDefinition {
    ToolDefinition {
        name: "get_weather".into(),
        json: r#"{"type": "function", "function": {"name": "get_weather", "parameters": {"zeta": 1, "alpha": 1.5}}}"#
            .into(),
    }
}

/// What an answer came to, with its texts joined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub reasoning: String,
    pub content: String,
    pub calls: Vec<(String, String)>,
    pub stop: Option<String>,
    /// The order in which they came: r, c, t and s, once for each run.
    pub order: String,
}

impl Outcome {
    pub fn take(&mut self, pieces: Vec<Piece>) {
        for piece in pieces {
            assert!(self.stop.is_none(), "something came after a stop string: {piece:?}");
            let kind = match piece {
                Piece::Text { channel, text } => {
                    assert!(!text.is_empty());
                    let (kind, joined) = match channel {
                        Channel::Reasoning => ('r', &mut self.reasoning),
                        Channel::Content => ('c', &mut self.content),
                    };
                    joined.push_str(&text);
                    kind
                }
                Piece::ToolCall(ToolCallDelta { index, id, name, arguments }) => {
                    assert_eq!(index as usize, self.calls.len());
                    assert!(id.unwrap().starts_with("call_"));
                    self.calls.push((name.unwrap(), arguments));
                    't'
                }
                Piece::Stop(stop) => {
                    self.stop = Some(stop);
                    's'
                }
            };
            if kind == 't' || !self.order.ends_with(kind) {
                self.order.push(kind);
            }
        }
    }
}

pub fn run(answer: &mut Answer, tokens: impl IntoIterator<Item = TokenId>) -> Outcome {
    let mut outcome = Outcome::default();
    for token in tokens {
        let mut pieces = Vec::new();
        answer.push(token, &mut pieces);
        outcome.take(pieces);
    }
    let mut pieces = Vec::new();
    answer.finish(&mut pieces);
    outcome.take(pieces);
    outcome
}

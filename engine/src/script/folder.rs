//! A model folder whose tokens are bytes, for tests that need text; must not know who decodes.

use std::{fs, io, path::Path};

use mesh_proto::TokenId;
use serde_json::{Map, Value, json};

/// The folder's end-of-sequence token, `<|im_end|>`.
pub const END: TokenId = TokenId(256);

/// Entries of the folder's vocabulary: 256 bytes, each token its own value, and the marks.
pub const VOCAB_SIZE: u32 = 256 + MARKS.len() as u32;

/// Tokens beyond the bytes, from 256 on, and whether they are special (never text).
const MARKS: [(&str, bool); 6] = [
    ("<|im_end|>", true),
    ("<|im_start|>", true),
    ("<think>", false),
    ("</think>", false),
    ("<tool_call>", false),
    ("</tool_call>", false),
];

/// ChatML, with what a template needs to say so that reasoning and calls are told apart.
const CHAT_TEMPLATE: &str = "\
{%- if tools %}{{- '<|im_start|>system\\n' }}{% for tool in tools %}{{- tool | tojson + '\\n' }}{% endfor %}\
{{- 'Call as <tool_call>\\n{\"name\": …, \"arguments\": …}\\n</tool_call><|im_end|>\\n' }}{% endif %}\
{%- for message in messages %}\
{{- '<|im_start|>' + message.role + '\\n' + (message.content or '') + '<|im_end|>\\n' }}{% endfor %}\
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}\
{%- if enable_thinking is defined and not enable_thinking %}{{- '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}";

/// How an answer begins in a prompt of this folder's template.
pub(super) fn assistant_turn() -> Vec<TokenId> {
    std::iter::once(TokenId(257)).chain(byte_tokens("assistant\n")).collect()
}

/// The tokens of a text without marks: its bytes.
pub fn byte_tokens(text: &str) -> Vec<TokenId> {
    text.bytes().map(|byte| TokenId(u32::from(byte))).collect()
}

/// Writes `tokenizer.json` and `tokenizer_config.json` into an existing folder, for `TextModel::load`.
///
/// # Errors
/// When a file cannot be written.
pub fn write_text_model(dir: &Path) -> io::Result<()> {
    let vocab: Map<String, Value> = (0..=255u8).map(|byte| (letter(byte).to_string(), Value::from(byte))).collect();
    let added: Vec<Value> = (256..)
        .zip(MARKS)
        .map(|(id, (content, special))| {
            json!({
                "id": id, "content": content, "special": special,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            })
        })
        .collect();
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null, "pre_tokenizer": bytes, "post_processor": null, "decoder": bytes,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": [],
        },
    });
    let config = json!({"eos_token": MARKS[0].0, "chat_template": CHAT_TEMPLATE});
    fs::write(dir.join("tokenizer.json"), tokenizer.to_string())?;
    fs::write(dir.join("tokenizer_config.json"), config.to_string())
}

/// GPT-2's printable stand-in for a byte: itself where it prints, else the next free character from U+0100 on.
fn letter(byte: u8) -> char {
    let prints = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if prints(&byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|byte| !prints(byte)).count() as u32;
    char::from_u32(0x100 + before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

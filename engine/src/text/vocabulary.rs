//! What each token says, by its id; must not know in which order tokens come.

use serde_json::Value as Json;
use tokenizers::Tokenizer;

/// How tokens become text.
#[derive(Debug)]
pub(crate) enum Spelling {
    /// Every token stands for bytes of its own, whatever is around it.
    Bytes {
        /// All tokens' bytes, one after another.
        bytes: Vec<u8>,
        /// Where each token's bytes end.
        ends: Vec<u32>,
        /// What is taken off the start of a text.
        start: Start,
    },
    /// Only the tokenizer's decoder knows, and it wants the neighbours.
    Window,
}

/// What a decoder takes off the start of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Nothing.
    Keep,
    /// Up to `most` times `what` (sentencepiece's leading space).
    Strip { what: u8, most: usize },
    /// This character, wherever it is in the first token (`Metaspace`).
    DropFromFirst(char),
}

/// A tokenizer, with its tokens' bytes laid out for streaming.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    tokenizer: Tokenizer,
    spelling: Spelling,
    special: Vec<bool>,
}

impl Vocabulary {
    /// Lays out a tokenizer's tokens; about a tenth of a microsecond for each.
    pub(crate) fn new(tokenizer: Tokenizer) -> Self {
        let added = tokenizer.get_added_tokens_decoder();
        let highest = tokenizer.get_vocab(true).into_values().chain(added.keys().copied()).max();
        let size = highest.map_or(0, |id| id as usize + 1);
        let mut special = vec![false; size];
        for (id, token) in &added {
            if let Some(flag) = special.get_mut(*id as usize) {
                *flag = token.special;
            }
        }
        let spelling = tokenizer
            .get_decoder()
            .and_then(|decoder| serde_json::to_value(decoder).ok())
            .and_then(|decoder| Recipe::read(&decoder))
            .map_or(Spelling::Window, |recipe| {
                let mut bytes = Vec::new();
                let mut ends = Vec::with_capacity(size);
                for id in 0..size as u32 {
                    if let Some(token) = tokenizer.id_to_token(id) {
                        recipe.spell(token, &mut bytes);
                    }
                    ends.push(bytes.len() as u32);
                }
                Spelling::Bytes { bytes, ends, start: recipe.start }
            });
        Self { tokenizer, spelling, special }
    }

    /// The tokenizer.
    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// How tokens become text.
    pub(crate) fn spelling(&self) -> &Spelling {
        &self.spelling
    }

    /// One more than the highest id.
    pub(crate) fn size(&self) -> u32 {
        self.special.len() as u32
    }

    /// Whether a token is markup that text leaves out. Ids beyond the vocabulary are: they say nothing.
    pub(crate) fn is_special(&self, id: u32) -> bool {
        self.special.get(id as usize).copied().unwrap_or(true)
    }

    /// The ids and names of special tokens.
    pub(crate) fn special_tokens(&self) -> impl Iterator<Item = (u32, String)> {
        let ids = (0..self.size()).filter(|id| self.is_special(*id));
        ids.filter_map(|id| Some((id, self.tokenizer.id_to_token(id)?)))
    }
}

/// A token's bytes from the table.
pub(crate) fn spelled<'a>(bytes: &'a [u8], ends: &[u32], id: u32) -> &'a [u8] {
    let id = id as usize;
    let start = id.checked_sub(1).and_then(|before| ends.get(before)).map_or(0, |end| *end as usize);
    let end = ends.get(id).map_or(start, |end| *end as usize);
    bytes.get(start..end).unwrap_or_default()
}

/// A decoder whose tokens do not look at their neighbours.
struct Recipe {
    replacements: Vec<(String, String)>,
    byte_level: bool,
    byte_fallback: bool,
    start: Start,
}

impl Recipe {
    /// Reads a decoder's JSON; `None` when tokens look at their neighbours, or when it is not known whether.
    fn read(decoder: &Json) -> Option<Self> {
        let mut recipe = Self { replacements: Vec::new(), byte_level: false, byte_fallback: false, start: Start::Keep };
        let alone = std::slice::from_ref(decoder);
        let steps = match decoder["type"].as_str()? {
            "Sequence" => decoder["decoders"].as_array()?,
            _ => alone,
        };
        let mut fused = false;
        for step in steps {
            match step["type"].as_str()? {
                // After these the tokens are one text, and only `Strip` can still be followed.
                "Strip" if fused && step["stop"] == 0 && recipe.start == Start::Keep => {
                    let what = u8::try_from(step["content"].as_str()?.chars().next()?).ok().filter(u8::is_ascii)?;
                    recipe.start = Start::Strip { what, most: usize::try_from(step["start"].as_u64()?).ok()? };
                }
                "Fuse" => fused = true,
                _ if fused => return None,
                "ByteLevel" => {
                    recipe.byte_level = true;
                    fused = true;
                }
                "ByteFallback" => recipe.byte_fallback = true,
                "Replace" if !recipe.byte_fallback => {
                    let from = step["pattern"]["String"].as_str()?;
                    recipe.replacements.push((from.to_owned(), step["content"].as_str()?.to_owned()));
                }
                "Metaspace" if steps.len() == 1 => {
                    let replacement = step["replacement"].as_str()?;
                    recipe.replacements.push((replacement.to_owned(), " ".to_owned()));
                    if step["prepend_scheme"].as_str()? != "never" {
                        recipe.start = Start::DropFromFirst(replacement.chars().next()?);
                    }
                }
                _ => return None,
            }
        }
        Some(recipe)
    }

    fn spell(&self, mut token: String, out: &mut Vec<u8>) {
        for (from, to) in &self.replacements {
            token = token.replace(from.as_str(), to);
        }
        if self.byte_level {
            let start = out.len();
            for character in token.chars() {
                match byte_level_byte(character) {
                    Some(byte) => out.push(byte),
                    None => {
                        // As the reference decoder: a token with any character beyond the alphabet is plain text.
                        out.truncate(start);
                        out.extend_from_slice(token.as_bytes());
                        return;
                    }
                }
            }
            return;
        }
        match byte_token(&token).filter(|_| self.byte_fallback) {
            Some(byte) => out.push(byte),
            None => out.extend_from_slice(token.as_bytes()),
        }
    }
}

/// The byte that a sentencepiece byte token (`<0x0A>`) stands for.
fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// The byte that a character of GPT-2's byte alphabet stands for: printable Latin-1 stands for itself, and the other
/// 68 bytes, in their order, are U+0100 and up.
fn byte_level_byte(character: char) -> Option<u8> {
    let code = u32::from(character);
    match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => u8::try_from(code).ok(),
        0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        0x121..=0x142 => u8::try_from(code - 0x121 + 0x7f).ok(),
        0x143 => Some(0xad),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_byte_alphabet_is_the_tokenizers_crates_own() {
        let alphabet = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
        let bytes: HashSet<u8> = alphabet.iter().filter_map(|c| byte_level_byte(*c)).collect();
        assert_eq!((alphabet.len(), bytes.len()), (256, 256));
        assert_eq!(byte_level_byte('Ġ'), Some(b' '));
        assert_eq!(byte_level_byte('Ċ'), Some(b'\n'));
        assert_eq!((0..0x400).filter_map(char::from_u32).filter(|c| byte_level_byte(*c).is_some()).count(), 256);
    }
}

//! Reasoning that a client carries back to us without reading it; must not know which field carries it.
//!
//! Anthropic's thinking blocks have a signature and OpenAI's reasoning items an encrypted content, so that their servers
//! know their own words again. Nothing here is secret or verified: any node, of any mesh, takes what any other one
//! gave, and what another server gave is left unread.

use data_encoding::BASE64;

/// Says that the rest is ours. A new form gets a new number.
const TEXT: &str = "mesh-llm-1.";
/// Says that it stands beside its text.
const BESIDE: &str = "mesh-llm-1-";

/// Reasoning as an opaque text.
pub(super) fn seal(text: &str) -> String {
    format!("{TEXT}{}", BASE64.encode(text.as_bytes()))
}

/// What [`seal`] was given; `None`: not ours.
pub(super) fn open(sealed: &str) -> Option<String> {
    let bytes = BASE64.decode(sealed.strip_prefix(TEXT)?.as_bytes()).ok()?;
    String::from_utf8(bytes).ok()
}

/// A short mark for reasoning that is told in clear beside it.
pub(super) fn mark(text: &str) -> String {
    format!("{BESIDE}{}", BASE64.encode(blake3::hash(text.as_bytes()).as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_and_nothing_else_does() {
        for text in ["", "hm", "日本語\n\"x\""] {
            assert_eq!(open(&seal(text)).as_deref(), Some(text));
            assert_eq!(open(&mark(text)), None);
        }
        for other in ["", "mesh-llm-1.", "ErUBCkYIBxgCIkD", "mesh-llm-1.%%", "mesh-llm-1./w=="] {
            assert_eq!(open(other).unwrap_or_default(), "", "{other}");
        }
    }
}

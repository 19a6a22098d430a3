//! How likely tokens were, as each endpoint tells it; must not know what their text is part of.

use mesh_proto::{Likelihood, TokenLogprob};
use serde::Serialize;
use serde_json::{Map, Value};

/// What stands for "so unlikely that there is no number", which JSON could not carry. Origin: OpenAI.
const UNLIKELY: f32 = -9999.0;

fn logprob(of: &Likelihood) -> f32 {
    if of.logprob.is_finite() { of.logprob } else { UNLIKELY }
}

/// Half a character becomes U+FFFD here; the bytes tell what it was.
fn text(of: &Likelihood) -> String {
    String::from_utf8_lossy(&of.bytes).into_owned()
}

/// A chat's `logprobs`.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct ChatLogprobs {
    content: Vec<TokenDto>,
    refusal: Option<()>,
}

#[derive(Clone, Debug, Serialize)]
struct TokenDto {
    #[serde(flatten)]
    chosen: TopDto,
    top_logprobs: Vec<TopDto>,
}

#[derive(Clone, Debug, Serialize)]
struct TopDto {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

impl From<Likelihood> for TopDto {
    fn from(of: Likelihood) -> Self {
        Self { token: text(&of), logprob: logprob(&of), bytes: of.bytes }
    }
}

impl ChatLogprobs {
    /// More tokens of the content.
    pub(super) fn add(&mut self, tokens: Vec<TokenLogprob>) {
        self.content.extend(tokens.into_iter().map(|token| TokenDto {
            chosen: token.chosen.into(),
            top_logprobs: token.top.into_iter().map(TopDto::from).collect(),
        }));
    }

    /// Those of one chunk; absent where there are none.
    pub(super) fn of(tokens: Vec<TokenLogprob>) -> Option<Self> {
        let mut all = Self::default();
        all.add(tokens);
        (!all.content.is_empty()).then_some(all)
    }
}

/// A legacy completion's `logprobs`: four lists of one length.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct LegacyLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<f32>,
    /// The chosen token is always among them.
    top_logprobs: Vec<Map<String, Value>>,
    /// Where each begins, in characters.
    text_offset: Vec<u32>,
}

/// Where the next token of an answer begins.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Offset(u32);

impl LegacyLogprobs {
    /// More tokens, which begin at `offset`.
    pub(super) fn add(&mut self, offset: &mut Offset, tokens: Vec<TokenLogprob>) {
        for TokenLogprob { chosen, top } in tokens {
            let mut alternatives = Map::new();
            for one in top.iter().chain([&chosen]) {
                // Two halves of characters look alike; the likelier one stands for both.
                alternatives.entry(text(one)).or_insert_with(|| logprob(one).into());
            }
            self.top_logprobs.push(alternatives);
            self.token_logprobs.push(logprob(&chosen));
            self.tokens.push(text(&chosen));
            let goes_on = |byte: &&u8| **byte & 0xC0 == 0x80;
            let within = u32::from(chosen.bytes.first().as_ref().is_some_and(goes_on));
            self.text_offset.push(offset.0.saturating_sub(within));
            let begun = chosen.bytes.iter().filter(|byte| !goes_on(byte)).count();
            offset.0 = offset.0.saturating_add(u32::try_from(begun).unwrap_or(u32::MAX));
        }
    }

    /// Those of one chunk; absent where there are none.
    pub(super) fn of(offset: &mut Offset, tokens: Vec<TokenLogprob>) -> Option<Self> {
        let mut all = Self::default();
        all.add(offset, tokens);
        (!all.tokens.is_empty()).then_some(all)
    }
}

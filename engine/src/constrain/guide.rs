//! One answer held to its grammar; must not know who chooses its tokens.

use std::{
    fmt,
    sync::{Arc, mpsc::Receiver},
};

use llguidance::Matcher;
use mesh_proto::TokenId;

use super::{
    in_short,
    masks::{Computed, Masks, mask},
};
use crate::decoder::TokenSet;

/// A grammar, as far as the answer came in it.
pub struct Guide {
    state: State,
    masks: Arc<Masks>,
}

enum State {
    /// Behind the answer's last token.
    Here(Box<Matcher>),
    /// On a thread that computes what may come next.
    Away(Receiver<Computed>),
    /// Back, with that.
    Ready(Box<Matcher>, TokenSet),
    /// It cannot go on.
    Failed(String),
}

impl Guide {
    pub(super) fn new(matcher: Matcher, masks: Arc<Masks>) -> Self {
        Self { state: State::Here(Box::new(matcher)), masks }
    }

    /// Begins to compute what may come next, beside whatever the caller does meanwhile.
    pub fn look_ahead(&mut self) {
        self.state = match std::mem::replace(&mut self.state, lost()) {
            State::Here(matcher) => match self.masks.compute(matcher) {
                Ok(computed) => State::Away(computed),
                Err(matcher) => State::Here(matcher),
            },
            other => other,
        };
    }

    /// What may come next; waits for it.
    ///
    /// # Errors
    /// The grammar is too complex to go on in, or allows nothing.
    pub fn allowed(&mut self) -> Result<&TokenSet, String> {
        let (matcher, mask) = match std::mem::replace(&mut self.state, lost()) {
            State::Here(mut matcher) => {
                let mask = mask(&mut matcher);
                (matcher, mask)
            }
            State::Away(computed) => computed.recv().map_err(|_| LOST.to_owned())?,
            State::Ready(matcher, mask) => (matcher, Ok(mask)),
            State::Failed(error) => return Err(self.fail(error)),
        };
        match mask {
            Ok(mask) => self.state = State::Ready(matcher, mask),
            Err(error) => return Err(self.fail(error)),
        }
        match &self.state {
            State::Ready(_, mask) => Ok(mask),
            _ => Err(LOST.to_owned()),
        }
    }

    /// The answer's next token, one of the allowed ones. Says whether the grammar ends with it: nothing may follow.
    ///
    /// # Errors
    /// It is none of the allowed ones, or the grammar is too complex.
    pub fn take(&mut self, token: TokenId) -> Result<bool, String> {
        let mut matcher = match std::mem::replace(&mut self.state, lost()) {
            State::Here(matcher) | State::Ready(matcher, _) => matcher,
            State::Away(computed) => computed.recv().map_err(|_| LOST.to_owned())?.0,
            State::Failed(error) => return Err(self.fail(error)),
        };
        if let Err(error) = matcher.consume_token(token.0) {
            return Err(self.fail(in_short(&error.to_string())));
        }
        let over = matcher.is_stopped();
        self.state = State::Here(matcher);
        Ok(over)
    }

    fn fail(&mut self, error: String) -> String {
        self.state = State::Failed(error.clone());
        error
    }
}

const LOST: &str = "a thread that follows the grammar is gone: see the log";

fn lost() -> State {
    State::Failed(LOST.to_owned())
}

impl fmt::Debug for Guide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Here(_) => "here",
            State::Away(_) => "away",
            State::Ready(..) => "ready",
            State::Failed(error) => error,
        };
        f.debug_tuple("Guide").field(&state).finish()
    }
}

//! Fields that a newer build added: carried, and skipped by who does not know them; must not know any of them.

use serde::{Deserialize, Serialize};

use super::{CapError, cap};

/// Additions to a frozen struct: tag and bytes. Unknown tags are kept, so that a relayed value stays whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ext(pub Vec<(u16, Vec<u8>)>);

impl Ext {
    /// Most additions of one struct. Guess; a release adds one or two.
    pub const MAX_TAGS: usize = 16;
    /// Most bytes of one addition. Guess.
    pub const MAX_BYTES: usize = 1024;

    /// The first addition with this tag.
    pub fn get(&self, tag: u16) -> Option<&[u8]> {
        self.0.iter().find(|(t, _)| *t == tag).map(|(_, bytes)| bytes.as_slice())
    }

    /// The same with one addition more.
    #[must_use]
    pub fn with(mut self, tag: u16, bytes: Vec<u8>) -> Self {
        self.0.push((tag, bytes));
        self
    }

    /// Caps on number and length.
    ///
    /// # Errors
    /// When one is broken.
    pub fn check(&self) -> Result<(), CapError> {
        cap("ext", self.0.len(), Self::MAX_TAGS)?;
        self.0.iter().try_for_each(|(_, bytes)| cap("ext bytes", bytes.len(), Self::MAX_BYTES))
    }
}

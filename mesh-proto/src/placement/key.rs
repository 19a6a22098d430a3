//! What models are compared by; must not know what they are called.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A model's identity: the digest of repository, revision, quantisation and contents. Two nodes with equal
/// keys give equal tokens, whatever names they serve the model by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ModelKey(pub [u8; 32]);

/// The first ten hexadecimal digits.
impl fmt::Display for ModelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(5).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ModelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ModelKey({self})")
    }
}

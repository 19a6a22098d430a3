//! Names that are keys; must not know what they sign.

use std::{cmp::Ordering, fmt, str::FromStr};

use data_encoding::{BASE32_NOPAD, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A node: its ed25519 public key, which is also its QUIC identity. Whether the bytes are a key at all shows
/// when a signature is checked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub [u8; 32]);

/// As bytes are ordered. Ids are keys, so the first eight bytes nearly always tell; a call to compare all 32 was a tenth of
/// what a node does about a message.
impl Ord for NodeId {
    fn cmp(&self, other: &Self) -> Ordering {
        let start = |id: &Self| {
            let [a, b, c, d, e, f, g, h, ..] = id.0;
            u64::from_be_bytes([a, b, c, d, e, f, g, h])
        };
        start(self).cmp(&start(other)).then_with(|| self.0[8..].cmp(&other.0[8..]))
    }
}

impl PartialOrd for NodeId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A mesh: BLAKE3 of its founder's public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MeshId(pub [u8; 32]);

/// Why a text is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ParseIdError {
    /// Neither of the two forms has this length.
    #[error("an id is 64 hexadecimal digits or 52 of base32; this has {0} characters")]
    Length(usize),
    /// A character that the form does not have.
    #[error("an id holds only hexadecimal digits, or only base32 (a to z, 2 to 7)")]
    Character,
}

impl MeshId {
    /// The mesh that `founder` founded.
    pub fn of(founder: &NodeId) -> Self {
        Self(*blake3::hash(&founder.0).as_bytes())
    }
}

impl NodeId {
    /// The first ten hexadecimal digits, for logs and tables.
    pub fn short(&self) -> String {
        hex(&self.0[..5])
    }
}

impl MeshId {
    /// The first ten hexadecimal digits, for logs and tables.
    pub fn short(&self) -> String {
        hex(&self.0[..5])
    }
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

fn parse(text: &str) -> Result<[u8; 32], ParseIdError> {
    let decoded = match text.len() {
        64 => HEXLOWER_PERMISSIVE.decode(text.as_bytes()),
        52 => BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes()),
        length => return Err(ParseIdError::Length(length)),
    };
    let bytes = decoded.map_err(|_| ParseIdError::Character)?;
    bytes.try_into().map_err(|_| ParseIdError::Character)
}

macro_rules! id_text {
    ($id:ident) => {
        /// All 64 hexadecimal digits.
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        /// Ten digits: an id in a log line need not fill it.
        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($id), "({})"), self.short())
            }
        }

        /// Hexadecimal, or base32 as iroh also writes it; either case.
        impl FromStr for $id {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse(text).map(Self)
            }
        }
    };
}

id_text!(NodeId);
id_text!(MeshId);

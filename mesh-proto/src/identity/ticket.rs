//! What one person sends another so that a node gets in; must not be printed by anything but its own command.
//!
//! ```text
//! meshllm1 ‖ base32 (lower case, no padding) of: codec bytes of the ticket ‖ first 4 bytes of their BLAKE3
//! ```
//! The `1` is no base32 character and is the text form's version. Line breaks and spaces are skipped, upper
//! case is read.

use std::{fmt, net::SocketAddr, str::FromStr};

use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Invitation, NodeId, Secret, Signed};
use crate::codec::{self, CapError, CodecError, Ext, Wire, cap};

/// How a ticket's text begins.
pub const PREFIX: &str = "meshllm1";

const CHECKSUM: usize = 4;
/// Characters of the longest ticket: base32 of [`Wire::LIMIT`] and checksum.
const MAX_TEXT: usize = (WireTicket::LIMIT + CHECKSUM) * 8 / 5 + 64;

/// Where a node can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// Who answers there.
    pub node: NodeId,
    /// Addresses to dial.
    pub direct: Vec<SocketAddr>,
    /// The relay that it listens on, if any.
    pub relay: Option<String>,
}

impl Contact {
    /// Most direct addresses. Guess: a laptop with several interfaces and both IP versions has about eight.
    pub const MAX_DIRECT: usize = 16;
    /// Most bytes of a relay's URL. Guess.
    pub const MAX_RELAY: usize = 256;

    /// Caps on number and length.
    ///
    /// # Errors
    /// When one is broken.
    pub fn check(&self) -> Result<(), CapError> {
        cap("direct addresses", self.direct.len(), Self::MAX_DIRECT)?;
        cap("relay", self.relay.as_ref().map_or(0, String::len), Self::MAX_RELAY)
    }
}

/// Addresses, an invitation, and the secret that goes with it.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Whom to dial; the invitation's issuer among them, since it alone honours it.
    pub contacts: Vec<Contact>,
    /// What is promised.
    pub invitation: Signed<Invitation>,
    /// Later additions.
    pub ext: Ext,
    secret: Secret,
}

#[derive(Serialize, Deserialize)]
struct WireTicket {
    contacts: Vec<Contact>,
    invitation: Signed<Invitation>,
    secret: [u8; 32],
    ext: Ext,
}

impl Wire for WireTicket {
    const NAME: &'static str = "ticket";
    const LIMIT: usize = 4096;
    fn check(&self) -> Result<(), CapError> {
        cap("contacts", self.contacts.len(), Ticket::MAX_CONTACTS)?;
        self.contacts.iter().try_for_each(Contact::check)?;
        self.ext.check()
    }
}

/// Why a text is no ticket.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TicketError {
    /// Nothing there.
    #[error("the ticket is empty")]
    Empty,
    /// Something else.
    #[error("not a ticket: a ticket starts with `{PREFIX}`")]
    Prefix,
    /// From another release.
    #[error("a ticket of version {0:?}, this build reads version 1: update mesh-llm on the older machine")]
    Version(char),
    /// Too long to be one.
    #[error("too long for a ticket: {0} characters")]
    TooLong(usize),
    /// A character that no ticket has.
    #[error("the ticket has {found:?} at character {at}, which no ticket has: was it copied whole?")]
    Character {
        /// Which.
        found: char,
        /// Where, counted from 1 without spaces.
        at: usize,
    },
    /// A character is missing, added or changed.
    #[error("the ticket's checksum does not match: a part of it is missing or was changed in copying")]
    Checksum,
    /// The checksum is right and the content is not.
    #[error("the ticket cannot be read: {0}")]
    Content(#[from] CodecError),
}

impl Ticket {
    /// Most nodes to dial. Guess.
    pub const MAX_CONTACTS: usize = 8;

    /// Puts a ticket together.
    pub fn new(contacts: Vec<Contact>, invitation: Signed<Invitation>, secret: Secret) -> Self {
        Self { contacts, invitation, ext: Ext::default(), secret }
    }

    /// The bearer secret.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The text to hand over. Whoever reads it may join.
    ///
    /// # Errors
    /// When there are too many contacts or addresses.
    pub fn to_text(&self) -> Result<String, CodecError> {
        let wire = WireTicket {
            contacts: self.contacts.clone(),
            invitation: self.invitation.clone(),
            secret: *self.secret.expose(),
            ext: self.ext.clone(),
        };
        let mut bytes = codec::encode(&wire)?;
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        Ok(format!("{PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase()))
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    let hash = blake3::hash(bytes);
    let mut sum = [0; CHECKSUM];
    sum.copy_from_slice(&hash.as_bytes()[..CHECKSUM]);
    sum
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        if text.len() > 2 * MAX_TEXT {
            return Err(TicketError::TooLong(text.len()));
        }
        let text: String = text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_ascii_lowercase()).collect();
        if text.is_empty() {
            return Err(TicketError::Empty);
        }
        let name = PREFIX.trim_end_matches('1');
        let rest = text.strip_prefix(name).ok_or(TicketError::Prefix)?;
        let version = rest.chars().next().ok_or(TicketError::Prefix)?;
        if version != '1' {
            let error = if version.is_ascii_digit() { TicketError::Version(version) } else { TicketError::Prefix };
            return Err(error);
        }
        let body = &rest[1..];
        if body.len() > MAX_TEXT {
            return Err(TicketError::TooLong(text.len()));
        }
        let wrong = |c: &char| !matches!(c, 'a'..='z' | '2'..='7');
        if let Some((at, found)) = body.chars().enumerate().find(|(_, c)| wrong(c)) {
            return Err(TicketError::Character { found, at: PREFIX.len() + at + 1 });
        }
        let decoded = BASE32_NOPAD.decode(body.to_ascii_uppercase().as_bytes());
        let bytes = decoded.map_err(|_| TicketError::Checksum)?;
        let split = bytes.len().checked_sub(CHECKSUM).ok_or(TicketError::Checksum)?;
        let (content, sum) = bytes.split_at(split);
        if checksum(content) != sum {
            return Err(TicketError::Checksum);
        }
        let wire: WireTicket = codec::decode(content)?;
        let WireTicket { contacts, invitation, secret, ext } = wire;
        Ok(Self { contacts, invitation, ext, secret: Secret::from_bytes(secret) })
    }
}

/// Without the secret.
impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("contacts", &self.contacts)
            .field("invitation", &self.invitation.claim().ok())
            .finish_non_exhaustive()
    }
}

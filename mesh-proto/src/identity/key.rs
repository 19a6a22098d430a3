//! What must stay secret; must not appear in a log.

use std::fmt;

use ed25519_dalek::{Signer, SigningKey};

use super::{NodeId, Nonce};

/// A node's private key. The file that keeps its seed is the caller's, mode 0600.
#[derive(Clone)]
pub struct NodeKey(SigningKey);

impl NodeKey {
    /// The key of a seed: 32 bytes from the operating system's generator, or a test's own.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// The seed, to be kept on disk or given to the QUIC endpoint.
    pub fn seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public half.
    pub fn id(&self) -> NodeId {
        NodeId(self.0.verifying_key().to_bytes())
    }

    pub(super) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    /// The bearer secret of the invitation with this nonce: derived from the seed, so that an issuer has
    /// nothing to remember and can show a ticket again.
    pub fn invitation_secret(&self, nonce: &Nonce) -> Secret {
        let mut material = [0u8; 48];
        material[..32].copy_from_slice(&self.0.to_bytes());
        material[32..].copy_from_slice(&nonce.0);
        Secret(blake3::derive_key("mesh-llm invitation secret v1", &material))
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey(of {})", self.id().short())
    }
}

/// A ticket's bearer secret: who holds it may join. Compared in constant time; shown by nothing but the ticket.
#[derive(Clone, Copy)]
pub struct Secret(pub(super) [u8; 32]);

impl Secret {
    /// Takes the bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes. Whoever sees them may join.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        // BLAKE3's hashes compare in constant time.
        blake3::Hash::from_bytes(self.0) == blake3::Hash::from_bytes(other.0)
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

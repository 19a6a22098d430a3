//! A statement and its signature, kept as the bytes that came; must not know what is stated.

use std::{marker::PhantomData, sync::Arc};

use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{NodeId, NodeKey};
use crate::codec::{self, CodecError, Wire};

/// A statement that is signed. Its domain goes before its bytes into every signature, so that no signature
/// can be passed off as one of another kind.
pub trait Signable: Wire {
    /// E.g. `mesh-llm record v1`. Ends with the version; never reused.
    const DOMAIN: &'static str;
}

/// A statement as it travels: the body's bytes and 64 bytes of ed25519 over `DOMAIN ‖ 0x00 ‖ body`. Clones share them.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Signed<T> {
    #[serde(with = "codec::shared")]
    body: Arc<[u8]>,
    #[serde(with = "codec::bytes64")]
    signature: [u8; 64],
    #[serde(skip)]
    kind: PhantomData<fn() -> T>,
}

/// The signature is not that key's over these bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the signature does not match")]
pub struct BadSignature;

/// Why a signed statement is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// Not signed by whom it should be.
    #[error(transparent)]
    Signature(#[from] BadSignature),
    /// Not a statement of this kind.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl<T: Signable> Signed<T> {
    /// Signs a statement.
    ///
    /// # Errors
    /// When it breaks its own caps.
    pub fn sign(statement: &T, key: &NodeKey) -> Result<Self, CodecError> {
        let body = codec::encode(statement)?;
        let signature = key.sign(&message::<T>(&body));
        Ok(Self { body: body.into(), signature, kind: PhantomData })
    }

    /// What is claimed, the signature unchecked: to learn who should have signed it.
    ///
    /// # Errors
    /// When the bytes are no such statement.
    pub fn claim(&self) -> Result<T, CodecError> {
        codec::decode(&self.body)
    }

    /// Checks the signature over the bytes as they came.
    ///
    /// # Errors
    /// When it is not `signer`'s.
    pub fn verify(&self, signer: &NodeId) -> Result<(), BadSignature> {
        let key = VerifyingKey::from_bytes(&signer.0).map_err(|_| BadSignature)?;
        let signature = Signature::from_bytes(&self.signature);
        key.verify_strict(&message::<T>(&self.body), &signature).map_err(|_| BadSignature)
    }

    /// The statement, if `signer` signed it.
    ///
    /// # Errors
    /// When it did not, or when the bytes are no such statement.
    pub fn open(&self, signer: &NodeId) -> Result<T, OpenError> {
        self.verify(signer)?;
        Ok(self.claim()?)
    }

    /// A short name for these very bytes, signature included.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.body).update(&self.signature);
        *hasher.finalize().as_bytes()
    }

    /// The signature's first bytes: tells most statements apart without a hash. Whoever goes by it compares the whole.
    pub(crate) fn hint(&self) -> [u8; 16] {
        let mut hint = [0; 16];
        hint.copy_from_slice(&self.signature[..16]);
        hint
    }

    /// Bytes of the body.
    pub fn len(&self) -> usize {
        self.body.len()
    }

    /// Whether the body has no bytes, which no statement has.
    pub fn is_empty(&self) -> bool {
        self.body.is_empty()
    }
}

fn message<T: Signable>(body: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(T::DOMAIN.len() + 1 + body.len());
    message.extend_from_slice(T::DOMAIN.as_bytes());
    message.push(0);
    message.extend_from_slice(body);
    message
}

impl<T> Clone for Signed<T> {
    fn clone(&self) -> Self {
        Self { body: Arc::clone(&self.body), signature: self.signature, kind: PhantomData }
    }
}

impl<T> PartialEq for Signed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.signature == other.signature && (Arc::ptr_eq(&self.body, &other.body) || self.body == other.body)
    }
}

impl<T> Eq for Signed<T> {}

impl<T> std::fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signed({} bytes)", self.body.len())
    }
}

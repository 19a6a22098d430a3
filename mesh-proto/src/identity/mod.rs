//! Who is who, and who lets whom in: ids, keys, signatures, invitations, certificates, revocations; must not
//! know sockets, files or TLS.
//!
//! A mesh is its founder's key: [`MeshId`] is that key's hash. The founder, or a member that the founder made
//! an admitter, signs [`Invitation`]s and hands them out as [`Ticket`]s. The joiner shows the invitation and
//! proves that it holds the ticket's secret ([`proof`]); [`Admission`] answers with a [`CertChain`] that every
//! member can check alone. The founder's [`RevocationList`] takes all of it back.
//!
//! ```
//! use mesh_proto::{codec::Ext, identity::*, time::*};
//!
//! let (founder, joiner) = (NodeKey::from_seed([1; 32]), NodeKey::from_seed([2; 32]));
//! let now = UnixMillis(1_700_000_000_000);
//! let mut desk = Admission::found(founder, now)?;
//! let signed = desk.invite(&Terms::new(MemberRole::Serve, Nonce([7; 16])), now)?;
//! let ticket = Ticket::new(vec![], signed.clone(), desk.secret(&Nonce([7; 16])));
//!
//! let tls = Session { joiner: joiner.id(), exporter: [9; 32] };
//! let request = AdmitRequest::join(&ticket, &tls);
//! let reply = desk.answer(&request, &tls, &Revocations::new(desk.mesh()), now);
//! let chain = reply.accept(&ticket, &tls, now)?;
//! assert_eq!(chain.open(desk.mesh(), now)?.node, joiner.id());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod admission;
mod admit_frames;
mod cert;
mod id;
mod invitation;
mod key;
mod revocation;
mod signed;
mod ticket;

pub use admission::{Admission, AdmissionError};
pub use admit_frames::{AdmitRefusal, AdmitReply, AdmitRequest, JoinError, Session, Side, proof};
pub use cert::{CERT_LIFETIME, CertChain, CertRefusal, MembershipCert, SKEW};
pub use id::{MeshId, NodeId, ParseIdError};
pub use invitation::{INVITATION_LIFETIME, Invitation, MAX_USES, MemberRole, Nonce, Terms};
pub use key::{NodeKey, Secret};
pub use revocation::{RevocationList, RevocationRefusal, Revocations};
pub use signed::{BadSignature, OpenError, Signable, Signed};
pub use ticket::{Contact, PREFIX, Ticket, TicketError};

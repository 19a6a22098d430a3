//! Who gets past the TLS handshake: members, to model files those that may serve, and strangers to the admission desk only;
//! must not know what any of them says.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use iroh::endpoint::{AfterHandshakeOutcome, Connection, EndpointHooks, WeakConnectionHandle};
use mesh_proto::{
    identity::{CertChain, MemberRole, MembershipCert, NodeId, Revocations, SKEW},
    time::UnixMillis,
};

use super::{alpn, clock, endpoint::MEMBER_WINDOW};

/// The close code of a connection whose other end is no member.
pub(crate) const NOT_A_MEMBER: u32 = 403;
/// That of a connection that is one too many.
const TOO_MANY: u32 = 429;
/// Connections that a member may have with this node at once, of all protocols. Unit: connections; default 32, a guess:
/// a pair needs two of each of five protocols, when both dial at once. Cost: some 100 KiB each, and what their streams hold.
const MAX_CONNECTIONS: usize = 32;

/// Whose certificates this node has seen. Cheap to clone; every clone sees every change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Members {
    standing: Arc<RwLock<BTreeMap<NodeId, Standing>>>,
    connections: Arc<RwLock<BTreeMap<NodeId, Vec<WeakConnectionHandle>>>>,
}

#[derive(Clone, Debug)]
struct Standing {
    until: UnixMillis,
    role: MemberRole,
    chain: CertChain,
}

impl Members {
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<NodeId, Standing>> {
        self.standing.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<NodeId, Standing>> {
        self.standing.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a member's connections in. The chain was checked.
    pub(crate) fn admit(&self, cert: &MembershipCert, chain: &CertChain) {
        let standing = Standing { until: cert.not_after.after(SKEW), role: cert.role, chain: chain.clone() };
        self.write().insert(cert.node, standing);
    }

    /// Whether its connections may come in now.
    pub(crate) fn knows(&self, node: &NodeId, now: UnixMillis) -> bool {
        self.read().get(node).is_some_and(|standing| now <= standing.until)
    }

    /// The same, of a protocol that may be for members that serve only.
    fn lets_in(&self, node: &NodeId, alpn: &[u8], now: UnixMillis) -> bool {
        let serves = |standing: &Standing| standing.role == MemberRole::Serve || !alpn::is_between_servers(alpn);
        self.read().get(node).is_some_and(|standing| now <= standing.until && serves(standing))
    }

    /// Lets no new connection of it in.
    pub(crate) fn forget(&self, node: &NodeId) {
        self.write().remove(node);
    }

    /// Closes every connection with it, of all protocols, mid-stream or not.
    pub(crate) fn hang_up(&self, node: &NodeId, code: u32, why: &'static str) {
        let gone = self.connections.write().unwrap_or_else(PoisonError::into_inner).remove(node);
        for connection in gone.iter().flatten().filter_map(WeakConnectionHandle::upgrade) {
            connection.close(code.into(), why.as_bytes());
        }
    }

    /// Whether it is one more that may be.
    fn remember(&self, node: NodeId, connection: &Connection) -> bool {
        let mut connections = self.connections.write().unwrap_or_else(PoisonError::into_inner);
        let open = connections.entry(node).or_default();
        open.retain(|connection| connection.upgrade().is_some_and(|open| open.close_reason().is_none()));
        let more = open.len() < MAX_CONNECTIONS;
        if more {
            open.push(connection.weak_handle());
        }
        more
    }

    /// Removes whoever is revoked, and says who that was.
    pub(crate) fn expel(&self, revocations: &Revocations, now: UnixMillis) -> Vec<NodeId> {
        let mut expelled = Vec::new();
        self.write().retain(|node, standing| {
            let stands = standing.chain.of(*node, revocations, now).is_ok();
            if !stands {
                expelled.push(*node);
            }
            stands
        });
        expelled
    }
}

/// The hook that iroh asks after each handshake.
#[derive(Debug)]
pub(crate) struct Gate {
    members: Members,
}

impl Gate {
    pub(crate) fn new(members: Members) -> Self {
        Self { members }
    }
}

impl EndpointHooks for Gate {
    async fn after_handshake<'a>(&'a self, connection: &'a Connection) -> AfterHandshakeOutcome {
        let node = NodeId(*connection.remote_id().as_bytes());
        if connection.alpn() == alpn::ADMIT {
            return AfterHandshakeOutcome::Accept;
        }
        if self.members.lets_in(&node, connection.alpn(), clock::unix()) {
            if !self.members.remember(node, connection) {
                tracing::debug!(node = %node.short(), "one connection too many");
                return AfterHandshakeOutcome::Reject { error_code: TOO_MANY.into(), reason: b"too many".to_vec() };
            }
            connection.set_receive_window(MEMBER_WINDOW.into());
            // Who was expelled between the two was hung up on without this connection.
            if self.members.knows(&node, clock::unix()) {
                return AfterHandshakeOutcome::Accept;
            }
        }
        tracing::debug!(node = %node.short(), "a connection without membership was closed");
        AfterHandshakeOutcome::Reject { error_code: NOT_A_MEMBER.into(), reason: b"not a member".to_vec() }
    }
}

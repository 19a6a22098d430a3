//! The iroh endpoint: sockets, relays, address lookup, QUIC's times; must not know what is said over it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use iroh::{
    Endpoint, EndpointAddr, EndpointId, RelayMode, RelayUrl, SecretKey, TransportAddr, Watcher,
    address_lookup::memory::MemoryLookup,
    endpoint::{Connection, IdleTimeout, PortmapperConfig, QuicTransportConfig, VarInt, presets},
};
use iroh_mdns_address_lookup::MdnsAddressLookup;
use mesh_proto::identity::{Contact, NodeId, NodeKey};
use thiserror::Error;
use tokio::time::timeout;

use super::{Gate, MeshError, MeshOptions, Relay};

/// A connection on which nothing was heard for so long is closed. Unit: seconds; default 4. Origin: iroh.md 1.6: noticed
/// within this and the keep-alive. The failure detector is quicker (2.6 s); this is what frees a corpse's memory.
const IDLE: Duration = Duration::from_secs(4);
/// Between two keep-alives. Unit: seconds; default 1. Cost: 50 B/s a connection.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Requests that one peer may have open on a connection. Beyond it QUIC itself makes the peer wait.
const MAX_STREAMS: u32 = 1024;
/// Control frames under way from one peer.
const MAX_UNI_STREAMS: u32 = 64;
/// Unread bytes that one connection may leave here, over all its streams, before its other end is known to be a member. Unit:
/// bytes; default 64 KiB: sixteen times an admission request. QUIC's own default is without a bound; a stranger could make
/// this node hold 1.2 MB in each of a thousand streams that nobody reads.
const STRANGER_WINDOW: u32 = 64 << 10;
/// The same for a member. Default 16 MiB, a guess: a gigabit's worth of a round trip of 130 ms. Cost: that much memory for
/// each connection whose streams are not read.
pub(crate) const MEMBER_WINDOW: u32 = 16 << 20;
/// A dial to a corpse would block for three seconds or more (iroh.md 0.3).
pub(crate) const DIAL: Duration = Duration::from_millis(1500);
/// How mDNS names us on the LAN.
const MDNS_SERVICE: &str = "meshllm";

/// Why a peer was not reached.
#[derive(Debug, Error)]
pub(crate) enum DialError {
    #[error("no answer within {} ms", DIAL.as_millis())]
    Timeout,
    #[error("not an id")]
    Id,
    #[error("{0}")]
    Connect(String),
}

/// The node's end of every connection. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Net {
    pub(crate) endpoint: Endpoint,
    lookup: MemoryLookup,
}

impl Net {
    /// Opens the sockets. Does not wait for a relay or for anybody.
    /// Where a port may be any, it is the one of `last` (IPv4's and IPv6's) if that is free.
    pub(crate) async fn bind(
        key: &NodeKey,
        options: &MeshOptions,
        last: (u16, u16),
        gate: Gate,
    ) -> Result<Self, MeshError> {
        let lookup = MemoryLookup::new();
        let base = match options.relay {
            Relay::Public => Endpoint::builder(presets::N0),
            Relay::Own(_) | Relay::None => Endpoint::builder(presets::Minimal),
        };
        let mut builder = base
            .secret_key(SecretKey::from_bytes(&key.seed()))
            .address_lookup(lookup.clone())
            .portmapper_config(PortmapperConfig::Disabled)
            .transport_config(transport())
            .hooks(gate);
        builder = match &options.relay {
            Relay::Public => builder,
            Relay::None => builder.relay_mode(RelayMode::Disabled),
            Relay::Own(url) => {
                let parsed = url.parse::<RelayUrl>();
                let relay = parsed.map_err(|e| MeshError::Relay { url: url.clone(), message: e.to_string() })?;
                builder.relay_mode(RelayMode::custom([relay]))
            }
        };
        if !options.bind.is_empty() {
            builder = builder.clear_ip_transports();
        }
        for address in addresses(&options.bind, last)? {
            builder = builder.bind_addr(address).map_err(|e| MeshError::Bind(e.to_string()))?;
        }
        let endpoint = builder.bind().await.map_err(|e| MeshError::Bind(e.to_string()))?;
        if options.mdns {
            match MdnsAddressLookup::builder().service_name(MDNS_SERVICE).build(endpoint.id()) {
                Ok(mdns) => {
                    if let Ok(services) = endpoint.address_lookup() {
                        services.add(mdns);
                    }
                }
                // A container without multicast is no reason not to start.
                Err(error) => tracing::info!(%error, "no mDNS here"),
            }
        }
        Ok(Self { endpoint, lookup })
    }

    /// The UDP ports it has, IPv4's and IPv6's; 0: none.
    pub(crate) fn ports(&self) -> (u16, u16) {
        let sockets = self.endpoint.bound_sockets();
        let port = |v4: bool| sockets.iter().find(|socket| socket.is_ipv4() == v4).map_or(0, SocketAddr::port);
        (port(true), port(false))
    }

    /// This node, as its peers know it.
    pub(crate) fn id(&self) -> NodeId {
        node_id(self.endpoint.id())
    }

    /// Where this node can be reached, as far as it knows.
    pub(crate) fn contact(&self) -> Contact {
        contact(&self.endpoint.addr())
    }

    /// Waits for a change of [`Net::contact`], and returns it; `None` when the endpoint is closed.
    pub(crate) fn contacts(&self) -> impl futures_util::Stream<Item = Contact> + Send + 'static {
        use futures_util::StreamExt;
        self.endpoint.watch_addr().stream().map(|addr| contact(&addr))
    }

    /// Remembers where a node said it is, for whoever dials it by its id alone (iroh-gossip does).
    pub(crate) fn learn(&self, contact: &Contact) {
        if let Some(addr) = address(contact) {
            self.lookup.set_endpoint_info(addr);
        }
    }

    /// Connects, within [`DIAL`].
    pub(crate) async fn dial(&self, contact: &Contact, alpn: &[u8]) -> Result<Connection, DialError> {
        let addr = address(contact).ok_or(DialError::Id)?;
        match timeout(DIAL, self.endpoint.connect(addr, alpn)).await {
            Err(_) => Err(DialError::Timeout),
            Ok(Err(error)) => Err(DialError::Connect(error.to_string())),
            Ok(Ok(connection)) => Ok(connection),
        }
    }
}

/// What to bind. Without an order: every address, at the last ports if these are free; iroh adds what is missing.
fn addresses(ordered: &[SocketAddr], last: (u16, u16)) -> Result<Vec<SocketAddr>, MeshError> {
    let last = |ip: IpAddr| SocketAddr::new(ip, if ip.is_ipv4() { last.0 } else { last.1 });
    // Whoever takes the port between this look and iroh's own makes the start fail, and the next one succeed.
    let free = |address: &SocketAddr| address.port() != 0 && std::net::UdpSocket::bind(address).is_ok();
    if ordered.is_empty() {
        let all = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        return Ok(all.into_iter().map(last).filter(free).collect());
    }
    for family in [true, false] {
        if ordered.iter().filter(|address| address.is_ipv4() == family).count() > 1 {
            let message = "--bind takes one IPv4 and one IPv6 address; 0.0.0.0 and :: are all of this machine's";
            return Err(MeshError::Bind(message.into()));
        }
    }
    let chosen = ordered.iter().map(|address| {
        let again = last(address.ip());
        if address.port() == 0 && free(&again) { again } else { *address }
    });
    Ok(chosen.collect())
}

fn transport() -> QuicTransportConfig {
    let idle = IdleTimeout::try_from(IDLE).ok();
    QuicTransportConfig::builder()
        .max_idle_timeout(idle)
        .keep_alive_interval(KEEP_ALIVE)
        .default_path_keep_alive_interval(KEEP_ALIVE)
        .default_path_max_idle_timeout(IDLE)
        .max_concurrent_bidi_streams(VarInt::from_u32(MAX_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(MAX_UNI_STREAMS))
        .receive_window(VarInt::from_u32(STRANGER_WINDOW))
        // Nobody reads any.
        .datagram_receive_buffer_size(None)
        .build()
}

/// Our name for iroh's.
pub(crate) fn node_id(id: EndpointId) -> NodeId {
    NodeId(*id.as_bytes())
}

/// Iroh's name for ours; none where the bytes are no key.
pub(crate) fn endpoint_id(node: &NodeId) -> Option<EndpointId> {
    EndpointId::from_bytes(&node.0).ok()
}

fn address(contact: &Contact) -> Option<EndpointAddr> {
    let direct = contact.direct.iter().copied().map(TransportAddr::Ip);
    let relay = contact.relay.as_ref().and_then(|url| url.parse().ok()).map(TransportAddr::Relay);
    Some(EndpointAddr::from_parts(endpoint_id(&contact.node)?, direct.chain(relay)))
}

fn contact(addr: &EndpointAddr) -> Contact {
    let mut direct: Vec<SocketAddr> = addr.ip_addrs().copied().collect();
    direct.truncate(Contact::MAX_DIRECT);
    let relay = addr.relay_urls().next().map(ToString::to_string).filter(|url| url.len() <= Contact::MAX_RELAY);
    Contact { node: node_id(addr.id), direct, relay }
}

//! The protocols that nodes speak, by name and version; must not know any of them.

/// Admission: the only one open to strangers.
pub(crate) const ADMIT: &[u8] = b"mesh-llm/admit/1";
/// Anti-entropy and probes.
pub(crate) const MESH: &[u8] = b"mesh-llm/mesh/1";
/// Generations.
pub(crate) const INFER: &[u8] = mesh_proto::infer::ALPN;
/// The fast path of records.
pub(crate) const GOSSIP: &[u8] = iroh_gossip::ALPN;

/// Who has which model files.
pub(crate) const FILES: &[u8] = mesh_proto::files::ALPN;
/// Their bytes.
pub(crate) const BLOBS: &[u8] = iroh_blobs::ALPN;

/// What a node's record says it speaks.
pub(crate) fn all(shares: bool) -> Vec<String> {
    let files: &[&[u8]] = if shares { &[FILES, BLOBS] } else { &[] };
    [ADMIT, MESH, INFER, GOSSIP].iter().chain(files).map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

/// Whether a protocol is for members that may serve only.
pub(crate) fn is_between_servers(alpn: &[u8]) -> bool {
    alpn == FILES || alpn == BLOBS
}

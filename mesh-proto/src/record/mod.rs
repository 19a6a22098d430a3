//! What a node says of itself, signed; must not know what others say of it.
//!
//! A [`Record`] is published whole each time something in it changes, and at the latest after half its
//! lifetime. `incarnation` is the node's start (its wall clock then), `sequence` counts within it; together they
//! order a node's records ([`Version`]). Whoever receives one checks it alone: [`Checker`].

mod check;
mod model;

pub use check::{Checker, RecordRefusal};
pub use model::{
    Capabilities, Claim, Demand, Load, MAX_NAME, ModelIdentity, ModelState, PrefixSketch, Recommended, ServedModel,
};

use serde::{Deserialize, Serialize};

use crate::{
    codec::{CapError, Ext, Wire, cap},
    identity::{CertChain, Contact, MeshId, NodeId, Signable},
    time::{Millis, UnixMillis},
};

/// Orders a node's records: the later start first, then the later record of one start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// The node's start: its wall clock then, in milliseconds; raised by one to refute an accusation.
    pub incarnation: u64,
    /// Counts from 0 within an incarnation.
    pub sequence: u64,
}

/// What a node's build is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// The release, e.g. `0.1.0`.
    pub release: String,
    /// ALPNs that it answers, e.g. `mesh-llm/infer/1`.
    pub protocols: Vec<String>,
}

/// A node's memory for models, in bytes. Where the GPU has its own, that one's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// What models may take in all.
    pub budget: u64,
    /// Of that, what is not taken.
    pub free: u64,
    /// What the device reads per second, for placement; 0: unknown.
    pub bandwidth: u64,
}

/// One node's word on itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Of which mesh it is a member.
    pub mesh: MeshId,
    /// Who speaks, and has to have signed.
    pub node: NodeId,
    /// Which of its records this is.
    pub version: Version,
    /// When it was signed, by the node's wall clock.
    pub issued_at: UnixMillis,
    /// How long it stands without a newer one, [`Record::MIN_LIFETIME`] to [`Record::MAX_LIFETIME`].
    pub lifetime: Millis,
    /// That it is a member.
    pub chain: CertChain,
    /// What it runs.
    pub build: Build,
    /// Where it can be reached.
    pub contact: Contact,
    /// It serves what it has begun, and takes nothing new.
    pub draining: bool,
    /// For models.
    pub memory: Memory,
    /// What it serves, or holds on disk.
    pub models: Vec<ServedModel>,
    /// What was asked of it, of which models.
    pub demand: Vec<Demand>,
    /// Which models it claims to host for the mesh.
    pub claims: Vec<Claim>,
    /// Which prefixes lie in its KV caches.
    pub prefixes: Vec<PrefixSketch>,
    /// Later additions.
    pub ext: Ext,
}

impl Record {
    /// Most models. With the byte limit, a machine with 64 models on disk still fits.
    pub const MAX_MODELS: usize = 64;
    /// Most models with demand; the ones asked for most.
    pub const MAX_DEMAND: usize = 64;
    /// Most claims.
    pub const MAX_CLAIMS: usize = 64;
    /// Most sketches.
    pub const MAX_SKETCHES: usize = 32;
    /// Most ALPNs.
    pub const MAX_PROTOCOLS: usize = 16;
    /// The least lifetime. Below it, clocks' and queues' jitter would kill the living.
    pub const MIN_LIFETIME: Millis = Millis::secs(2);
    /// The greatest lifetime: 3.5 announcements of a mesh of 10,000 ([`announce_every`]). Cost: how long a node
    /// that nobody watches is believed after its end.
    pub const MAX_LIFETIME: Millis = Millis::secs(700);
    /// Announcements of one lifetime, times two: 3.5 of them, so that three lost in a row do no harm.
    const LIFETIME_IN_HALVES: u64 = 7;

    /// The lifetime of records that are announced every so often.
    pub fn lifetime_for(announce: Millis) -> Millis {
        let lifetime = Millis(announce.0.saturating_mul(Self::LIFETIME_IN_HALVES) / 2);
        lifetime.clamp(Self::MIN_LIFETIME, Self::MAX_LIFETIME)
    }
}

/// How often a node of a mesh of `nodes` says that it is there, when nothing changes. 2 s, and from 100 nodes on
/// `nodes`/50 s, so that what a node receives stays below 50 records a second (some 40 kB/s) whatever the
/// mesh's size. Origin: iroh.md 6.3. Cost: in big meshes loads are known later.
pub fn announce_every(nodes: usize) -> Millis {
    Millis((nodes as u64).saturating_mul(20).clamp(2_000, 200_000))
}

/// When the next one of these is due: up to an eighth sooner, by a number that was drawn. Where many spoke at once, as when a
/// cut has healed, they would do so again each time. Cost: a sixteenth more records.
pub fn announce_next(every: Millis, drawn: u64) -> Millis {
    every - Millis(drawn % (every.0 / 8 + 1))
}

impl Wire for Record {
    const NAME: &'static str = "record";
    /// So that a record with its signature and age fits iroh-gossip's 16 KiB, whose own oversize trap is silent.
    const LIMIT: usize = 15 * 1024;

    fn check(&self) -> Result<(), CapError> {
        cap("models", self.models.len(), Self::MAX_MODELS)?;
        cap("demand", self.demand.len(), Self::MAX_DEMAND)?;
        cap("claims", self.claims.len(), Self::MAX_CLAIMS)?;
        cap("prefixes", self.prefixes.len(), Self::MAX_SKETCHES)?;
        cap("protocols", self.build.protocols.len(), Self::MAX_PROTOCOLS)?;
        cap("release", self.build.release.len(), MAX_NAME)?;
        self.build.protocols.iter().try_for_each(|name| cap("protocol", name.len(), MAX_NAME))?;
        self.contact.check()?;
        self.models.iter().try_for_each(ServedModel::check)?;
        self.demand.iter().try_for_each(|demand| cap("demand model", demand.model.as_str().len(), MAX_NAME))?;
        self.claims.iter().try_for_each(|claim| claim.ext.check())?;
        self.prefixes.iter().try_for_each(PrefixSketch::check)?;
        self.ext.check()
    }
}

impl Signable for Record {
    const DOMAIN: &'static str = "mesh-llm record v1";
}

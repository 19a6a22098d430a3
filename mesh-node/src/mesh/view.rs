//! The mesh as this node sees it now, for the router, the API and the operator; must not know how it came to be.

use std::{collections::BTreeMap, sync::Arc};

use mesh_proto::{
    ModelId,
    identity::{Contact, MeshId, NodeId},
    placement::ModelKey,
    record::{ModelState, Record, ServedModel},
    routing::Candidate,
    suspicion::Health,
};

/// How far this node is with its mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Joining {
    /// It founded the mesh.
    Founded,
    /// It is asking to be let in.
    Joining {
        /// What went wrong last.
        last_error: Option<String>,
    },
    /// It is a member.
    Joined,
}

/// Another node.
#[derive(Clone, Debug)]
pub struct Peer {
    /// What it says of itself.
    pub record: Arc<Record>,
    /// What the failure detector says of it; none: not watched.
    pub health: Option<Health>,
    /// Whether there is a connection.
    pub linked: bool,
}

impl Peer {
    /// Whether it may be asked now: not dead, not gone.
    pub fn may_be_asked(&self) -> bool {
        !matches!(self.health, Some(Health::Dead { .. } | Health::Left))
    }
}

/// A model of the mesh, all its owners together.
#[derive(Clone, Debug)]
pub struct MeshModel {
    /// The first owner's word on it, of those that answer.
    pub served: ServedModel,
    /// How many nodes answer for it.
    pub owners: usize,
    /// The largest context among them.
    pub context_tokens: u32,
}

/// A snapshot.
#[derive(Clone, Debug)]
pub struct View {
    /// This node.
    pub me: NodeId,
    /// Its mesh.
    pub mesh: MeshId,
    /// What people call it.
    pub name: String,
    /// How far it is.
    pub joining: Joining,
    /// This node takes nothing new.
    pub draining: bool,
    /// The others whose records stand.
    pub peers: BTreeMap<NodeId, Peer>,
    /// Who of the others answers for what.
    pub candidates: Vec<Candidate>,
    /// How often each reason turned something away, by label.
    pub counters: BTreeMap<String, u64>,
}

impl View {
    pub(crate) fn new(me: NodeId, mesh: MeshId, name: String, joining: Joining) -> Self {
        Self {
            me,
            mesh,
            name,
            joining,
            draining: false,
            peers: BTreeMap::new(),
            candidates: Vec::new(),
            counters: BTreeMap::new(),
        }
    }

    /// Where a node can be reached.
    pub fn contact(&self, node: &NodeId) -> Option<&Contact> {
        self.peers.get(node).map(|peer| &peer.record.contact)
    }

    /// A node's word on a model that it answers for.
    pub fn served(&self, node: &NodeId, model: ModelKey) -> Option<&ServedModel> {
        let record = &self.peers.get(node)?.record;
        record.models.iter().find(|served| served.state == ModelState::Ready && served.identity.key() == model)
    }

    /// Whether another node that may be asked answers for this model.
    pub fn others_serve(&self, model: ModelKey) -> bool {
        self.candidates.iter().any(|candidate| candidate.model == model && !candidate.draining && !candidate.suspect)
    }

    /// Whether some other node could come to serve a model of this name: it loads it, or has its files.
    pub fn may_come(&self, name: &ModelId) -> bool {
        let coming = |served: &ServedModel| {
            served.id == *name && matches!(served.state, ModelState::OnDisk | ModelState::Loading)
        };
        let askable = self.peers.values().filter(|peer| peer.may_be_asked() && !peer.record.draining);
        askable.flat_map(|peer| &peer.record.models).any(coming)
    }

    /// The others' models, each once by name, with how many nodes answer for it.
    pub fn models(&self) -> BTreeMap<ModelId, MeshModel> {
        let mut models: BTreeMap<ModelId, MeshModel> = BTreeMap::new();
        for candidate in self.candidates.iter().filter(|candidate| !candidate.draining) {
            let Some(served) = self.served(&candidate.node, candidate.model) else { continue };
            let model = models.entry(candidate.name.clone()).or_insert_with(|| MeshModel {
                served: served.clone(),
                owners: 0,
                context_tokens: 0,
            });
            model.owners += 1;
            model.context_tokens = model.context_tokens.max(candidate.context_tokens);
        }
        models
    }
}

//! What the placement needs to know of a node, and no more; must not know records.

use super::{Claim, ModelKey, Weight};
use crate::identity::NodeId;

/// One node, as its newest record says. It replaces the one before; what it no longer lists is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostView {
    /// Who says it, of itself.
    pub node: NodeId,
    /// It stops soon: hosts nothing new, and what it hosts is vacant.
    pub draining: bool,
    /// The models it has files of.
    pub models: Vec<ModelView>,
}

/// One model at one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelView {
    /// The model.
    pub model: ModelKey,
    /// Loaded, and answering.
    pub ready: bool,
    /// How much of it the node can take; 0: it cannot load it now.
    pub weight: Weight,
    /// The place it says is its own.
    pub claim: Option<Claim>,
}

//! The management API's JSON; must not know where it comes from.

use std::collections::BTreeMap;

use catalog::Format;
use mesh_proto::identity::{MemberRole, NodeId};
use serde::{Deserialize, Serialize};

/// `GET /api/status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The release.
    pub version: String,
    /// The OpenAI API's address, to be typed into a client.
    pub api: String,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// It ends its answers and takes nothing new.
    pub stopping: bool,
    /// Generations running, over all models.
    pub running: u32,
    /// Generations waiting, over all models.
    pub waiting: u32,
    /// The node's own models.
    pub models: Vec<LocalModelStatus>,
    /// The mesh, if it is in one.
    pub mesh: Option<MeshStatus>,
}

/// A model of this node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LocalModelStatus {
    /// The name that clients use.
    pub id: String,
    /// `on_disk`, `loading`, `ready` or `failed`.
    pub state: String,
    /// Why it failed.
    pub error: Option<String>,
    /// The operator wants it in memory; no election unloads it.
    pub pinned: bool,
    /// Who computes it, e.g. `mlx`.
    pub engine: String,
    /// E.g. `qwen3`.
    pub family: String,
    /// E.g. `4-bit affine, group 32`.
    pub quantization: String,
    /// Most tokens of prompt and answer together.
    pub context_tokens: u32,
    /// Bytes of weights, as stored.
    pub weight_bytes: u64,
    /// Generations running.
    pub running: u32,
    /// Generations waiting.
    pub waiting: u32,
    /// What can be asked of it, once it answers: `chat`, `tools`, `reasoning`, `embeddings`, `rerank`.
    #[serde(default)]
    pub capabilities: Vec<String>,
}

/// The mesh, from here.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct MeshStatus {
    /// What people call it.
    pub name: String,
    /// Its id, hexadecimal.
    pub id: String,
    /// This node's id, hexadecimal.
    pub node: String,
    /// This node's role.
    pub role: Role,
    /// How far this node is with it.
    pub joining: Joining,
    /// The others.
    pub peers: Vec<PeerStatus>,
    /// All models of the mesh.
    pub models: Vec<MeshModelStatus>,
    /// What was counted, by label.
    pub counters: BTreeMap<String, u64>,
}

/// What a member may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Serve models, and ask.
    #[default]
    Serve,
    /// Ask.
    Client,
}

impl From<MemberRole> for Role {
    fn from(role: MemberRole) -> Self {
        match role {
            MemberRole::Serve => Self::Serve,
            MemberRole::Client => Self::Client,
        }
    }
}

impl From<Role> for MemberRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Serve => Self::Serve,
            Role::Client => Self::Client,
        }
    }
}

/// How far a node is with its mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Joining {
    /// It is the first one.
    Founded,
    /// It is not in yet.
    Joining {
        /// What went wrong last.
        last_error: Option<String>,
    },
    /// It is in.
    #[default]
    Joined,
}

/// Another node.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its id, hexadecimal.
    pub id: String,
    /// In a word: `alive`, `suspect`, `dead`.
    pub health: String,
    /// Its role.
    pub role: Role,
    /// How packets get there; `None`: no connection.
    pub path: Option<Path>,
    /// The path's round trip.
    pub rtt_ms: Option<f64>,
    /// Models that it answers for.
    pub models: Vec<String>,
    /// Its release.
    pub version: String,
}

/// How packets get to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Path {
    /// Straight.
    Direct,
    /// Over a relay.
    Relay,
}

/// A model of the mesh.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct MeshModelStatus {
    /// The name that clients use.
    pub id: String,
    /// Ids of the nodes that answer for it, this one's among them.
    pub owners: Vec<String>,
    /// Most tokens of prompt and answer together, on the roomiest of them.
    pub context_tokens: u32,
}

/// `POST /api/load`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadOrder {
    /// A name, or a folder or file of the node's machine.
    pub model: String,
    /// Which engine's files, where it has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<ModelFormat>,
}

/// Which engine's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelFormat {
    /// MLX, in the node's process.
    Mlx,
    /// llama-server.
    Gguf,
}

impl From<ModelFormat> for Format {
    fn from(format: ModelFormat) -> Self {
        match format {
            ModelFormat::Mlx => Self::Mlx,
            ModelFormat::Gguf => Self::Gguf,
        }
    }
}

impl From<Format> for ModelFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Mlx => Self::Mlx,
            Format::Gguf => Self::Gguf,
        }
    }
}

/// `POST /api/unload`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelOrder {
    /// A name, or a folder of the node's machine.
    pub model: String,
}

/// `POST /api/tickets`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TicketOrder {
    /// What who comes with it may do.
    #[serde(default)]
    pub role: Role,
    /// For how many nodes; `None`: any number.
    #[serde(default)]
    pub uses: Option<u32>,
    /// For how long, from now. A day where nothing is said.
    #[serde(default = "a_day")]
    pub lifetime_s: u64,
    /// Who comes with it may make tickets.
    #[serde(default)]
    pub admits: bool,
    /// For this node only; its id, hexadecimal.
    #[serde(default, with = "id_text")]
    pub node: Option<NodeId>,
}

fn a_day() -> u64 {
    24 * 3600
}

/// A ticket that was just made.
#[derive(Clone, Serialize, Deserialize)]
pub struct IssuedTicket {
    /// Its name, for `show` and `revoke`.
    pub id: String,
    /// Until when it lets somebody in, Unix seconds.
    pub expires_at: u64,
    /// Itself. Whoever reads it may join.
    pub ticket: String,
}

/// `GET /api/tickets/{id}`.
#[derive(Clone, Serialize, Deserialize)]
pub struct ShownTicket {
    /// Itself. Whoever reads it may join.
    pub ticket: String,
}

/// A ticket, without its secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TicketInfo {
    /// Its name.
    pub id: String,
    /// What who comes with it may do.
    pub role: Role,
    /// Who comes with it may make tickets.
    pub admits: bool,
    /// How many nodes came with it.
    pub used: u32,
    /// For how many it is; `None`: any number.
    pub uses: Option<u32>,
    /// When it was made, Unix seconds.
    pub made_at: u64,
    /// Until when it lets somebody in, Unix seconds.
    pub expires_at: u64,
    /// For this node only.
    pub node: Option<String>,
}

/// What is wrong, as the API tells it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Problem {
    pub(super) error: ProblemText,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ProblemText {
    pub(super) message: String,
}

/// Ids as people and programs write them, not as 32 numbers.
mod id_text {
    use mesh_proto::identity::NodeId;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(id: &Option<NodeId>, to: S) -> Result<S::Ok, S::Error> {
        id.as_ref().map(ToString::to_string).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<NodeId>, D::Error> {
        let text: Option<String> = Deserialize::deserialize(from)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_may_be_empty_and_may_not_be_misspelt() {
        let order: TicketOrder = serde_json::from_str("{}").unwrap();
        assert_eq!(order, TicketOrder { role: Role::Serve, uses: None, lifetime_s: 86_400, admits: false, node: None });
        let full = TicketOrder { node: Some(NodeId([7; 32])), role: Role::Client, ..order };
        let json = serde_json::to_string(&full).unwrap();
        assert!(json.contains(&"07".repeat(32)) && json.contains("\"client\""), "{json}");
        assert_eq!(serde_json::from_str::<TicketOrder>(&json).unwrap(), full);
        assert!(serde_json::from_str::<TicketOrder>(r#"{"use":1}"#).is_err());
        assert!(serde_json::from_str::<TicketOrder>(r#"{"node":"me"}"#).is_err());
    }
}

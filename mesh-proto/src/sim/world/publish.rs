//! What a node says of itself, and what a liar says; must not know who believes it.

use rand::RngExt;

use super::{World, node::Node, plan::Lying};
use crate::{
    ModelId,
    codec::Ext,
    directory,
    identity::{Contact, MeshId, Signed},
    placement::{self, HostView, MAX_WEIGHT, TERM_CEILING, Weight, weight},
    record::{
        Build, Capabilities, Claim, Demand, Load, ModelIdentity, ModelState, Recommended, Record, ServedModel, Version,
        announce_every, announce_next,
    },
};

/// What a model takes. Two of them fit on most nodes.
const MODEL_BYTES: u64 = 1 << 32;

/// What the world's `number`th model is.
pub(super) fn identity(number: usize) -> ModelIdentity {
    let content = *blake3::hash(&(number as u64).to_le_bytes()).as_bytes();
    ModelIdentity {
        repository: format!("org/model-{number}"),
        revision: "0123456789abcdef0123456789abcdef01234567".into(),
        quantization: "4-bit affine, group 64".into(),
        content,
    }
}

pub(super) fn name(number: usize) -> ModelId {
    ModelId::new(format!("model-{number}"))
}

fn served(number: usize, state: ModelState, load: Load) -> ServedModel {
    ServedModel {
        id: name(number),
        identity: identity(number),
        engine: "mlx".into(),
        family: "qwen3".into(),
        state,
        context_tokens: 32_768,
        max_concurrency: 8,
        weight_bytes: MODEL_BYTES,
        capabilities: Capabilities::CHAT,
        vocab_size: 150_000,
        created: 0,
        defaults: Recommended::default(),
        load,
        ext: Ext::default(),
    }
}

impl World {
    /// Signs and publishes the node's present word.
    pub(super) fn publish(&mut self, at: usize) {
        let now = self.clock(at);
        let node = &mut self.nodes[at];
        node.dirty = false;
        let demand = node.own.meter.report(now.local);
        let size = if self.plan.warm && node.life == 1 { self.plan.nodes } else { node.own.directory.len() };
        let every = announce_every(size.max(1));
        let mut record = Record {
            mesh: MeshId::of(&node.chain.root),
            node: node.id,
            version: node.version,
            issued_at: now.unix,
            lifetime: Record::lifetime_for(every),
            chain: node.chain.clone(),
            build: Build { release: "0.1.0".into(), protocols: vec!["mesh-llm/infer/1".into()] },
            contact: Contact {
                node: node.id,
                direct: vec![([192, 168, (at >> 8) as u8, at as u8], 4001).into()],
                relay: None,
            },
            draining: node.leaving,
            memory: node.memory,
            models: Vec::new(),
            demand: Vec::new(),
            claims: Vec::new(),
            prefixes: Vec::new(),
            ext: Ext::default(),
        };
        record.demand = demand
            .into_iter()
            .map(|line| Demand { model: line.model, requests_per_kilosecond: u64::from(line.millis) })
            .collect();
        let view = node.own.placement.view();
        record.claims = view.record_claims();
        for number in &node.offers {
            record.models.push(served(*number, state(node, &view, self.keys[*number]), Load::default()));
        }
        lie(&mut record, node.lie, self.plan.models, now.local.0 / 1000);
        let Ok(signed) = Signed::sign(&record, &node.key) else {
            return self.breaks(format!("node {at} cannot sign its own record"));
        };
        node.said.entry(record.version).or_default().push(signed.clone());
        if self.plan.warm && node.said.len() > 64 {
            node.said.pop_first();
        }
        node.version = Version { sequence: node.version.sequence + 1, ..node.version };
        node.next_record = now.local + announce_next(every, self.rng.random());
        self.nodes[at].said_at = self.now();
        self.directory(at, directory::Input::Own(signed));
    }

    /// Tells the node's own placement what models there are, weighed as all others weigh them.
    pub(super) fn offer(&mut self, at: usize) {
        let prototype = |number: usize| {
            let node = &self.nodes[at];
            let served = served(number, ModelState::OnDisk, Load::default());
            let record = Record {
                mesh: MeshId::of(&node.chain.root),
                node: node.id,
                version: node.version,
                issued_at: Default::default(),
                lifetime: Record::MIN_LIFETIME,
                chain: node.chain.clone(),
                build: Build::default(),
                contact: Contact { node: node.id, direct: Vec::new(), relay: None },
                draining: false,
                memory: node.memory,
                models: Vec::new(),
                demand: Vec::new(),
                claims: Vec::new(),
                prefixes: Vec::new(),
                ext: Ext::default(),
            };
            weight(&record, &served)
        };
        let offers: Vec<(usize, Weight)> =
            self.nodes[at].offers.iter().map(|number| (*number, prototype(*number))).collect();
        for (number, weight) in offers {
            let model = self.keys[number];
            self.placement(at, placement::Input::Offer { model, pinned: false, weight });
        }
    }
}

fn state(node: &Node, view: &HostView, model: placement::ModelKey) -> ModelState {
    match view.models.iter().find(|said| said.model == model) {
        Some(said) if said.ready => ModelState::Ready,
        _ if node.loading.contains(&model) => ModelState::Loading,
        Some(said) if said.weight.0 == 0 => ModelState::Failed,
        _ => ModelState::OnDisk,
    }
}

fn lie(record: &mut Record, how: Option<Lying>, models: usize, second: u64) {
    let claim = |number: usize, serving: bool| Claim {
        model: identity(number).key(),
        slot: 0,
        term: TERM_CEILING.0,
        weight: MAX_WEIGHT.0,
        serving,
        ext: Ext::default(),
    };
    let all = 0..models.min(Record::MAX_CLAIMS / 8);
    match how {
        Some(Lying::Serves) => {
            record.models = all.clone().map(|number| served(number, ModelState::Ready, Load::default())).collect();
            record.claims = all.map(|number| claim(number, true)).collect();
        }
        Some(Lying::Loads) => {
            record.models = all.clone().map(|number| served(number, ModelState::Loading, Load::default())).collect();
            record.claims = all.map(|number| claim(number, false)).collect();
        }
        Some(Lying::LoadsAnew) => {
            record.models = all.clone().map(|number| served(number, ModelState::Loading, Load::default())).collect();
            let term = (1 << 39) + second / 30;
            let claims = all.filter(|_| second % 60 > 2).map(|number| Claim { term, ..claim(number, false) });
            record.claims = claims.collect();
        }
        Some(Lying::Idle) => {
            record.memory = crate::record::Memory { budget: u64::MAX, free: u64::MAX >> 1, bandwidth: u64::MAX };
            let load = Load { tokens_per_kilosecond: u64::MAX, free_kv_bytes: u64::MAX, ..Load::default() };
            record.models.iter_mut().for_each(|model| model.load = load);
        }
        Some(Lying::Accuses | Lying::Forges) | None => {}
    }
}

//! What this node says of itself: its record, built from its models and their loads; must not know who reads it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use mesh_proto::{
    codec::{CodecError, Ext},
    demand::ModelDemand,
    identity::{CertChain, Contact, MeshId, NodeKey, Signed},
    placement::ModelKey,
    record::{
        Build, Capabilities, Claim, Demand, Load, Memory, ModelState, PrefixSketch, Recommended, Record, ServedModel,
        Version,
    },
    routing::{PrefixChain, SessionKey, SketchKeeper},
    time::{Millis, UnixMillis},
};
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use super::{alpn, clock};
use crate::local::{LocalEngines, LocalModel, LocalState};

/// Which prompts the KV caches of this node's models hold, about. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sketches(Arc<Mutex<BTreeMap<ModelKey, SketchKeeper>>>);

impl Sketches {
    /// This prompt has been read here.
    pub(crate) fn cached(&self, model: ModelKey, prompt: &PrefixChain, session: Option<SessionKey>) {
        let mut keepers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keepers.entry(model).or_default().cached(prompt, session);
    }

    /// What a model's sketch says now.
    pub(crate) fn sketch(&self, model: ModelKey) -> mesh_proto::routing::Sketch {
        let keepers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keepers.get(&model).map(SketchKeeper::sketch).unwrap_or_default()
    }

    fn published(&self, model: ModelKey) -> Option<PrefixSketch> {
        let sketch = self.sketch(model);
        (sketch.hashes().next().is_some()).then(|| sketch.for_record(model))
    }
}

/// What the record says beside the models.
pub(crate) struct Words {
    pub(crate) mesh: MeshId,
    pub(crate) version: Version,
    pub(crate) issued_at: UnixMillis,
    pub(crate) lifetime: Millis,
    pub(crate) chain: CertChain,
    pub(crate) contact: Contact,
    pub(crate) draining: bool,
    pub(crate) demand: Vec<ModelDemand>,
    pub(crate) claims: Vec<Claim>,
    /// A client's record has no models.
    pub(crate) serves: bool,
}

/// How quick each model is, from one record to the next.
#[derive(Debug, Default)]
struct Pace(BTreeMap<ModelKey, (u64, Millis, u64)>);

impl Pace {
    /// Less time than this between two looks tells nothing.
    const LEAST: Millis = Millis(500);

    /// Tokens per 1000 seconds, all rows together; while nothing runs, what it was before.
    fn per_kilosecond(&mut self, model: ModelKey, tokens: u64) -> u64 {
        let now = clock::local();
        let (before, since, pace) = self.0.entry(model).or_insert((tokens, now, 0));
        let elapsed = now.since(*since);
        if elapsed >= Self::LEAST {
            let fresh = tokens.saturating_sub(*before).saturating_mul(1_000_000) / elapsed.0;
            if fresh > 0 {
                *pace = fresh;
            }
            (*before, *since) = (tokens, now);
        }
        *pace
    }
}

/// The maker of this node's records.
#[derive(Debug)]
pub(crate) struct Own {
    sketches: Sketches,
    pace: Pace,
    /// Absent where the system does not tell of its memory.
    system: Option<System>,
    /// What models may take; the machine's memory where nothing was said.
    budget: Option<u64>,
    /// It gives model files to others.
    shares: bool,
}

impl Own {
    pub(crate) fn new(sketches: Sketches, budget: Option<u64>, shares: bool) -> Self {
        let memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
        Self { sketches, pace: Pace::default(), system: System::new_with_specifics(memory).ok(), budget, shares }
    }

    /// The record, and the same signed. Of what does not fit a record, sketches go first, then models on disk.
    ///
    /// # Errors
    /// When it does not fit even so.
    pub(crate) fn sign(
        &mut self,
        words: Words,
        locals: &LocalEngines,
        key: &NodeKey,
    ) -> Result<(Record, Signed<Record>), CodecError> {
        let mut record = self.record(words, locals, key);
        loop {
            match Signed::sign(&record, key) {
                Ok(signed) => return Ok((record, signed)),
                Err(_) if record.prefixes.pop().is_some() => {}
                Err(_) if drop_one_on_disk(&mut record.models) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn memory(&mut self) -> Memory {
        let Some(system) = &mut self.system else { return Memory::default() };
        system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        let budget = self.budget.unwrap_or(system.total_memory());
        Memory { budget, free: system.available_memory().min(budget), bandwidth: 0 }
    }

    fn record(&mut self, words: Words, locals: &LocalEngines, key: &NodeKey) -> Record {
        let all = locals.all();
        let listed = || all.values().filter(|_| words.serves).take(Record::MAX_MODELS);
        let models: Vec<ServedModel> = listed().map(|model| served(model, &mut self.pace)).collect();
        let answering = listed().filter(|model| model.served().is_some());
        let prefixes = answering.filter_map(|model| self.sketches.published(model.key())).take(Record::MAX_SKETCHES);
        let prefixes = prefixes.collect();
        let memory = self.memory();
        Record {
            mesh: words.mesh,
            node: key.id(),
            version: words.version,
            issued_at: words.issued_at,
            lifetime: words.lifetime,
            chain: words.chain,
            build: Build { release: env!("CARGO_PKG_VERSION").into(), protocols: alpn::all(self.shares) },
            contact: words.contact,
            draining: words.draining,
            memory,
            models,
            demand: words
                .demand
                .into_iter()
                .take(Record::MAX_DEMAND)
                .map(|said| Demand { model: said.model, requests_per_kilosecond: said.millis.into() })
                .collect(),
            claims: if words.serves { words.claims } else { Vec::new() },
            prefixes,
            ext: Ext::default(),
        }
    }
}

fn drop_one_on_disk(models: &mut Vec<ServedModel>) -> bool {
    let last = models.iter().rposition(|model| !matches!(model.state, ModelState::Ready | ModelState::Loading));
    last.map(|at| models.remove(at)).is_some()
}

fn served(model: &LocalModel, pace: &mut Pace) -> ServedModel {
    let facts = &model.facts;
    let said = ServedModel {
        id: model.id.clone(),
        identity: facts.identity.clone(),
        engine: facts.engine.clone(),
        family: facts.family.clone(),
        state: state(&model.state),
        context_tokens: facts.context_tokens,
        max_concurrency: 0,
        weight_bytes: facts.weight_bytes,
        capabilities: Capabilities::default(),
        vocab_size: 0,
        created: 0,
        defaults: Recommended::default(),
        load: Load::default(),
        ext: Ext::default(),
    };
    let Some(answering) = model.served() else { return said };
    let tokens_per_kilosecond = pace.per_kilosecond(model.key(), answering.engine.load().tokens);
    let (descriptor, load) = (answering.descriptor(), answering.engine.load());
    ServedModel {
        context_tokens: descriptor.context_tokens,
        family: descriptor.family.clone(),
        max_concurrency: answering.max_concurrency,
        capabilities: answering.capabilities,
        vocab_size: descriptor.vocab_size,
        created: descriptor.created,
        defaults: Recommended::of(&answering.defaults),
        load: Load {
            in_flight: load.running,
            queued: load.waiting,
            free_kv_bytes: load.kv_budget_bytes.saturating_sub(load.kv_bytes),
            tokens_per_kilosecond,
            ttft_ms: load.ttft_ms,
        },
        ..said
    }
}

pub(crate) fn state(state: &LocalState) -> ModelState {
    match state {
        LocalState::OnDisk => ModelState::OnDisk,
        LocalState::Loading => ModelState::Loading,
        LocalState::Ready(_) => ModelState::Ready,
        LocalState::Failed(_) => ModelState::Failed,
    }
}

//! The placement machine of one node: inputs in, effects out; must not know how either travels.

use std::collections::{BTreeMap, VecDeque};

use super::{
    Claim, HostView, Lease, ModelKey, StepDown, WARM_UP, Weight,
    model::{ModelState, Outcome, Situation},
};
use crate::{identity::NodeId, time::Millis};

/// What the machine is told. Times are the caller's monotonic clock.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// This node has the model's files. `pinned`: its operator named it, so it stays loaded whatever the
    /// elections say.
    Offer {
        /// The model.
        model: ModelKey,
        /// Never unloaded by elections.
        pinned: bool,
        /// What the node can take of it.
        weight: Weight,
    },
    /// The files are gone.
    Withdraw(ModelKey),
    /// The node can take more or less of an offered model.
    Weighed(ModelKey, Weight),
    /// The mesh's demand for a model, requests per second. Feed it as it changes, and every few seconds as it decays.
    Demand(ModelKey, f64),
    /// A peer's newest view of itself.
    Peer(HostView),
    /// A peer is dead or expelled.
    Gone(NodeId),
    /// A peer does not do what it claims, as this node saw itself; it does not count until then.
    Shun(NodeId, Millis),
    /// The model is loaded and answers.
    Loaded(ModelKey),
    /// Loading failed, or the engine died.
    Failed(ModelKey),
    /// The last request of a model that was stepped down from has ended.
    Drained(ModelKey),
    /// This node stops: give up every place.
    Drain,
    /// The time of [`Placement::next_wakeup`] has come.
    Wake,
}

/// What the caller is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// [`Placement::view`] has changed: publish it, at once.
    Announce,
    /// Load the model and say [`Input::Loaded`] or [`Input::Failed`].
    Load(ModelKey),
    /// Take no new requests as a host for the model, let the running ones end, then say [`Input::Drained`].
    /// Where the reason carries a winner, forward that node's record with one's own.
    StepDown {
        /// The lease that was this node's.
        lease: Lease,
        /// Why.
        why: StepDown,
    },
    /// Free the model's memory.
    Unload(ModelKey),
}

/// The placement machine. Drive it with [`Placement::handle`], then take [`Placement::poll_effect`] until it
/// is `None`, then sleep until [`Placement::next_wakeup`].
#[derive(Clone, Debug)]
pub struct Placement {
    me: NodeId,
    warm_at: Millis,
    draining: bool,
    models: BTreeMap<ModelKey, ModelState>,
    peers: BTreeMap<NodeId, HostView>,
    shunned: BTreeMap<NodeId, Millis>,
    effects: VecDeque<Effect>,
}

impl Placement {
    /// A node that has just started and claims nothing before [`WARM_UP`] is over.
    pub fn new(me: NodeId, now: Millis) -> Self {
        Self {
            me,
            warm_at: now + WARM_UP,
            draining: false,
            models: BTreeMap::new(),
            peers: BTreeMap::new(),
            shunned: BTreeMap::new(),
            effects: VecDeque::new(),
        }
    }

    /// Takes one input.
    pub fn handle(&mut self, input: Input, now: Millis) {
        match input {
            Input::Offer { model, pinned, weight } => self.offer(model, pinned, weight, now),
            Input::Withdraw(model) => self.withdraw(model),
            Input::Weighed(model, weight) => self.with(model, now, |state| {
                let able = (state.weight.0 > 0) != (weight.0 > 0);
                state.weight = weight;
                able
            }),
            Input::Demand(model, rate) => self.with(model, now, |state| {
                state.rate = rate;
                false
            }),
            Input::Peer(view) => self.peer(view, now),
            Input::Gone(node) => self.gone(node, now),
            Input::Shun(node, until) => {
                self.shunned.insert(node, until);
                self.settle_all(now);
            }
            Input::Loaded(model) => self.loaded(model, now),
            Input::Failed(model) => self.with(model, now, |state| {
                state.failed(now);
                true
            }),
            Input::Drained(model) => {
                let idle = self.models.get(&model).is_some_and(|s| s.claim.is_none() && s.ready && !s.pinned);
                if idle {
                    self.unload(model);
                }
            }
            Input::Drain => {
                self.draining = true;
                self.effects.push_back(Effect::Announce);
                self.settle_all(now);
            }
            Input::Wake => self.settle_due(now),
        }
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When to send [`Input::Wake`]; `None`: not before the next input. Never earlier than the last `now`
    /// without work to do then.
    pub fn next_wakeup(&self) -> Option<Millis> {
        self.models.values().filter_map(ModelState::due).min()
    }

    /// What this node's record should say.
    pub fn view(&self) -> HostView {
        let models = self.models.values().map(ModelState::view).collect();
        HostView { node: self.me, draining: self.draining, models }
    }

    /// The places this node says are its own.
    pub fn claims(&self) -> impl Iterator<Item = (ModelKey, Claim)> + '_ {
        self.models.iter().filter_map(|(&model, state)| Some((model, state.claim?)))
    }

    /// Who holds `model` in this node's view, by place; empty for a model that it has no files of.
    pub fn leases(&self, model: ModelKey, now: Millis) -> Vec<Lease> {
        let at = situation(self.warm_at, self.draining, &self.shunned, now);
        self.models.get(&model).map(|state| state.holders(&at).into_values().collect()).unwrap_or_default()
    }

    /// Hosts that this node thinks `model` should have.
    pub fn hosts_wanted(&self, model: ModelKey) -> u8 {
        self.models.get(&model).map_or(0, ModelState::hosts_wanted)
    }

    fn offer(&mut self, model: ModelKey, pinned: bool, weight: Weight, now: Millis) {
        let at = situation(self.warm_at, self.draining, &self.shunned, now);
        let state = self.models.entry(model).or_insert_with(|| {
            let mut state = ModelState::new(model, self.me);
            for peer in self.peers.values() {
                if let Some(view) = peer.models.iter().find(|view| view.model == model) {
                    state.peer(peer.node, Some((view, peer.draining)), &at);
                }
            }
            state
        });
        state.pinned = pinned;
        state.weight = weight;
        self.effects.push_back(Effect::Announce);
        self.settle(model, now);
    }

    fn withdraw(&mut self, model: ModelKey) {
        if let Some(state) = self.models.remove(&model) {
            if let Some(claim) = state.claim {
                let lease = Lease { model, node: self.me, claim };
                self.effects.push_back(Effect::StepDown { lease, why: StepDown::Failed });
            }
            self.effects.push_back(Effect::Announce);
        }
    }

    fn peer(&mut self, view: HostView, now: Millis) {
        if view.node == self.me || self.peers.get(&view.node) == Some(&view) {
            return;
        }
        let at = situation(self.warm_at, self.draining, &self.shunned, now);
        let mut touched = Vec::new();
        for (model, state) in &mut self.models {
            let said = view.models.iter().find(|said| said.model == *model);
            state.peer(view.node, said.map(|said| (said, view.draining)), &at);
            touched.push(*model);
        }
        self.peers.insert(view.node, view);
        touched.into_iter().for_each(|model| self.settle(model, now));
    }

    fn gone(&mut self, node: NodeId, now: Millis) {
        if self.peers.remove(&node).is_some() {
            let at = situation(self.warm_at, self.draining, &self.shunned, now);
            self.models.values_mut().for_each(|state| state.peer(node, None, &at));
            self.settle_all(now);
        }
    }

    fn loaded(&mut self, model: ModelKey, now: Millis) {
        self.with(model, now, |state| {
            state.loaded();
            true
        });
        // The place was lost while it loaded.
        if self.models.get(&model).is_some_and(|state| state.claim.is_none() && !state.pinned) {
            self.unload(model);
        }
    }

    fn unload(&mut self, model: ModelKey) {
        if let Some(state) = self.models.get_mut(&model) {
            state.ready = false;
            self.effects.push_back(Effect::Unload(model));
            self.effects.push_back(Effect::Announce);
        }
    }

    fn with(&mut self, model: ModelKey, now: Millis, change: impl FnOnce(&mut ModelState) -> bool) {
        let Some(state) = self.models.get_mut(&model) else { return };
        if change(state) {
            self.effects.push_back(Effect::Announce);
        }
        self.settle(model, now);
    }

    fn settle_all(&mut self, now: Millis) {
        let models: Vec<ModelKey> = self.models.keys().copied().collect();
        models.into_iter().for_each(|model| self.settle(model, now));
    }

    fn settle_due(&mut self, now: Millis) {
        let due = self.models.iter().filter(|(_, state)| state.due().is_some_and(|at| at <= now));
        let models: Vec<ModelKey> = due.map(|(model, _)| *model).collect();
        self.shunned.retain(|_, until| *until > now);
        models.into_iter().for_each(|model| self.settle(model, now));
    }

    fn settle(&mut self, model: ModelKey, now: Millis) {
        let at = situation(self.warm_at, self.draining, &self.shunned, now);
        let Some(state) = self.models.get_mut(&model) else { return };
        while let Some(outcome) = state.settle(&at) {
            match outcome {
                Outcome::Claimed { load } => {
                    self.effects.extend(load.then_some(Effect::Load(model)));
                }
                Outcome::Left { claim, why } => {
                    let lease = Lease { model, node: self.me, claim };
                    self.effects.push_back(Effect::StepDown { lease, why });
                }
            }
            self.effects.push_back(Effect::Announce);
        }
    }
}

fn situation(warm_at: Millis, draining: bool, shunned: &BTreeMap<NodeId, Millis>, now: Millis) -> Situation<'_> {
    Situation { now, warm_at, draining, shunned }
}

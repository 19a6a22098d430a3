//! The order in which nodes are asked; must not know how asking goes.

use std::collections::BTreeSet;

use thiserror::Error;

use super::{BLOCK_BYTES, BreakerState, Candidate, Filtered, Reason, Targets, UNKNOWN_LATENCY, Wish};
use crate::{ModelId, identity::NodeId, time::Millis};

/// Estimates this near are the same, and the request's salt decides between them. Unit: milliseconds. Default: 10.
/// Origin: below what anybody feels, above the noise of a LAN. Cost of less: every door picks the same node.
pub const CLOSE_ENOUGH: f64 = 10.0;

/// What a known session is taken to save where no prefix matched: this part of the prompt's reading. Unit: none.
/// Default: 0.5. Origin: guess. Cost: a session whose KV is gone is still preferred, by half a prefill at most.
pub const SESSION_SAVES: f64 = 0.5;

/// Bytes of a prompt per token, to turn blocks into time. Origin: English with common vocabularies.
const BYTES_PER_TOKEN: f64 = 4.0;

/// Prompt tokens per second of a host that does not say. Origin: a 4 B model on a small Mac.
const PREFILL_GUESS: f64 = 500.0;

/// A node to ask, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The node, with what is known of it.
    pub candidate: Candidate,
    /// Why it stands where it stands.
    pub reason: Reason,
}

/// Who can answer, best first, and who cannot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routed {
    /// To be asked in this order.
    pub choices: Vec<Choice>,
    /// Serve a model by this name, but not this request.
    pub filtered: Vec<(NodeId, Filtered)>,
}

/// Why nobody can be asked.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum RouteError {
    /// Caller: no such model.
    #[error("no node serves a model named {asked}; there are: {}", list(.known))]
    UnknownModel {
        /// The name that was asked for.
        asked: ModelId,
        /// The names there are, each once, in order.
        known: Vec<ModelId>,
    },
    /// The model is there, and none of its hosts fits.
    #[error("no host of {asked} can take this request: {}", list_filtered(.filtered))]
    NoneFits {
        /// The name that was asked for.
        asked: ModelId,
        /// Each host, and why not.
        filtered: Vec<(NodeId, Filtered)>,
    },
}

fn list(known: &[ModelId]) -> String {
    if known.is_empty() { "none".into() } else { known.iter().map(ModelId::as_str).collect::<Vec<_>>().join(", ") }
}

fn list_filtered(filtered: &[(NodeId, Filtered)]) -> String {
    filtered.iter().map(|(node, why)| format!("{} ({why})", node.short())).collect::<Vec<_>>().join(", ")
}

/// Filters and orders. Whose breaker allows it goes before whose does not, the unsuspected before the suspected,
/// and then the least estimated time to the first token.
///
/// # Errors
/// [`RouteError::UnknownModel`] with the models there are; [`RouteError::NoneFits`] with each host's reason.
pub fn route(candidates: &[Candidate], wish: &Wish, targets: &Targets, now: Millis) -> Result<Routed, RouteError> {
    let mut routed = Routed::default();
    for candidate in candidates.iter().filter(|candidate| candidate.name == wish.name) {
        match candidate.unfit(wish) {
            Some(why) => routed.filtered.push((candidate.node, why)),
            None => routed.choices.push(choice(candidate, wish, targets, now)),
        }
    }
    if routed.choices.is_empty() {
        return Err(if routed.filtered.is_empty() {
            let known: BTreeSet<&ModelId> = candidates.iter().map(|candidate| &candidate.name).collect();
            RouteError::UnknownModel { asked: wish.name.clone(), known: known.into_iter().cloned().collect() }
        } else {
            RouteError::NoneFits { asked: wish.name.clone(), filtered: routed.filtered }
        });
    }
    routed.choices.sort_by_cached_key(|choice| {
        let reason = &choice.reason;
        let step = (reason.estimate_ms / CLOSE_ENOUGH) as u64;
        (
            last_resort(reason.breaker),
            reason.suspect,
            step,
            lot(wish.salt, choice.candidate.node),
            choice.candidate.node,
        )
    });
    Ok(routed)
}

/// First who may be asked: closed, and half-open without a probe, which would never be probed if it stood behind.
/// Then probes in flight, then open breakers, the soonest to open first.
fn last_resort(breaker: BreakerState) -> (u8, Millis) {
    match breaker {
        BreakerState::Closed | BreakerState::HalfOpen { probing: false } => (0, Millis(0)),
        BreakerState::HalfOpen { probing: true } => (1, Millis(0)),
        BreakerState::Open { until } => (2, until),
    }
}

fn choice(candidate: &Candidate, wish: &Wish, targets: &Targets, now: Millis) -> Choice {
    let matched = candidate.sketch.matched(&wish.prefix, wish.session);
    let outstanding = targets.outstanding(candidate.node);
    let load = candidate.load;
    let said = if load.ttft_ms == 0 { UNKNOWN_LATENCY.0 as f64 } else { f64::from(load.ttft_ms) };
    let latency_ms = targets.latency_ms(candidate.node).unwrap_or(said);
    let rate = if load.prefill_per_second == 0 { PREFILL_GUESS } else { f64::from(load.prefill_per_second) };
    let block_ms = BLOCK_BYTES as f64 / BYTES_PER_TOKEN / rate * 1000.0;
    let unread = (matched.of - matched.blocks) as f64;
    let saved = if matched.session && matched.blocks == 0 { SESSION_SAVES } else { 0.0 };
    // The record's count may or may not have this door's requests in it already: the greater is the better guess.
    let busy = f64::from((load.in_flight + load.queued).max(outstanding));
    let estimate_ms = latency_ms * (1.0 + busy / f64::from(load.slots.max(1))) + unread * (1.0 - saved) * block_ms;
    let breaker = targets.breaker(candidate.node, now);
    let suspect = candidate.suspect;
    let reason = Reason { matched, load, outstanding, latency_ms, estimate_ms, breaker, suspect };
    Choice { candidate: candidate.clone(), reason }
}

fn lot(salt: u64, node: NodeId) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&salt.to_le_bytes()).update(&node.0);
    let mut first = [0; 8];
    hasher.finalize_xof().fill(&mut first);
    u64::from_le_bytes(first)
}

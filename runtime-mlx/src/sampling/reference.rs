//! The same choices made on the host, one token after the other and in f64, to hold the device to; must not know MLX.
//!
//! Where a choice hangs on a difference that f32 cannot see, the reference says so ([`Expected::near`]), and nothing is
//! expected of it.

use std::collections::HashMap;

use super::{Row, Way, draw, way};

/// Differences below this are none. Relative, or in logits.
const NEAR: f64 = 2e-5;

/// What should be chosen.
pub(super) struct Expected {
    pub(super) token: u32,
    /// Something that it hangs on is too near to call.
    pub(super) near: bool,
}

struct Reference {
    near: bool,
}

impl Reference {
    /// Whether `a` is less than `b`.
    fn less(&mut self, a: f64, b: f64) -> bool {
        let scale = a.abs().max(b.abs()).max(1.0);
        self.near |= a.is_finite() && b.is_finite() && (a - b).abs() < NEAR * scale;
        a < b
    }
}

pub(super) fn expected(logits: &[f32], row: &Row<'_>) -> Expected {
    let mut reference = Reference { near: false };
    let logits = adjusted(logits, row);
    // Token and logit, the likeliest first.
    let mut kept: Vec<(u32, f64)> = (0..).zip(logits.iter().copied()).filter(|(_, l)| *l > f64::NEG_INFINITY).collect();
    kept.sort_by(|a, b| b.1.total_cmp(&a.1));
    for pair in kept.windows(2) {
        reference.less(pair[1].1, pair[0].1);
    }
    let sampling = row.sampling;
    if sampling.top_k > 0 {
        kept.truncate(sampling.top_k as usize);
    }
    if way(sampling) != Way::Greedy {
        kept = reference.typical(kept, f64::from(sampling.typical_p));
        kept = reference.top_p(kept, f64::from(sampling.top_p));
        kept = reference.min_p(kept, f64::from(sampling.min_p));
        if draw::coin(row) {
            kept = reference.xtc(kept, f64::from(sampling.xtc_threshold));
        }
    }
    let token = if sampling.temperature == 0.0 || way(sampling) == Way::Greedy {
        kept[0].0
    } else {
        if way(sampling) == Way::Plain {
            kept.sort_by_key(|(token, _)| *token);
        }
        let scaled = kept.iter().map(|(token, l)| (*token, l / f64::from(sampling.temperature))).collect();
        let share = f64::from(draw::uniform(sampling.seed.unwrap_or(0), row.position));
        let mut reached = 0.0;
        let weights = softmax(scaled);
        let mut found = None;
        for (token, p) in &weights {
            reached += p;
            if !reference.less(reached, share) && found.is_none() {
                found = Some(*token);
            }
        }
        found.unwrap_or(weights[weights.len() - 1].0)
    };
    Expected { token, near: reference.near }
}

/// Biases, bans, the mask, the penalties, what the driver adds.
fn adjusted(logits: &[f32], row: &Row<'_>) -> Vec<f64> {
    let mut logits: Vec<f64> = logits.iter().map(|l| f64::from(*l)).collect();
    let sampling = row.sampling;
    for bias in &sampling.logit_bias {
        logits[bias.token.0 as usize] += f64::from(bias.bias);
    }
    for token in row.banned {
        logits[token.0 as usize] = f64::NEG_INFINITY;
    }
    if let Some(allowed) = row.allowed() {
        for (token, logit) in (0..).zip(&mut logits) {
            if !allowed.has(mesh_proto::TokenId(token)) {
                *logit = f64::NEG_INFINITY;
            }
        }
    }
    let window = sampling.repeat_last_n.map_or(row.before.len(), |n| n as usize).min(row.before.len());
    let mut counts: HashMap<u32, u32> = HashMap::new();
    for token in &row.before[row.before.len() - window..] {
        *counts.entry(token.0).or_default() += 1;
    }
    for (token, count) in counts {
        let logit = &mut logits[token as usize];
        let penalty = f64::from(sampling.repetition_penalty);
        *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
        *logit -= f64::from(sampling.presence_penalty) + f64::from(sampling.frequency_penalty) * f64::from(count);
    }
    for (token, addend) in row.steering.iter().flat_map(|said| &said.addends) {
        logits[token.0 as usize] += f64::from(*addend);
    }
    logits
}

fn softmax(logits: Vec<(u32, f64)>) -> Vec<(u32, f64)> {
    let largest = logits.iter().map(|(_, l)| *l).fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = logits.iter().map(|(_, l)| (l - largest).exp()).sum();
    logits.into_iter().map(|(token, l)| (token, (l - largest).exp() / total)).collect()
}

impl Reference {
    fn typical(&mut self, kept: Vec<(u32, f64)>, wanted: f64) -> Vec<(u32, f64)> {
        if wanted >= 1.0 {
            return kept;
        }
        let probabilities = softmax(kept.clone());
        let entropy: f64 = probabilities.iter().filter(|(_, p)| *p > 0.0).map(|(_, p)| -p * p.ln()).sum();
        let mut ranked: Vec<(f64, usize)> =
            probabilities.iter().map(|(_, p)| (-p.ln() - entropy).abs()).zip(0..).collect();
        ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
        for pair in ranked.windows(2) {
            self.less(pair[0].0, pair[1].0);
        }
        let mut stays = vec![false; kept.len()];
        let mut reached = 0.0;
        for (_, index) in ranked {
            stays[index] = self.less(reached, wanted);
            reached += probabilities[index].1;
        }
        kept.into_iter().zip(stays).filter(|(_, stays)| *stays).map(|(token, _)| token).collect()
    }

    fn top_p(&mut self, kept: Vec<(u32, f64)>, wanted: f64) -> Vec<(u32, f64)> {
        if wanted >= 1.0 {
            return kept;
        }
        let mut reached = 0.0;
        let stays: Vec<bool> = softmax(kept.clone())
            .into_iter()
            .map(|(_, p)| {
                let stays = self.less(reached, wanted);
                reached += p;
                stays
            })
            .collect();
        kept.into_iter().zip(stays).filter(|(_, stays)| *stays).map(|(token, _)| token).collect()
    }

    fn min_p(&mut self, kept: Vec<(u32, f64)>, wanted: f64) -> Vec<(u32, f64)> {
        let largest = kept[0].1;
        kept.into_iter().filter(|(_, l)| wanted == 0.0 || !self.less(l - largest, wanted.ln())).collect()
    }

    fn xtc(&mut self, kept: Vec<(u32, f64)>, threshold: f64) -> Vec<(u32, f64)> {
        let likely = softmax(kept.clone()).iter().filter(|(_, p)| !self.less(*p, threshold)).count();
        kept.into_iter().skip(likely.saturating_sub(1)).collect()
    }
}

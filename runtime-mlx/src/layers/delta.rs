//! The gated delta rule (Yang et al. 2024), with one decay a head (gated delta net) or one for each number of its keys
//! (Kimi delta attention, Moonshot 2025); must not know where states are kept.
//!
//! A head's state is a matrix `S` `[v_dim, k_dim]`. Each token lets it fade, corrects what it says of the token's key, and
//! reads it: `S ← S·diag(g)`, `u = β·(v − S·k)`, `S ← S + u·kᵀ`, `y = S·q`.
//!
//! One token is computed as written. A piece of a prompt is cut into blocks. Within a block the `u` depend on each other
//! linearly: `(1 + L)·U = β·(V − K·Sᵀ)` with a strictly lower triangular `L`, which is inverted for all blocks at once.
//! Then only the states pass from block to block. Every product is of decays between two tokens in their order, so none
//! exceeds 1, however strongly a head forgets.

use mlx_rs::{Array, Dtype, fast, nn, ops};

use crate::sys::{self, Result};

/// Tokens of a block on a CPU; a power of two. Measured in mlx's Python on a busy machine, 512 tokens of 32 heads of 128: 16
/// took 2.1 s, 32 2.9 s and 64 4.7 s with a decay a head; 2.0, 3.3 and 5.5 s with one for each number; one by one 1.4 s.
const CPU_BLOCK: i32 = 16;

/// The same on a GPU, where what counts is how few operations follow each other. Guess.
const GPU_BLOCK: i32 = 64;

/// Of the norms of queries and keys. Origin: mlx-lm, and the models' makers.
const UNIT_EPS: f32 = 1e-6;

/// Rows' tokens, one behind the other.
pub(crate) struct DeltaTokens<'a> {
    /// `[rows, n, k_heads, k_dim]`, of unit length but for the scale of what is read.
    pub(crate) q: &'a Array,
    /// The same, of unit length.
    pub(crate) k: &'a Array,
    /// `[rows, n, heads, v_dim]`; heads are a multiple of `k_heads`.
    pub(crate) v: &'a Array,
    /// `[rows, n, heads, 1]` or `[rows, n, heads, k_dim]`, f32: `ln g`, at most 0.
    pub(crate) log_decay: &'a Array,
    /// `[rows, n, heads]`, from 0 to 1.
    pub(crate) beta: &'a Array,
}

/// Queries and keys `[…, dim]` of unit length, and queries by `dim^-½` shorter.
pub(crate) fn unit_keys(q: &Array, k: &Array) -> Result<[Array; 2]> {
    let dim = q.dim(-1) as f32;
    let unit = |x: &Array, gain: f32| {
        // The norm's eps is of the mean of squares, and this one of their sum.
        let x = fast::rms_norm(x, None, UNIT_EPS / dim)?;
        x.multiply(Array::from_f32(gain).as_dtype(x.dtype())?)
    };
    Ok([unit(q, 1.0 / dim)?, unit(k, dim.powf(-0.5))?])
}

/// `ln g = −exp(a_log)·softplus(a + dt_bias)`, f32.
pub(crate) fn log_decay(a_log: &Array, a: &Array, dt_bias: &Array) -> Result<Array> {
    let rate = a_log.as_dtype(Dtype::Float32)?.exp()?.negative()?;
    rate.multiply(nn::softplus(a.add(dt_bias)?)?)
}

/// Passes rows' tokens through their states `[rows, heads, v_dim, k_dim]` (f32): what they read, `[rows, n, heads, v_dim]`,
/// and the new states.
pub(crate) fn gated_delta(tokens: &DeltaTokens<'_>, state: &Array) -> Result<(Array, Array)> {
    in_blocks(tokens, state, if sys::on_gpu() { GPU_BLOCK } else { CPU_BLOCK })
}

/// The same in blocks of at most `block` tokens.
fn in_blocks(tokens: &DeltaTokens<'_>, state: &Array, block: i32) -> Result<(Array, Array)> {
    let (rows, n, k_heads) = (tokens.k.dim(0), tokens.k.dim(1), tokens.k.dim(2));
    let (heads, v_dim) = (tokens.v.dim(2), tokens.v.dim(3));
    // `[rows, k_heads, heads of each, n, …]`: heads that share keys lie side by side.
    let grouped = |x: &Array| {
        let (of_each, dim) = (x.dim(2) / k_heads, x.dim(3));
        let x = x.as_dtype(Dtype::Float32)?.transpose_axes(&[0, 2, 1, 3])?;
        x.reshape(&[rows, k_heads, of_each, n, dim])
    };
    let piece = Piece {
        q: grouped(tokens.q)?,
        k: grouped(tokens.k)?,
        v: grouped(tokens.v)?,
        log_decay: grouped(tokens.log_decay)?,
        beta: grouped(&tokens.beta.expand_dims(-1)?)?,
    };
    let old = state.as_dtype(Dtype::Float32)?;
    let old = old.reshape(&[rows, k_heads, heads / k_heads, v_dim, state.dim(3)])?;
    let (y, new) = if n == 1 { piece.one(&old)? } else { piece.blocks(&old, block)? };
    let y = y.reshape(&[rows, heads, n, v_dim])?.transpose_axes(&[0, 2, 1, 3])?;
    Ok((y.as_dtype(tokens.q.dtype())?, new.reshape(state.shape())?))
}

/// `[rows, k_heads, heads of each, n, …]` each, in f32; queries and keys with one head of each.
struct Piece {
    q: Array,
    k: Array,
    v: Array,
    log_decay: Array,
    beta: Array,
}

impl Piece {
    /// One token.
    fn one(&self, state: &Array) -> Result<(Array, Array)> {
        let state = state.multiply(self.log_decay.exp()?)?;
        let held = ops::matmul(&self.k, turned(&state)?)?;
        let u = self.v.subtract(held)?.multiply(&self.beta)?;
        let state = state.add(turned(&u)?.multiply(&self.k)?)?;
        Ok((ops::matmul(&self.q, turned(&state)?)?, state))
    }

    /// Any number of tokens, in blocks of at most `block`, a power of two.
    fn blocks(&self, state: &Array, block: i32) -> Result<(Array, Array)> {
        let n = self.k.dim(3);
        let size = (n as u32).next_power_of_two().min(block as u32) as i32;
        let count = (n + size - 1) / size;
        // What is added behind the end does not fade, correct or read: zeros, and a decay of 1.
        let cut = |x: &Array| {
            let padded = ops::pad(x, &[(0, 0), (0, 0), (0, 0), (0, count * size - n), (0, 0)][..], None, None)?;
            padded.reshape(&[x.dim(0), x.dim(1), x.dim(2), count, size, x.dim(4)])
        };
        let (q, k, v, beta) = (cut(&self.q)?, cut(&self.k)?, cut(&self.v)?, cut(&self.beta)?);
        // Since the block's beginning, the token itself included.
        let faded = cut(&self.log_decay)?.cumsum(-2, false, true)?;
        let halves = halves(size);
        let lower = below(&decayed(&k, &k, &faded, &halves)?, false)?.multiply(&beta)?;
        let solved = unit_inverse(&lower, &halves)?;
        let reads = below(&decayed(&q, &k, &faded, &halves)?, true)?;
        let since = faded.exp()?;
        let written = ops::matmul(&solved, v.multiply(&beta)?)?;
        let held = ops::matmul(&solved, k.multiply(&since)?.multiply(&beta)?)?;
        let last = at(&faded, size - 1)?;
        let parts =
            [written, held, q.multiply(&since)?, reads, k.multiply(last.subtract(&faded)?.exp()?)?, last.exp()?];
        let parts = parts.iter().map(|x| ops::split_equal(x, count, 3)).collect::<Result<Vec<_>>>()?;
        let mut state = state.clone();
        let mut read = Vec::with_capacity(count as usize);
        let part = |i: usize, block: usize| parts[i][block].squeeze_axes(&[3]);
        for block in 0..count as usize {
            let before = turned(&state)?;
            let u = part(0, block)?.subtract(ops::matmul(part(1, block)?, &before)?)?;
            read.push(ops::matmul(part(2, block)?, &before)?.add(ops::matmul(part(3, block)?, &u)?)?);
            state = state.multiply(part(5, block)?)?.add(ops::matmul(turned(&u)?, part(4, block)?)?)?;
        }
        let read = if read.len() == 1 { read.remove(0) } else { ops::concatenate(&read, 3)? };
        let (start, mut stop) = ([0; 5], read.shape().to_vec());
        stop[3] = n;
        Ok((sys::slice(&read, &start, &stop)?, state))
    }
}

/// The last two axes exchanged.
fn turned(x: &Array) -> Result<Array> {
    x.swap_axes(-1, -2)
}

/// Token `i` of each block `[…, size, dim]`, with an axis of one token.
fn at(x: &Array, i: i32) -> Result<Array> {
    let (mut start, mut stop) = (vec![0; x.ndim()], x.shape().to_vec());
    let tokens = x.ndim() - 2;
    (start[tokens], stop[tokens]) = (i, i + 1);
    sys::slice(x, &start, &stop)
}

/// `[size, size]` for each width 1, 2, 4, … below `size`: the blocks of twice that width along the diagonal, and of these the
/// quarter where rows are of the second half and columns of the first. Together: all that lies below the diagonal.
fn halves(size: i32) -> Vec<(i32, Array)> {
    let mask = |width: i32| {
        let second = |t: i32| t % (2 * width) >= width;
        let is = |(t, i): (i32, i32)| t / (2 * width) == i / (2 * width) && second(t) && !second(i);
        let all: Vec<bool> = (0..size * size).map(|at| is((at / size, at % size))).collect();
        (width, Array::from_slice(&all, &[size, size]))
    };
    std::iter::successors(Some(1), |width| Some(2 * width)).take_while(|width| *width < size).map(mask).collect()
}

/// What lies below the diagonal, or on it too.
fn below(x: &Array, diagonal: bool) -> Result<Array> {
    ops::tril(x, if diagonal { 0 } else { -1 })
}

/// `Σ a[t]·b[i]·g[i+1]·…·g[t]` over the numbers of a key, for each two tokens of a block with `i ≤ t`; elsewhere any finite
/// number. `a` and `b` `[…, size, k_dim]`, `faded` `[…, size, 1 or k_dim]`.
fn decayed(a: &Array, b: &Array, faded: &Array, halves: &[(i32, Array)]) -> Result<Array> {
    let zero = Array::from_f32(0.0);
    let products = ops::matmul(a, turned(b)?)?;
    if faded.dim(-1) == 1 {
        let between = ops::minimum(faded.subtract(turned(faded)?)?, &zero)?;
        return products.multiply(between.exp()?);
    }
    // Each number fades by itself, so that the decay must go into the factors. It is split where the two halves of the
    // smallest such block meet in which both tokens lie: each factor is then a decay from there on, or up to there.
    let mut all = products;
    let (size, dim) = (faded.dim(-2), faded.dim(-1));
    for (width, mask) in halves {
        let lead = &faded.shape()[..faded.ndim() - 2];
        let pairs = faded.reshape(&[lead, &[size / (2 * width), 2 * width, dim]].concat())?;
        let since = pairs.subtract(at(&pairs, width - 1)?)?.reshape(faded.shape())?;
        let a = a.multiply(ops::minimum(&since, &zero)?.exp()?)?;
        let b = b.multiply(ops::minimum(since.negative()?, &zero)?.exp()?)?;
        all = ops::select(mask, ops::matmul(a, turned(&b)?)?, &all)?;
    }
    Ok(all)
}

/// `(1 + lower)⁻¹`, from the inverses of blocks along the diagonal to those of blocks twice as wide: as stable as solving row
/// by row, and with few operations.
fn unit_inverse(lower: &Array, halves: &[(i32, Array)]) -> Result<Array> {
    let size = lower.dim(-1);
    let mut inverse = ops::eye::<f32>(size, None, None)?;
    let zero = Array::from_f32(0.0);
    for (width, mask) in halves {
        let quarter = ops::select(mask, lower, &zero)?;
        let change = match width {
            1 => quarter,
            _ => ops::matmul(ops::matmul(&inverse, quarter)?, &inverse)?,
        };
        inverse = inverse.subtract(change)?;
    }
    Ok(inverse)
}

#[cfg(test)]
mod tests {
    use mlx_rs::random;

    use super::*;

    /// What a test passes through: tokens of two rows with three heads of keys, and states.
    struct Drawn {
        arrays: [Array; 5],
        state: Array,
    }

    const ROWS: i32 = 2;
    const K_HEADS: i32 = 3;
    const K_DIM: i32 = 8;
    const V_DIM: i32 = 5;

    fn normal(shape: &[i32], seed: u64) -> Array {
        random::normal::<f32>(shape, None, None, Some(&random::key(seed).unwrap())).unwrap()
    }

    impl Drawn {
        /// Decays of each head (`each` false) or of each number of a key, around `ln g = -strength`.
        fn new(n: i32, each: bool, strength: f32) -> Self {
            let heads = if each { K_HEADS } else { 2 * K_HEADS };
            let [q, k] = [1, 2].map(|seed| normal(&[ROWS, n, K_HEADS, K_DIM], seed));
            let [q, k] = unit_keys(&q, &k).unwrap();
            let v = normal(&[ROWS, n, heads, V_DIM], 3);
            let a = normal(&[ROWS, n, heads, if each { K_DIM } else { 1 }], 4).exp().unwrap();
            let decay = a.multiply(Array::from_f32(-strength)).unwrap();
            let beta = nn::sigmoid(normal(&[ROWS, n, heads], 5)).unwrap();
            Self { arrays: [q, k, v, decay, beta], state: normal(&[ROWS, heads, V_DIM, K_DIM], 6) }
        }

        /// Tokens `from..to`.
        fn pass(&self, (from, to): (i32, i32), state: &Array, block: i32) -> (Array, Array) {
            let part = |x: &Array| {
                let (mut start, mut stop) = (vec![0; x.ndim()], x.shape().to_vec());
                (start[1], stop[1]) = (from, to);
                sys::slice(x, &start, &stop).unwrap()
            };
            let [q, k, v, log_decay, beta] = [0, 1, 2, 3, 4].map(|i| part(&self.arrays[i]));
            let tokens = DeltaTokens { q: &q, k: &k, v: &v, log_decay: &log_decay, beta: &beta };
            in_blocks(&tokens, state, block).unwrap()
        }

        /// In pieces that end at `ends`.
        fn pieces(&self, ends: &[i32], block: i32) -> (Array, Array) {
            let (mut from, mut state, mut read) = (0, self.state.clone(), Vec::new());
            for &end in ends {
                let (y, new) = self.pass((from, end), &state, block);
                read.push(y);
                (from, state) = (end, new);
            }
            (ops::concatenate(&read, 1).unwrap(), state)
        }

        fn one_by_one(&self, n: i32) -> (Array, Array) {
            self.pieces(&(1..=n).collect::<Vec<_>>(), 1)
        }
    }

    fn assert_near((y, state): &(Array, Array), (y2, state2): &(Array, Array), what: &str) {
        for (a, b) in [(y, y2), (state, state2)] {
            assert_eq!(a.shape(), b.shape(), "{what}");
            let off = a.subtract(b).unwrap().abs().unwrap().max(None).unwrap().item_exact::<f32>();
            // Not a number is not near.
            assert!(off < 2e-5, "{what}: {off}");
        }
    }

    #[test]
    fn blocks_say_what_tokens_one_by_one_say() {
        for each in [false, true] {
            // From hardly any forgetting to a memory that is gone within a token.
            for strength in [0.0, 0.01, 0.5, 30.0] {
                for n in [2, 3, 5, 16, 33, 70] {
                    let drawn = Drawn::new(n, each, strength);
                    let expected = drawn.one_by_one(n);
                    for block in [CPU_BLOCK, GPU_BLOCK] {
                        let what = format!("{n} tokens in blocks of {block}, each {each}, {strength}");
                        assert_near(&drawn.pieces(&[n], block), &expected, &what);
                    }
                }
            }
        }
    }

    #[test]
    fn a_piece_may_be_cut_anywhere() {
        for each in [false, true] {
            let drawn = Drawn::new(41, each, 0.2);
            let whole = drawn.pieces(&[41], CPU_BLOCK);
            for cut in 1..41 {
                assert_near(&drawn.pieces(&[cut, 41], CPU_BLOCK), &whole, &format!("cut at {cut}, each {each}"));
            }
        }
    }

    #[test]
    fn the_same_token_again_and_again_stays_exact() {
        // All keys alike, corrected in full and never forgotten: the triangle is full of ones, and a sum of its powers
        // would cancel numbers of eight digits.
        let mut drawn = Drawn::new(64, false, 0.0);
        let first = sys::slice(&drawn.arrays[1], &[0, 0, 0, 0], &[ROWS, 1, K_HEADS, K_DIM]).unwrap();
        drawn.arrays[1] = ops::broadcast_to(&first, drawn.arrays[1].shape()).unwrap();
        drawn.arrays[4] = ops::ones::<f32>(drawn.arrays[4].shape()).unwrap();
        assert_near(&drawn.pieces(&[64], GPU_BLOCK), &drawn.one_by_one(64), "one key");
    }

    #[test]
    fn the_rule_is_the_one_on_the_module_page() {
        let drawn = Drawn::new(1, false, 0.5);
        let (y, state) = drawn.pass((0, 1), &drawn.state, 1);
        let [q, k, v, decay, beta] = [0, 1, 2, 3, 4].map(|i| drawn.arrays[i].as_slice::<f32>().to_vec());
        let (old, y, state) = (drawn.state.as_slice::<f32>(), y.contiguous().unwrap(), state.contiguous().unwrap());
        let (y, state) = (y.as_slice::<f32>(), state.as_slice::<f32>());
        let (k_dim, v_dim, heads) = (K_DIM as usize, V_DIM as usize, 2 * K_HEADS as usize);
        for at in 0..ROWS as usize * heads {
            // Two heads share a head of keys.
            let (k, q) = (&k[at / 2 * k_dim..][..k_dim], &q[at / 2 * k_dim..][..k_dim]);
            for i in 0..v_dim {
                let row = at * v_dim + i;
                let faded: Vec<f32> = old[row * k_dim..][..k_dim].iter().map(|s| s * decay[at].exp()).collect();
                let held: f32 = faded.iter().zip(k).map(|(s, k)| s * k).sum();
                let u = beta[at] * (v[row] - held);
                let new: Vec<f32> = faded.iter().zip(k).map(|(s, k)| s + u * k).collect();
                let read: f32 = new.iter().zip(q).map(|(s, q)| s * q).sum();
                assert!((y[row] - read).abs() < 1e-5);
                for (ours, expected) in state[row * k_dim..][..k_dim].iter().zip(&new) {
                    assert!((ours - expected).abs() < 1e-5);
                }
            }
        }
    }
}

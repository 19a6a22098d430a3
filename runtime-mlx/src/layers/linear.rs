//! Matrices, dense or packed, as linear layers and embeddings; must not know files.

use mlx_rs::{Array, ops, ops::indexing::take_axis};

use crate::sys::{self, Packed, Result};

/// A weight matrix `[rows, columns]`, or one for each expert or head `[n, rows, columns]`, in the form in which it runs.
pub(crate) enum Matrix {
    /// The matrix, and a transposed view of it for products.
    Dense { rows: Array, transposed: Array },
    /// As MLX packs it.
    Packed(Packed),
}

impl Matrix {
    pub(crate) fn dense(rows: Array) -> Result<Self> {
        let transposed = rows.swap_axes(-1, -2)?;
        transposed.eval()?;
        Ok(Self::Dense { rows, transposed })
    }

    /// `x · Wᵀ`: `[…, columns]` → `[…, rows]`.
    pub(crate) fn product(&self, x: &Array) -> Result<Array> {
        match self {
            Self::Dense { transposed, .. } => ops::matmul(x, transposed),
            Self::Packed(packed) => sys::quantized_matmul(x, packed, true),
        }
    }

    /// `x · W`: `[…, rows]` → `[…, columns]`.
    pub(crate) fn product_transposed(&self, x: &Array) -> Result<Array> {
        match self {
            Self::Dense { rows, .. } => ops::matmul(x, rows),
            Self::Packed(packed) => sys::quantized_matmul(x, packed, false),
        }
    }

    /// `x · W[expert]ᵀ`: `x` `[…, 1, columns]`, `experts` `[…]` → `[…, 1, rows]`. `sorted`: the experts' numbers do not fall.
    pub(crate) fn product_of(&self, x: &Array, experts: &Array, sorted: bool) -> Result<Array> {
        match self {
            Self::Dense { transposed, .. } => ops::gather_mm(x, transposed, None, experts, sorted),
            Self::Packed(packed) => sys::gather_qmm(x, packed, experts, sorted),
        }
    }

    /// Rows by index: `[n]` → `[n, columns]`.
    fn rows(&self, indices: &Array) -> Result<Array> {
        match self {
            Self::Dense { rows, .. } => take_axis(rows, indices, 0),
            Self::Packed(Packed { values, scales, biases, packing }) => sys::dequantize(&Packed {
                values: take_axis(values, indices, 0)?,
                scales: take_axis(scales, indices, 0)?,
                biases: biases.as_ref().map(|biases| take_axis(biases, indices, 0)).transpose()?,
                packing: *packing,
            }),
        }
    }
}

/// `x · Wᵀ + b`.
pub(crate) struct Linear {
    matrix: Matrix,
    bias: Option<Array>,
}

impl Linear {
    pub(crate) fn new(matrix: Matrix, bias: Option<Array>) -> Self {
        Self { matrix, bias }
    }

    /// `[n, inputs]` → `[n, outputs]`.
    pub(crate) fn forward(&self, x: &Array) -> Result<Array> {
        match (&self.bias, &self.matrix) {
            (None, matrix) => matrix.product(x),
            (Some(bias), Matrix::Dense { transposed, .. }) => ops::addmm(bias, x, transposed, None, None),
            (Some(bias), matrix) => matrix.product(x)?.add(bias),
        }
    }
}

/// One linear layer for each expert.
pub(crate) struct SwitchLinear {
    matrix: Matrix,
    /// `[experts, outputs]`
    bias: Option<Array>,
}

impl SwitchLinear {
    pub(crate) fn new(matrix: Matrix, bias: Option<Array>) -> Self {
        Self { matrix, bias }
    }

    /// `[…, 1, inputs]` through `experts` `[…]` → `[…, 1, outputs]`.
    pub(crate) fn forward(&self, x: &Array, experts: &Array, sorted: bool) -> Result<Array> {
        let y = self.matrix.product_of(x, experts, sorted)?;
        match &self.bias {
            Some(bias) => y.add(take_axis(bias, experts, 0)?.expand_dims(-2)?),
            None => Ok(y),
        }
    }
}

/// Token embeddings; also the output head where a model ties the two.
pub(crate) struct Embedding(Matrix);

impl Embedding {
    pub(crate) fn new(matrix: Matrix) -> Self {
        Self(matrix)
    }

    /// `[n]` token ids → `[n, hidden]`.
    pub(crate) fn forward(&self, tokens: &Array) -> Result<Array> {
        self.0.rows(tokens)
    }

    /// As the output head: `[n, hidden]` → `[n, vocabulary]`.
    pub(crate) fn as_head(&self, x: &Array) -> Result<Array> {
        self.0.product(x)
    }
}

/// `x` cut along its last axis into pieces of these widths, which are all of it.
pub(crate) fn split<const N: usize>(x: &Array, widths: [i32; N]) -> Result<[Array; N]> {
    let last = x.ndim() - 1;
    let mut start = 0;
    let mut pieces = Vec::with_capacity(N);
    for width in widths {
        let (mut from, mut to) = (vec![0; x.ndim()], x.shape().to_vec());
        (from[last], to[last]) = (start, start + width);
        pieces.push(sys::slice(x, &from, &to)?);
        start += width;
    }
    pieces.try_into().map_err(|_| mlx_rs::error::Exception::custom("a split lost a piece"))
}

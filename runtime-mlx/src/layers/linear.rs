//! Matrices, dense or affine-quantised, as linear layers and embeddings; must not know files.

use mlx_rs::{Array, ops, ops::indexing::take_axis};

use crate::{config::Affine, sys::Result};

/// A weight matrix `[rows, columns]`, in the form in which it runs.
pub(crate) enum Matrix {
    /// The matrix, and a transposed view of it for products.
    Dense { rows: Array, transposed: Array },
    /// Packed values, and a scale and a bias for each group of a row.
    Affine { packed: Array, scales: Array, biases: Array, affine: Affine },
}

impl Matrix {
    pub(crate) fn dense(rows: Array) -> Result<Self> {
        let transposed = rows.transpose()?;
        transposed.eval()?;
        Ok(Self::Dense { rows, transposed })
    }

    pub(crate) fn affine(packed: Array, scales: Array, biases: Array, affine: Affine) -> Self {
        Self::Affine { packed, scales, biases, affine }
    }

    /// `x · Wᵀ`: `[n, columns]` → `[n, rows]`.
    fn product(&self, x: &Array) -> Result<Array> {
        match self {
            Self::Dense { transposed, .. } => ops::matmul(x, transposed),
            Self::Affine { packed, scales, biases, affine } => {
                ops::quantized_matmul(x, packed, scales, biases, true, affine.group_size, affine.bits)
            }
        }
    }

    /// Rows by index: `[n]` → `[n, columns]`.
    fn rows(&self, indices: &Array) -> Result<Array> {
        match self {
            Self::Dense { rows, .. } => take_axis(rows, indices, 0),
            Self::Affine { packed, scales, biases, affine } => ops::dequantize(
                take_axis(packed, indices, 0)?,
                take_axis(scales, indices, 0)?,
                &take_axis(biases, indices, 0)?,
                affine.group_size,
                affine.bits,
            ),
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

//! From named tensors to layers: the one place that knows how weights are stored and in which dtype they run;
//! must not know families.

use mlx_rs::{Array, Dtype, error::Exception, ops};

use crate::{
    config::{Affine, Quantization},
    error::MlxError,
    layers::{Embedding, Linear, Matrix, RmsNorm},
    weights::Weights,
};

/// In which form the weights run. What is stored does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Residency {
    /// As stored: quantised matrices stay packed, floats keep their dtype. What GPUs want.
    Stored,
    /// Activations, scales and dense matrices in f32, quantised matrices packed. For CPUs short of memory.
    PackedF32,
    /// Everything dense in f32. On the CPU back end ten times as fast as bf16 (`docs/performance.md`).
    DenseF32,
}

/// Builds layers from a checkpoint.
pub(crate) struct Loader<'a> {
    weights: &'a mut Weights,
    quantization: Option<&'a Quantization>,
    residency: Residency,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(weights: &'a mut Weights, quantization: Option<&'a Quantization>, residency: Residency) -> Self {
        Self { weights, quantization, residency }
    }

    /// `{name}.weight` `[outputs, inputs]`, and `{name}.bias` `[outputs]` if the family has one.
    pub(crate) fn linear(&mut self, name: &str, inputs: i32, outputs: i32, bias: bool) -> Result<Linear, MlxError> {
        let matrix = self.matrix(name, outputs, inputs)?;
        let bias = if bias { Some(self.vector(&format!("{name}.bias"), outputs)?) } else { None };
        Ok(Linear::new(matrix, bias))
    }

    /// `{name}.weight` `[vocabulary, hidden]`.
    pub(crate) fn embedding(&mut self, name: &str, vocabulary: i32, hidden: i32) -> Result<Embedding, MlxError> {
        Ok(Embedding::new(self.matrix(name, vocabulary, hidden)?))
    }

    /// `{name}.weight` `[size]`.
    pub(crate) fn rms_norm(&mut self, name: &str, size: i32, eps: f32) -> Result<RmsNorm, MlxError> {
        Ok(RmsNorm::new(self.vector(&format!("{name}.weight"), size)?, eps))
    }

    fn vector(&mut self, name: &str, size: i32) -> Result<Array, MlxError> {
        let vector = self.weights.take_shaped(name, &[size])?;
        Ok(self.settle(vector)?)
    }

    fn matrix(&mut self, name: &str, rows: i32, columns: i32) -> Result<Matrix, MlxError> {
        let weight = format!("{name}.weight");
        let scales = format!("{name}.scales");
        if !self.weights.has(&scales) {
            let dense = self.weights.take_shaped(&weight, &[rows, columns])?;
            return Ok(Matrix::dense(self.settle(dense)?)?);
        }
        let quantization = self
            .quantization
            .ok_or_else(|| MlxError::Config(format!("`{name}` is quantised, but there is no `quantization` block")))?;
        let Some(affine) = quantization.of(name)? else {
            return Err(MlxError::Config(format!("`quantization.{name}` is false, but the checkpoint has `{scales}`")));
        };
        let Affine { group_size, bits } = affine;
        if columns % group_size != 0 {
            return Err(MlxError::Config(format!(
                "`{name}` has {columns} columns, not a multiple of its group_size {group_size}"
            )));
        }
        let groups = [rows, columns / group_size];
        let packed = self.weights.take_shaped(&weight, &[rows, columns * bits / 32])?;
        let scales = self.weights.take_shaped(&scales, &groups)?;
        let biases = self.weights.take_shaped(&format!("{name}.biases"), &groups)?;
        match self.residency {
            Residency::DenseF32 => {
                // Scales go to f32 first: the product of rounded factors would be rounded again in bf16.
                let (scales, biases) = (scales.as_dtype(Dtype::Float32)?, biases.as_dtype(Dtype::Float32)?);
                let dense = ops::dequantize(&packed, &scales, &biases, group_size, bits)?;
                dense.eval()?;
                Ok(Matrix::dense(dense)?)
            }
            Residency::Stored | Residency::PackedF32 => {
                packed.eval()?;
                Ok(Matrix::affine(packed, self.settle(scales)?, self.settle(biases)?, affine))
            }
        }
    }

    /// Brings a tensor into the dtype it runs in, and into memory, so that a bad read is an error of loading.
    fn settle(&self, tensor: Array) -> Result<Array, Exception> {
        let tensor = match self.residency {
            Residency::Stored => tensor,
            Residency::PackedF32 | Residency::DenseF32 => tensor.as_dtype(Dtype::Float32)?,
        };
        tensor.eval()?;
        Ok(tensor)
    }
}

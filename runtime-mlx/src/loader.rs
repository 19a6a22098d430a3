//! From named tensors to layers: the one place that knows how weights are stored and in which dtype they run;
//! must not know families.

use mlx_rs::{Array, Dtype, error::Exception, ops};

use crate::{
    error::MlxError,
    layers::{CausalConv, Embedding, Linear, Matrix, RmsNorm, SwitchLinear},
    quantization::{Packing, Quantization},
    sys::{self, Packed},
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

    /// Whether the checkpoint has a tensor, and nobody took it yet.
    pub(crate) fn has(&self, tensor: &str) -> bool {
        self.weights.has(tensor)
    }

    /// Drops tensors that the family's reference drops too.
    pub(crate) fn discard(&mut self, useless: impl Fn(&str) -> bool) {
        self.weights.discard(useless);
    }

    /// Leaves out tensors for which a later version has a use, and says so.
    pub(crate) fn set_aside(&mut self, what: &str, belongs: impl Fn(&str) -> bool) {
        let tensors = self.weights.all().filter(|(name, _)| belongs(name)).count();
        if tensors > 0 {
            tracing::info!(what, tensors, "set aside: this version does not use them");
            self.weights.discard(belongs);
        }
    }

    /// Gives each tensor the name that `new` has for it, as the family's reference does.
    pub(crate) fn rename(&mut self, new: impl Fn(&str) -> String) -> Result<(), MlxError> {
        self.weights.rename(new)
    }

    /// Whether a tensor that nobody took yet has such a name and shape.
    pub(crate) fn any(&self, is: impl Fn(&str, &[i32]) -> bool) -> bool {
        self.weights.all().any(|(name, shape)| is(name, shape))
    }

    /// `{name}.weight` `[outputs, inputs]`, and `{name}.bias` `[outputs]` if the family has one.
    pub(crate) fn linear(&mut self, name: &str, inputs: i32, outputs: i32, bias: bool) -> Result<Linear, MlxError> {
        let matrix = self.matrix(name, &[outputs, inputs])?;
        let bias = if bias { Some(self.tensor(&format!("{name}.bias"), &[outputs])?) } else { None };
        Ok(Linear::new(matrix, bias))
    }

    /// `{name}.weight` `[experts, outputs, inputs]`, and `{name}.bias` `[experts, outputs]` if the family has one.
    pub(crate) fn switch_linear(&mut self, name: &str, shape: [i32; 3], bias: bool) -> Result<SwitchLinear, MlxError> {
        let matrix = self.matrix(name, &shape)?;
        let bias = if bias { Some(self.tensor(&format!("{name}.bias"), &shape[..2])?) } else { None };
        Ok(SwitchLinear::new(matrix, bias))
    }

    /// Where a checkpoint holds each expert's tensors by themselves (`{}` in `single` stands for its number), stacks them
    /// as those of `stacked`.
    pub(crate) fn stack_experts(&mut self, stacked: &str, single: &str, experts: i32) -> Result<(), MlxError> {
        for part in ["weight", "scales", "biases", "bias"] {
            let of = |expert: i32| format!("{}.{part}", single.replace("{}", &expert.to_string()));
            if self.weights.has(&of(0)) {
                let all = (0..experts).map(|expert| self.weights.take(&of(expert))).collect::<Result<Vec<_>, _>>()?;
                let all = ops::stack(&all, 0)?;
                all.eval()?;
                self.weights.put(format!("{stacked}.{part}"), all);
            }
        }
        Ok(())
    }

    /// Where a checkpoint holds matrices of one size as one tensor `whole` `[…, rows, columns]`, one's rows behind the other's,
    /// cuts it into `{part}.weight`.
    pub(crate) fn cut_rows(&mut self, whole: &str, parts: &[String]) -> Result<(), MlxError> {
        if !self.weights.has(whole) {
            return Ok(());
        }
        let all = self.weights.take(whole)?;
        for (part, rows) in parts.iter().zip(ops::split_equal(&all, parts.len() as i32, -2)?) {
            let rows = rows.contiguous()?;
            rows.eval()?;
            self.weights.put(format!("{part}.weight"), rows);
        }
        Ok(())
    }

    /// Where a checkpoint holds tensors in another form, puts what `cut` makes of `name` in its place, under the names `into`.
    pub(crate) fn recut<const N: usize>(
        &mut self,
        name: &str,
        into: [String; N],
        cut: impl FnOnce(Array) -> sys::Result<[Array; N]>,
    ) -> Result<(), MlxError> {
        if self.weights.has(name) {
            if into.iter().any(|part| self.weights.has(part)) {
                // There in both forms: one of them would not be used.
                return Err(MlxError::LeftoverTensors(vec![name.to_owned()]));
            }
            let bad = |e: Exception| MlxError::Config(format!("`{name}`: {e}"));
            for (part, array) in into.into_iter().zip(cut(self.weights.take(name)?).map_err(bad)?) {
                // A view would hold all of it in memory.
                let array = array.contiguous()?;
                array.eval()?;
                self.weights.put(part, array);
            }
        }
        Ok(())
    }

    /// `{name}.weight` `[vocabulary, hidden]`.
    pub(crate) fn embedding(&mut self, name: &str, vocabulary: i32, hidden: i32) -> Result<Embedding, MlxError> {
        Ok(Embedding::new(self.matrix(name, &[vocabulary, hidden])?))
    }

    /// `{name}.weight` `[size]`.
    pub(crate) fn rms_norm(&mut self, name: &str, size: i32, eps: f32) -> Result<RmsNorm, MlxError> {
        Ok(RmsNorm::new(self.tensor(&format!("{name}.weight"), &[size])?, eps))
    }

    /// `{name}.weight` `[size]`, stored as its distance from 1.
    pub(crate) fn rms_norm_plus_one(&mut self, name: &str, size: i32, eps: f32) -> Result<RmsNorm, MlxError> {
        let weight = self.tensor(&format!("{name}.weight"), &[size])?;
        let weight = weight.add(Array::from_f32(1.0).as_dtype(weight.dtype())?)?;
        weight.eval()?;
        Ok(RmsNorm::new(weight, eps))
    }

    /// `{name}.weight` of `[channels, size]`, stored with an axis of one more before or behind its last, and `{name}.bias`
    /// `[channels]` if the family has one.
    pub(crate) fn causal_conv(&mut self, name: &str, shape: [i32; 2], bias: bool) -> Result<CausalConv, MlxError> {
        let [channels, size] = shape;
        let weight = format!("{name}.weight");
        let stored = match self.weights.shape(&weight) {
            Some([_, 1, _]) => [channels, 1, size],
            _ => [channels, size, 1],
        };
        let weight = self.tensor(&weight, &stored)?.reshape(&shape)?;
        let bias = if bias { Some(self.tensor(&format!("{name}.bias"), &[channels])?) } else { None };
        Ok(CausalConv::new(&weight, bias)?)
    }

    /// A tensor of floats that is never quantised, in the dtype in which it runs.
    pub(crate) fn tensor(&mut self, name: &str, shape: &[i32]) -> Result<Array, MlxError> {
        let tensor = self.weights.take_shaped(name, shape)?;
        Ok(self.settle(tensor)?)
    }

    /// The same for one of `count` numbers that is stored with axes of one around them, or without: `[count]`.
    pub(crate) fn numbers(&mut self, name: &str, count: i32) -> Result<Array, MlxError> {
        let stored = match self.weights.shape(name) {
            Some(shape) if shape.iter().product::<i32>() == count => shape.to_vec(),
            _ => vec![count],
        };
        Ok(self.tensor(name, &stored)?.reshape(&[count])?)
    }

    /// `{name}.weight` `[…, rows, columns]`, dense or packed.
    pub(crate) fn matrix(&mut self, name: &str, shape: &[i32]) -> Result<Matrix, MlxError> {
        match self.packed(name, shape)? {
            None => {
                let dense = self.weights.take_shaped(&format!("{name}.weight"), shape)?;
                Ok(Matrix::dense(self.settle(dense)?)?)
            }
            Some(packed) if self.residency == Residency::DenseF32 => {
                let dense = sys::dequantize(&packed)?.as_dtype(Dtype::Float32)?;
                dense.eval()?;
                Ok(Matrix::dense(dense)?)
            }
            Some(packed) => {
                packed.values.eval()?;
                Ok(Matrix::Packed(packed))
            }
        }
    }

    /// `{name}.weight` `[rows, columns]` as numbers, in the dtype in which it runs: for families that cut it up. (A packed
    /// one then runs dense.)
    pub(crate) fn dense(&mut self, name: &str, shape: &[i32]) -> Result<Array, MlxError> {
        match self.packed(name, shape)? {
            None => self.tensor(&format!("{name}.weight"), shape),
            Some(packed) => Ok(self.settle(sys::dequantize(&packed)?)?),
        }
    }

    /// The packed form of `{name}.weight`; `None`: it is dense.
    fn packed(&mut self, name: &str, shape: &[i32]) -> Result<Option<Packed>, MlxError> {
        let scales = format!("{name}.scales");
        if !self.weights.has(&scales) {
            return Ok(None);
        }
        let quantization = self
            .quantization
            .ok_or_else(|| MlxError::Config(format!("`{name}` is quantised, but there is no `quantization` block")))?;
        let Some(packing) = quantization.of(name)? else {
            return Err(MlxError::Config(format!("`quantization.{name}` is false, but the checkpoint has `{scales}`")));
        };
        let Packing { group_size, bits, .. } = packing;
        let columns = shape.last().copied().unwrap_or(0);
        if columns % group_size != 0 {
            return Err(MlxError::Config(format!(
                "`{name}` has {columns} columns, not a multiple of its group_size {group_size}"
            )));
        }
        let with_columns = |n: i32| [&shape[..shape.len() - 1], &[n]].concat();
        let groups = with_columns(columns / group_size);
        let values = self.weights.take_shaped(&format!("{name}.weight"), &with_columns(columns * bits / 32))?;
        let scales = self.weights.take_shaped(&scales, &groups)?;
        // Scales go to f32 before a product with them is rounded again in bf16.
        let scales = self.settle(scales)?;
        let biases = match packing.has_biases() {
            true => {
                let biases = self.weights.take_shaped(&format!("{name}.biases"), &groups)?;
                Some(self.settle(biases)?)
            }
            false => None,
        };
        Ok(Some(Packed { values, scales, biases, packing }))
    }

    /// Brings a tensor into the dtype it runs in, and into memory, so that a bad read is an error of loading.
    fn settle(&self, tensor: Array) -> Result<Array, Exception> {
        let tensor = match self.residency {
            Residency::Stored => tensor,
            // Some scales are powers of two in eight bits.
            _ if matches!(tensor.dtype(), Dtype::Uint8 | Dtype::Uint32) => tensor,
            Residency::PackedF32 | Residency::DenseF32 => tensor.as_dtype(Dtype::Float32)?,
        };
        tensor.eval()?;
        Ok(tensor)
    }
}

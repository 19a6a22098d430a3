//! The `quantization` block of a `config.json`: how each matrix of a checkpoint is packed; must not know tensors.

use std::ffi::CStr;

use serde_json::{Map, Value};

use crate::error::MlxError;

/// How the values of a group stand for numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// `scale · q + bias`.
    Affine,
    /// 4-bit floats, a power of two for each group (Open Compute Project, MX 1.0).
    Mxfp4,
    /// 8-bit floats, a power of two for each group (the same).
    Mxfp8,
    /// 4-bit floats, an 8-bit float for each group (NVIDIA).
    Nvfp4,
}

impl Mode {
    const ALL: [Self; 4] = [Self::Affine, Self::Mxfp4, Self::Mxfp8, Self::Nvfp4];

    /// As MLX and mlx-lm call it.
    pub(crate) fn name(self) -> &'static CStr {
        match self {
            Self::Affine => c"affine",
            Self::Mxfp4 => c"mxfp4",
            Self::Mxfp8 => c"mxfp8",
            Self::Nvfp4 => c"nvfp4",
        }
    }

    /// Group sizes and widths that MLX has kernels for, mlx-lm's default first.
    fn sizes(self) -> (&'static [i32], &'static [i32]) {
        match self {
            Self::Affine => (&[64, 32, 128], &[4, 2, 3, 5, 6, 8]),
            Self::Mxfp4 => (&[32], &[4]),
            Self::Mxfp8 => (&[32], &[8]),
            Self::Nvfp4 => (&[16], &[4]),
        }
    }
}

/// How one matrix is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packing {
    pub(crate) mode: Mode,
    /// Values that share a scale.
    pub(crate) group_size: i32,
    /// Bits a value.
    pub(crate) bits: i32,
}

impl Packing {
    /// Whether groups have a bias beside their scale.
    pub(crate) fn has_biases(&self) -> bool {
        self.mode == Mode::Affine
    }

    fn read(place: &str, block: &Map<String, Value>) -> Result<Self, MlxError> {
        let name = match block.get("mode") {
            None | Some(Value::Null) => "affine",
            Some(mode) => mode
                .as_str()
                .ok_or_else(|| MlxError::Config(format!("`{place}.mode` is {mode}, not the name of a mode")))?,
        };
        let mode = Mode::ALL.into_iter().find(|mode| mode.name().to_str() == Ok(name)).ok_or_else(|| {
            MlxError::Config(format!("`{place}.mode` is `{name}`; MLX knows affine, mxfp4, mxfp8 and nvfp4"))
        })?;
        if block.get("global_scale").and_then(Value::as_bool).unwrap_or(false) {
            return Err(MlxError::Config(format!("`{place}.global_scale` is true; this version has no such scales")));
        }
        let number = |key: &str, known: &[i32]| match block.get(key) {
            None | Some(Value::Null) => Ok(known[0]),
            Some(n) => known
                .iter()
                .copied()
                .find(|k| n.as_i64() == Some((*k).into()))
                .ok_or_else(|| MlxError::Config(format!("`{place}.{key}` is {n}; for {name} MLX knows {known:?}"))),
        };
        let (groups, widths) = mode.sizes();
        Ok(Self { mode, group_size: number("group_size", groups)?, bits: number("bits", widths)? })
    }
}

/// The `quantization` block: a default, and overrides by module path (mlx-lm's form).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Quantization {
    default: Packing,
    overrides: Map<String, Value>,
}

impl Quantization {
    /// From a whole `config.json`; `None`: the checkpoint is not quantised.
    pub(crate) fn read(config: &Value) -> Result<Option<Self>, MlxError> {
        let in_text = config.get("text_config");
        let named = |key: &str| config.get(key).or_else(|| in_text.and_then(|text| text.get(key)));
        let block = match (named("quantization"), named("quantization_config")) {
            (Some(Value::Object(block)), _) => block.clone(),
            (_, Some(Value::Object(block))) if block.contains_key("bits") && block.contains_key("group_size") => {
                block.clone()
            }
            // What the makers of these checkpoints wrote is MLX's form, under another name.
            (_, Some(Value::Object(block))) => match block.get("quant_method").and_then(Value::as_str) {
                Some(method @ ("mxfp4" | "mxfp8")) => Map::from_iter([("mode".to_owned(), method.into())]),
                method => {
                    return Err(MlxError::Config(format!(
                        "`quantization_config` with quant_method `{}` is not MLX's; convert the model with mlx-lm first",
                        method.unwrap_or("unknown")
                    )));
                }
            },
            _ => return Ok(None),
        };
        let default = Packing::read("quantization", &block)?;
        let overrides = block.into_iter().filter(|(_, v)| v.is_object() || v.is_boolean()).collect();
        Ok(Some(Self { default, overrides }))
    }

    /// How `module` (e.g. `model.layers.0.mlp.up_proj`) is stored; `None`: not quantised.
    pub(crate) fn of(&self, module: &str) -> Result<Option<Packing>, MlxError> {
        match self.overrides.get(module) {
            Some(Value::Bool(false)) => Ok(None),
            Some(Value::Object(block)) => Packing::read(&format!("quantization.{module}"), block).map(Some),
            _ => Ok(Some(self.default)),
        }
    }

    /// For people: `4-bit affine, group 64`.
    pub(crate) fn describe(&self) -> String {
        let Packing { mode, group_size, bits } = self.default;
        let mixed = if self.overrides.is_empty() { "" } else { ", mixed" };
        match mode {
            Mode::Affine => format!("{bits}-bit affine, group {group_size}{mixed}"),
            _ => format!("{}{mixed}", mode.name().to_string_lossy()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(block: Value) -> Result<Option<Quantization>, MlxError> {
        Quantization::read(&block)
    }

    #[test]
    fn overrides_win_over_the_default_and_false_means_not_quantised() {
        let block = json!({"group_size": 64, "bits": 4, "a.b": {"group_size": 32, "bits": 8}, "c": false,
            "e": {"mode": "mxfp4"}});
        let q = read(json!({"quantization": block})).unwrap().unwrap();
        let affine = |group_size, bits| Packing { mode: Mode::Affine, group_size, bits };
        assert_eq!(q.of("a.b").unwrap(), Some(affine(32, 8)));
        assert_eq!(q.of("c").unwrap(), None);
        assert_eq!(q.of("d").unwrap(), Some(affine(64, 4)));
        assert_eq!(q.of("e").unwrap(), Some(Packing { mode: Mode::Mxfp4, group_size: 32, bits: 4 }));
        assert_eq!(q.describe(), "4-bit affine, group 64, mixed");
    }

    #[test]
    fn what_others_wrote_in_mlx_form_is_read_and_the_rest_refused_by_name() {
        let q = read(json!({"quantization_config": {"quant_method": "mxfp4"}})).unwrap().unwrap();
        assert_eq!((q.describe(), q.of("x").unwrap().unwrap().group_size), ("mxfp4".into(), 32));
        for (block, word) in [
            (json!({"quantization": {"group_size": 32, "bits": 4, "mode": "int4"}}), "int4"),
            (json!({"quantization": {"group_size": 48, "bits": 4}}), "quantization.group_size"),
            (json!({"quantization": {"group_size": 32, "bits": 8, "mode": "nvfp4"}}), "group_size"),
            (json!({"quantization": {"mode": "nvfp4", "global_scale": true}}), "global_scale"),
            (json!({"quantization_config": {"quant_method": "gptq"}}), "gptq"),
        ] {
            let message = read(block).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }
}

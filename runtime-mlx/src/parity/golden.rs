//! The families' goldens: tiny models drawn anew from names and shapes, and what mlx-lm makes of them; must not know how a
//! decoder is driven.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use mlx_rs::{Array, Dtype, ops};
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    decoder::MlxDecoder,
    load::{LoadOptions, load},
    loader::Residency,
};

/// One case of one family.
#[derive(Deserialize)]
pub(super) struct Golden {
    pub(super) family: String,
    case: String,
    pub(super) dtype: String,
    pub(super) config: Value,
    tensors: Vec<(String, Vec<i32>, String, f64, f64)>,
    /// Parts of names, and what stands in their place in the checkpoint's other form (see `scripts/reference/draw.py`).
    pub(super) unstack: Vec<(String, String)>,
    pub(super) prompt: Vec<u32>,
    pub(super) greedy: Vec<u32>,
    pub(super) ragged: Vec<Ragged>,
    pub(super) measured: BTreeMap<String, f32>,
}

#[derive(Deserialize)]
pub(super) struct Ragged {
    pub(super) prompt: Vec<u32>,
    pub(super) greedy: Vec<u32>,
}

pub(super) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/families")
}

/// All cases, by family and case.
pub(super) fn goldens() -> Vec<Golden> {
    let read = |path: &Path| {
        let mut entries: Vec<PathBuf> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        entries
    };
    let files = read(&folder()).into_iter().flat_map(|family| read(&family));
    let files = files.filter(|path| path.extension().is_some_and(|e| e == "json"));
    let parse = |path: PathBuf| {
        serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap_or_else(|e| panic!("{path:?}: {e}"))
    };
    files.map(parse).collect()
}

impl Golden {
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.family, self.case)
    }

    pub(super) fn quantised(&self) -> bool {
        ["quantization", "quantization_config"].iter().any(|block| self.config.get(block).is_some())
    }

    /// The smallest window of its layers.
    pub(super) fn window(&self) -> Option<i64> {
        let text = self.config.get("text_config").unwrap_or(&self.config);
        text.get("sliding_window").and_then(Value::as_i64)
    }

    /// mlx-lm's logits at every second position of the prompt, from the second one on.
    pub(super) fn logits(&self) -> Array {
        let file = folder().join(&self.family).join(format!("{}.safetensors", self.case));
        Array::load_safetensors(file).unwrap().remove("logits").unwrap()
    }

    pub(super) fn decoder(&self, residency: Residency) -> MlxDecoder {
        self.decoder_of(&self.config, self.arrays(), residency)
    }

    /// With a changed `config.json`.
    pub(super) fn decoder_with(&self, change: impl Fn(&mut Value), residency: Residency) -> MlxDecoder {
        let mut config = self.config.clone();
        change(&mut config);
        self.decoder_of(&config, self.arrays(), residency)
    }

    /// In another form, such as that in which its makers store it.
    pub(super) fn decoder_unstacked(&self, residency: Residency) -> MlxDecoder {
        let mut arrays = self.arrays();
        for (from, to) in &self.unstack {
            let (first, second) = from.split_once('|').map_or((from.as_str(), None), |(a, b)| (a, Some(b)));
            let names: Vec<String> = arrays.keys().filter(|name| name.contains(first)).cloned().collect();
            for name in names {
                let array = arrays.remove(&name).unwrap();
                if let Some(second) = second {
                    let other = arrays.remove(&name.replace(first, second)).unwrap();
                    arrays.insert(name.replace(first, to), ops::concatenate(&[array, other], -2).unwrap());
                } else if to.contains("{}") {
                    for (i, part) in ops::split_equal(&array, array.dim(0), 0).unwrap().into_iter().enumerate() {
                        let single = name.replace(first, &to.replace("{}", &i.to_string()));
                        arrays.insert(single, part.squeeze_axes(&[0]).unwrap());
                    }
                } else {
                    arrays.insert(name.replace(first, to), array);
                }
            }
        }
        self.decoder_of(&self.config, arrays, residency)
    }

    fn decoder_of(&self, config: &Value, arrays: HashMap<String, Array>, residency: Residency) -> MlxDecoder {
        let dir = checkpoint(config, &arrays);
        let options = LoadOptions { residency: Some(residency), ..LoadOptions::default() };
        load(dir.path(), options, &mut |_| {}).unwrap_or_else(|e| panic!("{}: {e}", self.name())).decoder
    }

    fn arrays(&self) -> HashMap<String, Array> {
        self.tensors.iter().map(|entry| (entry.0.clone(), draw(entry))).collect()
    }
}

/// A folder as mlx-lm writes it.
fn checkpoint(config: &Value, arrays: &HashMap<String, Array>) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    Array::save_safetensors(arrays.iter(), None, dir.path().join("model.safetensors")).unwrap();
    dir
}

/// One tensor, number for number as `scripts/reference/draw.py` draws it.
fn draw((name, shape, kind, scale, offset): &(String, Vec<i32>, String, f64, f64)) -> Array {
    let count = shape.iter().product::<i32>() as u64;
    let bits = bits_of(name).take(count as usize);
    match kind.as_str() {
        "u32" => {
            let values: Vec<u32> = bits.map(|b| (b >> 32) as u32 & *scale as u32).collect();
            Array::from_slice(&values, shape)
        }
        "u8" => {
            let values: Vec<u8> = bits.map(|b| (*offset as u64 + (b >> 32) % *scale as u64) as u8).collect();
            Array::from_slice(&values, shape)
        }
        _ => {
            let unit = |b: u64| ((b >> 40) as i32 - (1 << 23)) as f32 / (1 << 23) as f32;
            let values: Vec<f32> = bits.map(|b| unit(b) * *scale as f32 + *offset as f32).collect();
            let array = Array::from_slice(&values, shape);
            if kind == "bf16" { array.as_dtype(Dtype::Bfloat16).unwrap() } else { array }
        }
    }
}

/// SplitMix64 at 1, 2, 3, …, seeded by FNV-1a of the name.
fn bits_of(name: &str) -> impl Iterator<Item = u64> {
    let fnv = |seed: u64, byte: u8| (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325, fnv);
    (1..).map(move |i: u64| {
        let z = seed.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

//! What keys and values cost, from a model's own files; must not know machines.

use std::path::Path;

use serde_json::{Map, Value};

use super::Kv;
use crate::{
    CatalogError, GgufFiles, ModelFiles,
    facts::{config, number},
    gguf::{self, Header},
};

/// Most layers that are looked at: a header comes from anywhere. Origin: `LLAMA_MAX_LAYERS` is 512.
const MAX_LAYERS: u64 = 1024;

/// What keys and values of one sequence cost, from `config.json` or a GGUF header; `None` where these do not say, or say
/// it in a form that is not known here. Layers of which it is not clear that they look back a window only count as ones
/// that look back all the way. Blocks.
///
/// # Errors
/// When a file cannot be read or is not what its name says. One line, with its name.
pub fn kv(files: &ModelFiles) -> Result<Option<Kv>, CatalogError> {
    match &files.gguf {
        Some(gguf) => of_gguf(gguf),
        None => of_config_in(&files.dir),
    }
}

fn of_config_in(dir: &Path) -> Result<Option<Kv>, CatalogError> {
    Ok(of_config(&config(dir)?))
}

fn of_config(config: &Map<String, Value>) -> Option<Kv> {
    // Latent attention: what is kept depends on the engine.
    if number(config, "kv_lora_rank").is_some_and(|rank| rank > 0) {
        return None;
    }
    let layers = number(config, "num_hidden_layers").filter(|layers| (1..=MAX_LAYERS).contains(layers))?;
    let heads = number(config, "num_attention_heads");
    let kv_heads = number(config, "num_key_value_heads").or(heads)?;
    let head = number(config, "head_dim").or_else(|| number(config, "hidden_size")?.checked_div(heads?))?;
    let kinds = config.get("layer_types").or_else(|| config.get("text_config")?.get("layer_types"));
    let kinds = kinds.and_then(Value::as_array).filter(|kinds| kinds.len() as u64 == layers);
    let count = |word: &str| kinds.map(|kinds| kinds.iter().filter(|kind| *kind == word).count() as u64);
    let (attending, windowed) = match (count("full_attention"), count("sliding_attention")) {
        // Words that name neither say nothing about the cache.
        (Some(full), Some(sliding)) if full + sliding > 0 => (full + sliding, sliding),
        _ => (layers, 0),
    };
    let window = number(config, "sliding_window").unwrap_or(0);
    shape(kv_heads.checked_mul(head)?.checked_mul(2)?, attending, windowed, window)
}

fn of_gguf(files: &GgufFiles) -> Result<Option<Kv>, CatalogError> {
    let Some(first) = files.parts.first() else { return Ok(None) };
    Ok(of_header(&gguf::read(first)?))
}

fn of_header(header: &Header) -> Option<Kv> {
    let layers = header.own("block_count").filter(|layers| (1..=MAX_LAYERS).contains(layers))? as usize;
    let all = |name: &str| {
        let numbers = header.numbers(&header.own_key(name)).filter(|numbers| !numbers.is_empty())?;
        // One number for all layers, or one for each.
        let at = |index: usize| if numbers.len() == 1 { numbers.first() } else { numbers.get(index) };
        let layer = |index| at(index).map_or(0, |number| u64::try_from(*number).unwrap_or(0));
        Some((0..layers).map(layer).collect::<Vec<u64>>())
    };
    let heads = all("attention.head_count");
    let kv_heads = all("attention.head_count_kv").or_else(|| heads.clone())?;
    let fewest = heads.and_then(|heads| heads.into_iter().filter(|heads| *heads > 0).min());
    let derived = || header.own("embedding_length")?.checked_div(fewest?);
    let key = header.own("attention.key_length").or_else(derived)?;
    let value = header.own("attention.value_length").or_else(derived)?;
    // Latent attention keeps one vector a token, of which values are a part.
    let latent = header.own("attention.key_length_mla").is_some_and(|length| length > 0);
    let elements = key.checked_add(if latent { 0 } else { value })?;
    // One flag for each layer. A period is read differently by each family, so it is not trusted here.
    let flags = all("attention.sliding_window_pattern")
        .filter(|_| header.own("attention.sliding_window_pattern").is_none())
        .unwrap_or_default();
    let mut sum = Kv { window: header.own("attention.sliding_window").unwrap_or(0), ..Kv::default() };
    for (index, heads) in kv_heads.into_iter().enumerate() {
        let one = shape(heads.checked_mul(elements)?, 1, flags.get(index).copied().unwrap_or(0).min(1), sum.window)?;
        sum.whole = sum.whole.checked_add(one.whole)?;
        sum.windowed = sum.windowed.checked_add(one.windowed)?;
    }
    Some(sum)
}

fn shape(elements: u64, layers: u64, windowed: u64, window: u64) -> Option<Kv> {
    let narrow = |number: u64| u32::try_from(number).ok();
    Some(Kv::of(elements, narrow(layers)?, narrow(windowed)?, narrow(window).unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{Format, gguf::writer::Writer};

    fn config_kv(text: &str) -> Option<Kv> {
        of_config(serde_json::from_str::<Value>(text).unwrap().as_object().unwrap())
    }

    #[test]
    fn the_bundled_model_costs_the_same_in_both_forms() {
        let cache = tempfile::tempdir().unwrap();
        let of = |format| kv(&crate::resolve("mesh-tiny", cache.path(), Some(format), None).unwrap()).unwrap().unwrap();
        let (mlx, gguf) = (of(Format::Mlx), of(Format::Gguf));
        assert_eq!(mlx, gguf);
        assert!(mlx.whole > 0 && mlx.windowed == 0, "{mlx:?}");
    }

    #[test]
    fn config_json_says_what_a_token_costs() {
        let plain = r#""num_hidden_layers":4,"num_attention_heads":8,"hidden_size":64"#;
        for (more, whole, windowed, window) in [
            ("", 4 * 8 * 8 * 2 * 2, 0, 0),
            (r#","num_key_value_heads":2"#, 4 * 2 * 8 * 2 * 2, 0, 0),
            (r#","num_key_value_heads":2,"head_dim":16"#, 4 * 2 * 16 * 2 * 2, 0, 0),
            (
                r#","layer_types":["sliding_attention","sliding_attention","sliding_attention","full_attention"],
                "sliding_window":5"#,
                8 * 8 * 2 * 2,
                3 * 8 * 8 * 2 * 2,
                5,
            ),
            (r#","layer_types":["conv","conv","full_attention","conv"]"#, 8 * 8 * 2 * 2, 0, 0),
            (r#","layer_types":["full_attention"]"#, 4 * 8 * 8 * 2 * 2, 0, 0),
        ] {
            assert_eq!(config_kv(&format!("{{{plain}{more}}}")), Some(Kv { whole, windowed, window }), "{more}");
        }
        let nested = format!(r#"{{"text_config":{{{plain}}}}}"#);
        assert_eq!(config_kv(&nested).unwrap().whole, 1024);
        for nothing in ["{}", r#"{"num_hidden_layers":4}"#, r#"{"num_hidden_layers":99999,"num_attention_heads":1}"#] {
            assert_eq!(config_kv(nothing), None, "{nothing}");
        }
        assert_eq!(config_kv(&format!(r#"{{{plain},"kv_lora_rank":512}}"#)), None);
    }

    #[test]
    fn hostile_numbers_are_no_cost() {
        let huge = r#"{"num_hidden_layers":4,"num_key_value_heads":18446744073709551615,"head_dim":9}"#;
        assert_eq!(config_kv(huge), None);
    }

    #[test]
    fn a_header_says_it_for_all_layers_or_for_each() {
        let dir = tempfile::tempdir().unwrap();
        let found = |writer: Writer| {
            let path = dir.path().join("m.gguf");
            fs::write(&path, writer.tensor("a", &[8], 0, 32).bytes()).unwrap();
            of_header(&gguf::read(&path).unwrap())
        };
        let plain = || Writer::new("toy").number("toy.block_count", 3).number("toy.attention.head_count", 4);
        let sized = || plain().number("toy.embedding_length", 32);
        assert_eq!(found(plain()), None);
        assert_eq!(found(sized()).unwrap().whole, 3 * 4 * (8 + 8) * 2);
        assert_eq!(found(sized().number("toy.attention.head_count_kv", 1)).unwrap().whole, 3 * (8 + 8) * 2);
        let lengths = sized().number("toy.attention.key_length", 16).number("toy.attention.value_length", 4);
        assert_eq!(found(lengths).unwrap().whole, 3 * 4 * (16 + 4) * 2);
        let latent = sized().number("toy.attention.key_length", 16).number("toy.attention.key_length_mla", 9);
        assert_eq!(found(latent).unwrap().whole, 3 * 4 * 16 * 2);
        assert_eq!(found(Writer::new("toy").number("toy.block_count", 99_999)), None);
    }
}

//! What holds for the data in `models.json`; must not know who shows it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::reference::Reference;

#[test]
fn the_data_is_what_its_schema_says() {
    let schema: Value = serde_json::from_str(include_str!("../../models.schema.json")).unwrap();
    let data: Value = serde_json::from_str(DATA).unwrap();
    let faults = schema::faults(&schema, &schema, &data, "$");
    assert!(faults.is_empty(), "{faults:#?}");
    let fields = schema.pointer("/$defs/model/properties").unwrap().as_object().unwrap().len();
    assert_eq!(fields, 16, "a new field belongs into Entry and into the schema");
}

#[test]
fn there_are_many_and_each_is_found_by_its_own_name() {
    let list = parse(DATA).unwrap();
    assert!(list.len() >= 60, "{}", list.len());
    let ids: BTreeSet<String> = list.iter().map(|entry| entry.id.to_lowercase()).collect();
    assert_eq!(ids.len(), list.len(), "ids that differ in case only are one");
    for entry in &list {
        let mark = if entry.format == Format::Mlx { "-MLX" } else { "-GGUF" };
        assert!(entry.id.contains(mark), "{}", entry.id);
        assert!(!crate::bundled().contains(&entry.id.as_str()), "{}", entry.id);
        assert_eq!(super::entry(&entry.id.to_uppercase()), Some(entry), "{}", entry.id);
    }
    assert_eq!(super::entry("Qwen3-4B"), None);
    let sorted = list.windows(2).all(|two| two[0].id.to_lowercase() < two[1].id.to_lowercase());
    assert!(sorted, "by id, so that a change is one place");
}

#[test]
fn every_family_that_was_asked_for_is_there() {
    let families: BTreeSet<&str> = entries().iter().map(|entry| entry.family.as_str()).collect();
    for family in [
        "llama",
        "mistral",
        "qwen2",
        "qwen3",
        "qwen3_moe",
        "qwen3_next",
        "gemma2",
        "gemma3",
        "glm4",
        "glm4_moe",
        "lfm2",
        "deepseek_v3",
        "gpt_oss",
        "phi3",
        "smollm3",
        "olmo2",
        "granite",
    ] {
        assert!(families.contains(family), "{family}");
    }
    for format in [Format::Mlx, Format::Gguf] {
        assert!(entries().iter().filter(|entry| entry.format == format).count() >= 60);
    }
}

#[test]
fn no_two_entries_are_the_same_files() {
    let files: BTreeSet<_> =
        entries().iter().map(|entry| (&entry.repository, &entry.quantization, &entry.files)).collect();
    assert_eq!(files.len(), entries().len());
}

#[test]
fn a_drafter_is_smaller_and_speaks_the_same_tokens_in_the_same_engine() {
    for large in entries() {
        let Some(name) = &large.drafter else { continue };
        let small = entries().iter().find(|entry| entry.id == *name);
        let small = small.unwrap_or_else(|| panic!("{}: no {name}", large.id));
        assert_eq!(small.format, large.format, "{}", large.id);
        assert!(small.vocabulary.is_some() && small.vocabulary == large.vocabulary, "{}: {name}", large.id);
        assert!(small.parameters * 2 <= large.parameters, "{}: {name} is not much smaller", large.id);
        assert!(small.drafter.is_none() || small.drafter != large.drafter, "{}", large.id);
    }
}

#[test]
fn an_entry_says_what_to_ask_the_hub_for() {
    let found = |id: &str| super::entry(id).unwrap().reference();
    assert_eq!(found("Qwen3-4B-MLX"), "mlx-community/Qwen3-4B-4bit");
    assert_eq!(found("Qwen3-4B-GGUF"), "unsloth/Qwen3-4B-GGUF:Q4_K_M");
    let named = Entry { files: vec!["a/m.gguf".into()], ..super::entry("Qwen3-4B-GGUF").unwrap().clone() };
    assert_eq!(named.reference(), "unsloth/Qwen3-4B-GGUF/a/m.gguf");
}

#[test]
fn ids_are_names_and_references_are_of_the_hub() {
    for entry in entries() {
        assert_eq!(Reference::parse(&entry.id, None), Ok(Reference::Name(entry.id.clone())));
        let Ok(Reference::Hub(hub)) = Reference::parse(&entry.reference(), None) else {
            panic!("{}", entry.reference())
        };
        assert_eq!(format!("{}/{}", hub.repo.org(), hub.repo.name()), entry.repository);
        let label = (entry.format == Format::Gguf && entry.files.is_empty()).then_some(entry.quantization.as_str());
        assert_eq!((hub.quant.as_deref(), hub.revision.as_deref()), (label, None), "{}", entry.id);
    }
}

#[test]
fn what_belongs_together_does() {
    for entry in entries() {
        let id = &entry.id;
        assert!(entry.active_parameters.is_none_or(|active| active < entry.parameters), "{id}");
        if let Some(attention) = entry.attention {
            assert_eq!(attention.windowed_layers > 0, attention.window > 0, "{id}");
            assert!(attention.windowed_layers <= attention.layers, "{id}");
        }
        let embeds = entry.capabilities.contains(&Capability::Embeddings);
        assert!(entry.capabilities.contains(&Capability::Chat) != embeds, "{id}: one or the other");
        let words: BTreeSet<&str> = entry.capabilities.iter().map(|one| one.word()).collect();
        assert_eq!(words.len(), entry.capabilities.len(), "{id}: twice");
        assert!(entry.weights().is_some(), "{id}: no size can be guessed from {}", entry.quantization);
        assert!(entry.files.iter().all(|file| !file.split('/').any(|part| part.is_empty() || part == "..")), "{id}");
    }
}

#[test]
fn nothing_is_called_seen_that_nobody_saw() {
    for entry in entries() {
        // A size is a fact of the hub, so it comes with the day on which it was read there.
        assert!(entry.bytes.is_none() || entry.verified.is_some(), "{}", entry.id);
        assert_eq!(entry.weights().unwrap().estimated, entry.bytes.is_none(), "{}", entry.id);
    }
}

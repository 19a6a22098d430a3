//! Tests of picking, on lists as the large publishers have them.

use proptest::prelude::*;

use super::*;
use super::{HubReference, Reference};
use crate::Format::{self, Gguf, Mlx};

const GB: u64 = 1_000_000_000;

fn files(paths: &[&str]) -> Vec<FileInfo> {
    let bytes = |path: &str| if path.ends_with(".gguf") || path.ends_with(".safetensors") { 2 * GB } else { 1000 };
    paths.iter().map(|path| FileInfo { path: (*path).to_owned(), bytes: bytes(path) }).collect()
}

fn reference(text: &str) -> HubReference {
    match Reference::parse(text, None) {
        Ok(Reference::Hub(hub)) => hub,
        other => panic!("{text}: {other:?}"),
    }
}

fn picked(list: &[FileInfo], text: &str, format: Option<Format>) -> Selection {
    pick(list, &reference(text), format).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn weights(list: &[FileInfo], text: &str) -> Vec<String> {
    paths(&picked(list, text, None).weights)
}

fn paths(files: &[FileInfo]) -> Vec<String> {
    files.iter().map(|file| file.path.clone()).collect()
}

fn refusal(list: &[FileInfo], text: &str, format: Option<Format>) -> String {
    let message = match pick(list, &reference(text), format) {
        Ok(found) => panic!("{text}: {found:?}"),
        Err(error) => error.to_string(),
    };
    assert!(!message.contains('\n'), "{message}");
    message
}

/// As unsloth publishes a model that sees: dynamic and plain quantisations, the large one in a folder.
fn unsloth() -> Vec<FileInfo> {
    files(&[
        ".gitattributes",
        "BF16/Qwen3-VL-8B-Instruct-BF16-00001-of-00002.gguf",
        "BF16/Qwen3-VL-8B-Instruct-BF16-00002-of-00002.gguf",
        "Qwen3-VL-8B-Instruct-IQ4_NL.gguf",
        "Qwen3-VL-8B-Instruct-Q2_K.gguf",
        "Qwen3-VL-8B-Instruct-Q2_K_L.gguf",
        "Qwen3-VL-8B-Instruct-Q4_K_M.gguf",
        "Qwen3-VL-8B-Instruct-Q4_K_S.gguf",
        "Qwen3-VL-8B-Instruct-Q8_0.gguf",
        "Qwen3-VL-8B-Instruct-UD-IQ1_S.gguf",
        "Qwen3-VL-8B-Instruct-UD-Q4_K_M.gguf",
        "Qwen3-VL-8B-Instruct-UD-Q4_K_XL.gguf",
        "README.md",
        "config.json",
        "imatrix_unsloth.gguf",
        "mmproj-BF16.gguf",
        "mmproj-F16.gguf",
        "mmproj-F32.gguf",
    ])
}

/// As bartowski does.
fn bartowski() -> Vec<FileInfo> {
    files(&[
        "README.md",
        "google_gemma-3-27b-it-IQ2_XXS.gguf",
        "google_gemma-3-27b-it-Q4_0.gguf",
        "google_gemma-3-27b-it-Q4_0_4_4.gguf",
        "google_gemma-3-27b-it-Q4_K_L.gguf",
        "google_gemma-3-27b-it-Q4_K_M.gguf",
        "google_gemma-3-27b-it-bf16/google_gemma-3-27b-it-bf16-00001-of-00002.gguf",
        "google_gemma-3-27b-it-bf16/google_gemma-3-27b-it-bf16-00002-of-00002.gguf",
        "google_gemma-3-27b-it-imatrix.gguf",
        "mmproj-google_gemma-3-27b-it-bf16.gguf",
        "mmproj-google_gemma-3-27b-it-f16.gguf",
    ])
}

/// As mlx-community does.
fn mlx_community() -> Vec<FileInfo> {
    files(&[
        ".gitattributes",
        "README.md",
        "added_tokens.json",
        "additional_chat_templates/tool_use.jinja",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "merges.txt",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    ])
}

const INDEX: &str =
    r#"{"metadata":{},"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}"#;

#[test]
fn a_quantisation_is_found_by_its_label() {
    for (text, file) in [
        ("unsloth/x:Q4_K_M", "Qwen3-VL-8B-Instruct-Q4_K_M.gguf"),
        ("unsloth/x:q4_k_m", "Qwen3-VL-8B-Instruct-Q4_K_M.gguf"),
        ("unsloth/x:UD-Q4_K_M", "Qwen3-VL-8B-Instruct-UD-Q4_K_M.gguf"),
        ("unsloth/x:UD-Q4_K_XL", "Qwen3-VL-8B-Instruct-UD-Q4_K_XL.gguf"),
        ("unsloth/x:Q4_K_XL", "Qwen3-VL-8B-Instruct-UD-Q4_K_XL.gguf"),
        ("unsloth/x:Q2_K", "Qwen3-VL-8B-Instruct-Q2_K.gguf"),
        ("unsloth/x:IQ1_S", "Qwen3-VL-8B-Instruct-UD-IQ1_S.gguf"),
        ("unsloth/x/Qwen3-VL-8B-Instruct-Q8_0.gguf", "Qwen3-VL-8B-Instruct-Q8_0.gguf"),
    ] {
        assert_eq!(weights(&unsloth(), text), [file], "{text}");
    }
    assert_eq!(weights(&bartowski(), "bartowski/x:Q4_0"), ["google_gemma-3-27b-it-Q4_0.gguf"]);
    for (file, label) in
        [("Qwen3-4B.i1-Q4_K_M.gguf", "Q4_K_M"), ("model_q4_k_m.gguf", "q4_k_m"), ("gpt-oss-20b-mxfp4.gguf", "MXFP4")]
    {
        let list = files(&[file, "other-Q6_K.gguf"]);
        assert_eq!(weights(&list, &format!("a/b:{label}")), [file]);
    }
}

#[test]
fn a_split_model_comes_whole_or_not_at_all() {
    let parts =
        ["BF16/Qwen3-VL-8B-Instruct-BF16-00001-of-00002.gguf", "BF16/Qwen3-VL-8B-Instruct-BF16-00002-of-00002.gguf"];
    for text in ["unsloth/x:BF16", "unsloth/x/BF16", &format!("unsloth/x/{}", parts[1])] {
        let selection = picked(&unsloth(), text, None);
        assert_eq!((paths(&selection.weights), selection.dir.as_str()), (parts.map(str::to_owned).to_vec(), "BF16"));
        assert_eq!(selection.bytes(), 4 * GB);
    }
    let list: Vec<FileInfo> = unsloth().into_iter().filter(|file| file.path != parts[0]).collect();
    assert!(refusal(&list, "unsloth/x:BF16", None).contains(parts[0]));
    let hostile = files(&["m-00002-of-99999.gguf"]);
    assert!(refusal(&hostile, "a/b", None).contains("m-00001-of-99999.gguf"));

    let folders = files(&["Q4_K_M/model-00001-of-00002.gguf", "Q4_K_M/model-00002-of-00002.gguf", "Q8_0/model.gguf"]);
    assert_eq!(weights(&folders, "a/b:Q4_K_M").len(), 2);
    assert_eq!(weights(&folders, "a/b:Q8_0"), ["Q8_0/model.gguf"]);
}

#[test]
fn several_are_listed_as_they_can_be_written() {
    let message = refusal(&unsloth(), "unsloth/x", None);
    assert!(
        message.starts_with("unsloth/x has 10 models: write one of these behind its name: :BF16 (4.0 GB), "),
        "{message}"
    );
    assert!(message.contains(":UD-Q4_K_XL (2.0 GB)") && !message.contains("mmproj") && !message.contains("imatrix"));
    let message = refusal(&bartowski(), "bartowski/x:Q5_K_M", None);
    assert!(
        message.contains("no quantisation \"Q5_K_M\"; it has ") && message.contains(":Q4_0_4_4 (2.0 GB)"),
        "{message}"
    );
    assert!(refusal(&bartowski(), "bartowski/x:Q4_K", None).contains("no quantisation"), "Q4_K is no Q4_K_M");
    assert!(refusal(&bartowski(), "bartowski/x:K_M", None).contains("no quantisation"));

    for list in [unsloth(), bartowski()] {
        let Err(PickError::Several { candidates, .. }) = pick(&list, &reference("a/b"), None) else { panic!() };
        for candidate in &candidates.shown {
            let selection = picked(&list, &format!("a/b:{}", candidate.label), None);
            assert_eq!(selection.weights[0].path, candidate.file, "a candidate can be written as it is shown");
        }
    }
    let many: Vec<FileInfo> =
        (0..30).map(|number| FileInfo { path: format!("m{number}.gguf"), bytes: number * GB }).collect();
    let message = refusal(&many, "a/b", None);
    assert!(
        message.contains(":m29.gguf (29.0 GB), :m28.gguf") && message.ends_with("and 10 smaller ones"),
        "{message}"
    );
}

#[test]
fn a_projector_is_told_apart_and_never_the_model() {
    let selection = picked(&unsloth(), "unsloth/x:Q8_0", None);
    assert_eq!(paths(&selection.projectors), ["mmproj-F16.gguf", "mmproj-BF16.gguf", "mmproj-F32.gguf"]);
    assert_eq!(selection.files().count(), 1);
    let small = files(&["SmolVLM-500M-Instruct-Q8_0.gguf", "mmproj-SmolVLM-500M-Instruct-Q8_0.gguf", "README.md"]);
    assert_eq!(weights(&small, "ggml-org/SmolVLM-500M-Instruct-GGUF"), ["SmolVLM-500M-Instruct-Q8_0.gguf"]);
    assert_eq!(weights(&small, "ggml-org/x:Q8_0"), ["SmolVLM-500M-Instruct-Q8_0.gguf"]);
    assert!(refusal(&unsloth(), "unsloth/x/mmproj-F16.gguf", None).contains("is a projector and no model"));
    assert!(refusal(&unsloth(), "unsloth/x:F16", None).contains("no quantisation"), "only the projector has it");
    assert!(refusal(&files(&["mmproj-F16.gguf"]), "a/b", Some(Gguf)).contains("no GGUF model"));
}

#[test]
fn an_embedding_model_comes_with_what_says_how_it_pools() {
    let list = files(&[
        "1_Pooling/README.md",
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/model.safetensors",
        "config.json",
        "model.safetensors",
        "modules.json",
        "onnx/1_Pooling/config.json",
        "tokenizer.json",
    ]);
    let selection = picked(&list, "org/embedding", Some(Mlx));
    assert_eq!(paths(&selection.weights), ["model.safetensors"]);
    assert_eq!(paths(&selection.sidecars), ["config.json", "1_Pooling/config.json", "modules.json", "tokenizer.json"]);
}

#[test]
fn an_mlx_model_comes_with_its_sidecars() {
    let list = mlx_community();
    let selection = picked(&list, "mlx-community/Qwen3-4B-4bit", Some(Mlx));
    let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    assert_eq!((paths(&selection.weights), selection.format), (shards.map(str::to_owned).to_vec(), Mlx));
    assert_eq!(selection.index.as_ref().unwrap().path, "model.safetensors.index.json");
    assert_eq!(
        paths(&selection.sidecars),
        [
            "config.json",
            "additional_chat_templates/tool_use.jinja",
            "chat_template.jinja",
            "generation_config.json",
            "merges.txt",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "vocab.json"
        ]
    );
    assert_eq!(selection.clone().with_index(&list, INDEX.as_bytes()).unwrap(), selection);
    for text in ["a/b", "a/Qwen3-4B-4bit:4bit", "a/b/model.safetensors.index.json", "a/b/config.json"] {
        assert_eq!(picked(&list, text, Some(Mlx)), selection, "{text}");
    }
    assert!(refusal(&list, "mlx-community/Qwen3-4B-4bit:8bit", Some(Mlx)).contains("no quantisation \"8bit\""));
    assert!(refusal(&list, "a/b/README.md", Some(Mlx)).contains("is no model"));
    assert!(refusal(&list, "a/b", Some(Gguf)).contains("no GGUF model"));
    assert!(refusal(&list, "a/b/x.gguf", Some(Mlx)).contains("--mlx was given"));
}

#[test]
fn the_index_decides_which_weights_there_are() {
    let mut list = mlx_community();
    list.extend(files(&["consolidated.safetensors", "model-00003-of-00003.safetensors"]));
    let selection = picked(&list, "a/b", Some(Mlx)).with_index(&list, INDEX.as_bytes()).unwrap();
    assert_eq!(selection.weights.len(), 2);
    let refused = |text: &str, index: &str| {
        picked(&list, text, Some(Mlx)).with_index(&list, index.as_bytes()).unwrap_err().to_string()
    };
    let map = |file: &str| format!(r#"{{"weight_map":{{"a":"{file}"}}}}"#);
    for (index, why) in [
        ("nonsense".to_owned(), "not an index"),
        ("[]".to_owned(), "not an index"),
        (r#"{"weight_map":{}}"#.to_owned(), "names no file"),
        (map("../../x.safetensors"), "leaves its folder"),
        (map("/etc/x.safetensors"), "empty part"),
        (map("other.safetensors"), "does not have"),
        (map("config.json"), "no .safetensors file"),
    ] {
        let message = refused("a/b", &index);
        assert!(message.starts_with("model.safetensors.index.json: ") && message.contains(why), "{message}");
    }
    assert!(refused("a/b/consolidated.safetensors", INDEX).contains("does not use"));
}

#[test]
fn weights_without_an_index_are_one_file() {
    let one = files(&["config.json", "weights.safetensors"]);
    assert_eq!(weights(&one, "a/b"), ["weights.safetensors"]);
    let mistral = files(&["config.json", "consolidated.safetensors", "model.safetensors"]);
    assert_eq!(weights(&mistral, "a/b"), ["model.safetensors"]);
    assert!(refusal(&mistral, "a/b/consolidated.safetensors", None).contains("not what the model beside it"));
    let two = files(&["config.json", "a.safetensors", "b.safetensors"]);
    assert!(refusal(&two, "a/b", None).contains("several .safetensors files and no model.safetensors.index.json"));
    assert!(refusal(&files(&["model.safetensors"]), "a/b", Some(Mlx)).contains("no config.json"));
    assert!(refusal(&files(&["config.json", "pytorch_model.bin"]), "a/b", None).contains("neither a GGUF file nor"));
    let folders = files(&["4bit/config.json", "4bit/model.safetensors", "8bit/config.json", "8bit/model.safetensors"]);
    assert_eq!(weights(&folders, "a/b:4bit"), ["4bit/model.safetensors"]);
    assert_eq!(weights(&folders, "a/b/8bit"), ["8bit/model.safetensors"]);
    let message = refusal(&folders, "a/b", None);
    assert!(message.contains("has 2 models") && message.contains(":4bit/model.safetensors (2.0 GB)"), "{message}");
    assert_eq!(weights(&folders, "a/b:4bit/model.safetensors"), ["4bit/model.safetensors"]);
}

#[test]
fn what_is_there_decides_unless_it_is_both() {
    let mut both = mlx_community();
    both.extend(files(&["x-Q4_K_M.gguf"]));
    let message = refusal(&both, "a/b", None);
    assert!(message.contains("--mlx") && message.contains("--gguf"), "{message}");
    assert_eq!(picked(&both, "a/b", Some(Mlx)).format, Mlx);
    assert_eq!(picked(&both, "a/b", Some(Gguf)).format, Gguf);
    assert_eq!(picked(&both, "a/b:Q4_K_M", None).format, Gguf);
    assert_eq!(picked(&both, "a/b/x-Q4_K_M.gguf", None).format, Gguf);
    assert_eq!(picked(&both, "a/b/model.safetensors.index.json", None).format, Mlx);
    assert_eq!(picked(&mlx_community(), "a/b", None).format, Mlx);
    assert!(refusal(&both, "a/b/nope", None).contains("no file \"nope\""));
    assert!(refusal(&files(&["README.md"]), "a/b", None).contains("neither"));
    assert!(refusal(&unsloth(), "a/b/nope.gguf", None).contains("no file \"nope.gguf\"; it has :BF16"));
}

#[test]
fn a_list_that_leaves_its_folder_is_refused_whole() {
    for path in ["../x", "/etc/x", "a/../../x", "nul\0", "back\\slash", "a//b", "", &"long".repeat(2000)] {
        let mut list = mlx_community();
        list.push(FileInfo { path: path.to_owned(), bytes: 1 });
        assert!(refusal(&list, "a/b", Some(Mlx)).contains("refused: it lists a file"), "{path}");
    }
}

fn any_path() -> impl Strategy<Value = String> {
    let words = vec![
        "/",
        "-",
        ".",
        "_",
        "..",
        "a",
        "é",
        "UD",
        "Q4_K_M",
        "4bit",
        "mmproj",
        "imatrix",
        "-00001-of-00002",
        "-00002-of-00002",
        "model",
        ".gguf",
        ".GGUF",
        ".safetensors",
        "model.safetensors.index.json",
        "config.json",
        "tokenizer.json",
        "\0",
    ];
    prop::collection::vec(prop::sample::select(words), 1..6).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn whatever_is_picked_lies_in_the_list_and_in_the_folder(
        list in prop::collection::vec(any_path(), 0..12),
        named in prop::option::of(any_path()),
        label in prop::option::of(prop::sample::select(vec!["Q4_K_M", "4bit", "a", "", "é", "UD-Q4_K_M"])),
        format in prop::sample::select(vec![None, Some(Mlx), Some(Gguf)]),
        index in prop::collection::vec(any_path(), 0..3),
    ) {
        let list: Vec<FileInfo> = list.into_iter().map(|path| FileInfo { path, bytes: u64::MAX / 3 }).collect();
        let mut reference = reference("org/repo");
        (reference.file, reference.quant) = (named, label.map(str::to_owned));
        match pick(&list, &reference, format) {
            Ok(selection) => {
                let entries = index.into_iter().enumerate().map(|(number, file)| (number.to_string(), file.into()));
                let map: serde_json::Map<_, _> = entries.collect();
                let index = serde_json::json!({ "weight_map": map }).to_string();
                let certain = selection.clone().with_index(&list, index.as_bytes());
                for selection in [Ok(selection), certain].into_iter().flatten() {
                    prop_assert!(format.is_none_or(|format| format == selection.format));
                    let _ = selection.bytes();
                    for file in selection.files().chain(&selection.projectors) {
                        prop_assert!(list.contains(file));
                        prop_assert!(super::check::path_problem(&file.path).is_none());
                    }
                }
            }
            Err(error) => prop_assert!(!error.to_string().contains('\n')),
        }
    }
}

//! The architecture, checked: ARCHITECTURE.md names these tests beside the invariants they guard.
#![allow(clippy::unwrap_used, reason = "a test's helpers may fail loudly")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every Rust file below the rooms' `src`, with its text, by path from the root.
fn sources() -> BTreeMap<String, String> {
    let rooms = [
        "mesh-proto",
        "engine",
        "catalog",
        "runtime-mlx",
        "runtime-gguf-bridge",
        "mesh-node",
        "scripts/mlx-bindings",
        "scripts/test-hub",
    ];
    let mut found = BTreeMap::new();
    for room in rooms {
        walk(&root().join(room).join("src"), &mut found);
    }
    assert!(found.len() > 50, "the rooms moved: {} files", found.len());
    found
}

fn walk(dir: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            found.insert(name, fs::read_to_string(&path).unwrap());
        }
    }
}

/// Lines that are code: no comments, no attributes' lint names.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim_start).filter(|line| !line.starts_with("//"))
}

fn files_where(test: impl Fn(&str, &str) -> bool) -> Vec<String> {
    sources().into_iter().filter(|(name, text)| test(name, text)).map(|(name, _)| name).collect()
}

#[test]
fn crate_arrows_point_where_the_architecture_says() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("mesh-proto", &[][..]),
        ("engine", &["mesh-proto"]),
        ("catalog", &["mesh-proto"]),
        ("runtime-mlx", &["engine", "mesh-proto"]),
        ("runtime-gguf-bridge", &["catalog", "engine", "mesh-proto"]),
        ("mesh-node", &["catalog", "engine", "mesh-proto", "runtime-gguf-bridge", "runtime-mlx"]),
        ("mlx-bindings", &[]),
        ("test-hub", &[]),
    ]);
    let forbidden: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("mesh-proto", &["tokio", "iroh", "axum"][..]),
        ("engine", &["axum", "hyper", "iroh", "mlx-rs", "mlx-sys", "clap"]),
        ("catalog", &["axum", "iroh", "mlx-rs"]),
        ("runtime-gguf-bridge", &["axum", "iroh", "mlx-rs", "mlx-sys", "clap"]),
        ("runtime-mlx", &["tokio", "axum", "hyper", "iroh"]),
        ("mesh-node", &["mlx-rs", "mlx-sys"]),
    ]);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert_eq!(packages.len(), allowed.len(), "a new member belongs into this test and into ARCHITECTURE.md");
    for package in packages {
        let name = package["name"].as_str().unwrap();
        for dependency in package["dependencies"].as_array().unwrap() {
            if dependency["kind"] == "dev" {
                continue;
            }
            let to = dependency["name"].as_str().unwrap();
            let inside = allowed.contains_key(to);
            assert!(!inside || allowed[name].contains(&to), "{name} must not know {to}");
            let refused = forbidden.get(name).is_some_and(|list| list.contains(&to));
            assert!(!refused, "{name} must not depend on {to}");
        }
    }
}

#[test]
fn unsafe_lies_in_one_module_a_crate() {
    let word = |line: &str| line.contains("unsafe {") || line.contains("unsafe fn") || line.contains("unsafe impl");
    let found = files_where(|name, text| !name.ends_with("/sys.rs") && code(text).any(word));
    assert!(found.is_empty(), "unsafe outside sys.rs: {found:?}");
}

#[test]
fn every_file_says_first_what_it_is() {
    let found = files_where(|_, text| !text.starts_with("//! "));
    assert!(found.is_empty(), "no first-line docs: {found:?}");
}

#[test]
fn no_file_is_longer_than_six_hundred_lines() {
    let found = files_where(|_, text| text.lines().count() > 600);
    assert!(found.is_empty(), "split these: {found:?}");
}

#[test]
fn only_the_api_knows_openai_json() {
    let found = files_where(|name, text| {
        !name.starts_with("mesh-node/src/api/") && code(text).any(|line| line.contains("\"chat.completion"))
    });
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn the_protocol_crate_has_no_clock_no_threads_and_no_unordered_maps() {
    let found = files_where(|name, text| {
        let word = |line: &str| {
            ["HashMap", "HashSet", "Instant", "SystemTime", "std::thread"].iter().any(|w| line.contains(w))
        };
        name.starts_with("mesh-proto/") && code(text).any(word)
    });
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn the_scheduler_has_no_clock_no_threads_and_no_channels() {
    let found = files_where(|name, text| {
        let word = |line: &str| ["Instant", "SystemTime", "thread", "mpsc", "HashMap"].iter().any(|w| line.contains(w));
        name.starts_with("engine/src/scheduler/") && code(text).any(word)
    });
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn platforms_differ_in_manifests_only() {
    let found = files_where(|_, text| code(text).any(|line| line.contains("target_os")));
    assert!(found.is_empty(), "cfg(target_os) in code: {found:?}");
}

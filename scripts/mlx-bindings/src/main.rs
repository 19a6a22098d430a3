//! Writes the `bindings.rs` that `mlx-sys` expects, on Linux, where its own build script cannot run.
//!
//! Usage: `mlx-bindings MLX_C_FOLDER OUTPUT_FILE [CLANG_ARGUMENT…]`. The headers, the blocked functions and the Rust
//! target are those of `mlx-sys`'s own build script.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Read before mlx-c's own headers, whose `half.h` it replaces.
const HALF_TYPES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/half_types.h");

/// What mlx-rs reads: `.0` of a half float, and a brain float as the bits themselves.
const HALF_TYPES_IN_RUST: &str = "\
#[repr(transparent)]
#[derive(Debug, Default, Copy, Clone)]
pub struct float16_t(pub u16);
pub type bfloat16_t = u16;";

fn main() -> Result<()> {
    let mut arguments = env::args_os().skip(1);
    let usage = "usage: mlx-bindings MLX_C_FOLDER OUTPUT_FILE [CLANG_ARGUMENT…]";
    let mlx_c = PathBuf::from(arguments.next().context(usage)?);
    let output = PathBuf::from(arguments.next().context(usage)?);
    let clang_arguments: Vec<OsString> = arguments.collect();

    let bindings = generate(&mlx_c, &clang_arguments)?;
    fs::write(&output, bindings).with_context(|| format!("cannot write {}", output.display()))
}

/// The bindings of every public header of mlx-c, as Rust source.
fn generate(mlx_c: &Path, clang_arguments: &[OsString]) -> Result<String> {
    let mut builder = bindgen::Builder::default()
        .rust_target("1.73.0".parse().context("bindgen does not know this Rust version")?)
        .header(HALF_TYPES)
        .clang_arg(format!("-I{}", mlx_c.display()))
        .clang_args(clang_arguments.iter().map(|argument| argument.to_string_lossy()))
        .blocklist_function("malloc")
        .blocklist_function("realloc")
        .blocklist_type("float16_t|bfloat16_t")
        .raw_line(HALF_TYPES_IN_RUST);
    for header in headers(mlx_c)? {
        builder = builder.header(header.to_string_lossy());
    }
    Ok(builder.generate().context("bindgen could not read mlx-c's headers")?.to_string())
}

/// mlx-c's public headers, in a fixed order.
fn headers(mlx_c: &Path) -> Result<Vec<PathBuf>> {
    let folder = mlx_c.join("mlx/c");
    let mut headers = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
        if path.extension() == Some(OsStr::new("h")) {
            headers.push(path);
        }
    }
    ensure!(!headers.is_empty(), "no headers in {}", folder.display());
    headers.sort();
    Ok(headers)
}

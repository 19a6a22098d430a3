//! Serves a folder of `org/name/…` as a Hugging Face hub, for shell scripts.
//!
//! Its first line is its URL, for `HF_ENDPOINT`; `URL/_test/counts` tells what was sent. It runs until it is ended.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use test_hub::{Content, Hub, Repo};

/// Bytes from which on a file lies in LFS whatever its name. Origin: the hub's own limit for git.
const LFS_BYTES: u64 = 10 * 1024 * 1024;
/// What lies in LFS whatever its size. Origin: the `.gitattributes` that the hub puts into new repositories.
const LFS_ENDINGS: [&str; 4] = ["bin", "gguf", "model", "safetensors"];

/// Serves a folder of repositories as a Hugging Face hub on 127.0.0.1.
#[derive(Debug, Parser)]
struct Arguments {
    /// The folder: its folders' folders are repositories.
    folder: PathBuf,
    /// The port; 0: any.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Bytes a second of every answer with a file's content.
    #[arg(long)]
    throttle: Option<u64>,
    /// A token that is known, and that opens gated and private repositories: those with a file `.gated` or `.private`.
    #[arg(long)]
    token: Option<String>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut hub = Hub::new().port(arguments.port).throttle(arguments.throttle);
    let mut count = 0;
    for org in folders(&arguments.folder)? {
        for folder in folders(&org)? {
            hub = hub.repo(repository(&org, &folder, arguments.token.as_deref())?);
            count += 1;
        }
    }
    ensure!(count > 0, "{}: no folder org/name in it", arguments.folder.display());
    if let Some(token) = arguments.token {
        hub = hub.token(token);
    }
    let hub = hub.start().context("cannot start")?;
    let mut out = io::stdout();
    writeln!(out, "{}", hub.url())?;
    out.flush()?;
    loop {
        thread::park();
    }
}

fn repository(org: &Path, folder: &Path, token: Option<&str>) -> Result<Repo> {
    let mut repo = Repo::new(format!("{}/{}", name(org), name(folder)));
    for path in files(folder)? {
        let relative = path.strip_prefix(folder)?.to_string_lossy().into_owned();
        repo = match relative.as_str() {
            ".gated" => repo.gated(token),
            ".private" => repo.private(token),
            _ => {
                let content = Content::file(&path).with_context(|| path.display().to_string())?;
                let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
                let lfs = content.len() > LFS_BYTES || LFS_ENDINGS.contains(&ending);
                if lfs { repo.lfs(relative, content) } else { repo.file(relative, content) }
            }
        };
    }
    Ok(repo)
}

fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    Ok(entries(folder)?.into_iter().filter(|path| path.is_dir()).collect())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in entries(folder)? {
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = || -> io::Result<Vec<PathBuf>> { fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect() };
    read().with_context(|| folder.display().to_string())
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

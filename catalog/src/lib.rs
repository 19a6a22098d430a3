//! From the name someone typed to model files on disk; must not know engines, the mesh, or the environment.
//!
//! [`resolve`] finds what is on this machine: the model that lies in the binary, and paths. [`fetch`] finds the rest on the
//! hub: entries of the catalog and repositories.
//!
//! ```
//! # let cache = std::env::temp_dir().join(format!("catalog-doc-{}", std::process::id()));
//! let error = catalog::resolve("some-org/some-model", &cache, None, None).unwrap_err();
//! assert!(error.to_string().contains("--mlx-file"));
//! ```

mod bundled;
mod entries;
mod error;
mod facts;
pub mod fit;
pub mod gguf;
mod gguf_files;
pub mod hub;
mod identity;
mod local;
mod lookup;
pub mod reference;
mod split;
mod weights;

use std::path::{Path, PathBuf};

use mesh_proto::ModelId;

pub use entries::{Attention, Capability, Entry, entries, entry};
pub use error::CatalogError;
pub use facts::{ModelFacts, facts};
pub use identity::content;
pub use lookup::{HubModel, fetch, on_hub};

/// A model whose files lie on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFiles {
    /// The name that clients use.
    pub id: ModelId,
    /// The folder with the model's files. For MLX: `config.json`, weights and tokenizer.
    pub dir: PathBuf,
    /// The files of a GGUF model; `None`: an MLX folder.
    pub gguf: Option<GgufFiles>,
}

/// The files of a GGUF model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GgufFiles {
    /// The model's file, or all its parts (`…-00001-of-00003.gguf`) in order. Never empty; the first one is what
    /// llama-server is given, and it finds the others itself.
    pub parts: Vec<PathBuf>,
    /// The projector that lets the model see or hear.
    pub mmproj: Option<PathBuf>,
}

/// In which form a model's files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A folder in Hugging Face's layout with `.safetensors` weights.
    Mlx,
    /// llama.cpp's single-file format.
    Gguf,
}

impl ModelFiles {
    /// The form of these files.
    pub fn format(&self) -> Format {
        if self.gguf.is_some() { Format::Gguf } else { Format::Mlx }
    }
}

/// Finds the files of a model by the name that was typed: a bundled model (laid out under `cache`), or a path. Without
/// a `format` it is what is there; `mmproj` names a GGUF model's projector (see [`open_gguf`]) and so asks for GGUF.
/// Never touches the network.
///
/// # Errors
/// When nothing on this machine has that name, when its folder lacks what serving needs, or when it is there in both
/// formats and none was asked for, as bundled models are. One line, with what to do.
pub fn resolve(
    name: &str,
    cache: &Path,
    format: Option<Format>,
    mmproj: Option<&Path>,
) -> Result<ModelFiles, CatalogError> {
    let format = match (format, mmproj) {
        (Some(Format::Mlx), Some(path)) => return Err(CatalogError::ProjectorForMlx(path.to_owned())),
        (None, Some(_)) => Some(Format::Gguf),
        (format, _) => format,
    };
    if let Some(bundle) = bundled::find(name) {
        let mlx = bundle.lay_out(cache)?;
        return match format {
            None => Err(CatalogError::BothFormats(name.to_owned())),
            Some(Format::Mlx) => Ok(mlx),
            Some(Format::Gguf) => Ok(ModelFiles { id: mlx.id, ..open_gguf(&mlx.dir, mmproj)? }),
        };
    }
    if !local::is_path(name) && !Path::new(name).exists() {
        return Err(CatalogError::UnknownName { name: name.to_owned(), bundled: bundled::names() });
    }
    let path = Path::new(name);
    match format {
        Some(Format::Mlx) => open(path),
        Some(Format::Gguf) => open_gguf(path, mmproj),
        None => match local::format(path)? {
            Format::Mlx => open(path),
            Format::Gguf => open_gguf(path, None),
        },
    }
}

/// The names of the models that lie in the binary; each of them [`resolve`]s, in both formats.
pub fn bundled() -> Vec<&'static str> {
    bundled::names()
}

/// An MLX model by its path: a folder in Hugging Face's layout, or a `.safetensors` file of such a folder. It is called
/// what the folder is called.
///
/// # Errors
/// When it does not exist or is no MLX model; the message names the path and what is missing.
pub fn open(path: &Path) -> Result<ModelFiles, CatalogError> {
    local::open(path)
}

/// A GGUF model by its path: its file, any of its parts, or a folder with exactly one model. It is called what its file
/// is called, without `.gguf` and the part's number.
///
/// `mmproj` is its projector. Without one, the only projector in the same folder is taken: a file `mmproj*.gguf`, or
/// one of the architecture `clip`.
///
/// # Errors
/// When it does not exist, is no GGUF model, or lacks a part; when the folder has several models, or several projectors
/// and none was named. One line, with the path. Headers are not checked here: [`facts`] does.
pub fn open_gguf(path: &Path, mmproj: Option<&Path>) -> Result<ModelFiles, CatalogError> {
    gguf_files::open(path, mmproj)
}

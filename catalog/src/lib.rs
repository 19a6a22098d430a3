//! From the name someone typed to model files on disk; must not know engines, the mesh, or the environment.
//!
//! Two kinds of names work today: the model that lies in the binary, and paths. Names of repositories that have
//! to be downloaded join them here.
//!
//! ```
//! # let cache = std::env::temp_dir().join(format!("catalog-doc-{}", std::process::id()));
//! let error = catalog::resolve("some-org/some-model", &cache).unwrap_err();
//! assert!(error.to_string().contains("--mlx-file"));
//! ```

mod bundled;
mod error;
mod facts;
mod identity;
mod local;
mod weights;

use std::path::{Path, PathBuf};

use mesh_proto::ModelId;

pub use error::CatalogError;
pub use facts::{ModelFacts, facts};
pub use identity::content;

/// A model whose files lie on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFiles {
    /// The name that clients use.
    pub id: ModelId,
    /// The folder with `config.json`, weights and tokenizer.
    pub dir: PathBuf,
}

/// Finds the files of a model by the name that was typed: a bundled model (laid out under `cache`), or a path.
/// Never touches the network.
///
/// # Errors
/// When nothing on this machine has that name, or its folder lacks what serving needs. One line, with what to do.
pub fn resolve(name: &str, cache: &Path) -> Result<ModelFiles, CatalogError> {
    if let Some(bundle) = bundled::find(name) {
        return bundle.lay_out(cache);
    }
    if local::is_path(name) || Path::new(name).exists() {
        return open(Path::new(name));
    }
    Err(CatalogError::UnknownName { name: name.to_owned(), bundled: bundled::names() })
}

/// The names of the models that lie in the binary; each of them [`resolve`]s.
pub fn bundled() -> Vec<&'static str> {
    bundled::names()
}

/// A model by its path: a folder in Hugging Face's layout, or a `.safetensors` file of such a folder. It is called
/// what the folder is called.
///
/// # Errors
/// When it does not exist or is no MLX model; the message names the path and what is missing.
pub fn open(path: &Path) -> Result<ModelFiles, CatalogError> {
    local::open(path)
}

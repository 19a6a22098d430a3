//! Why a name leads to no model, in one line each; must not know how it is shown.

use std::{io, path::PathBuf};

use thiserror::Error;

/// Why a name leads to no model.
#[derive(Debug, Error)]
pub enum CatalogError {
    /// Neither bundled nor on disk.
    #[error(
        "no model called {name} is on this machine (downloads come later): give the folder of a model that you have \
         with --mlx-file DIR, or try the bundled {}",
        bundled.join(", ")
    )]
    UnknownName {
        /// What was typed.
        name: String,
        /// What would have worked.
        bundled: Vec<&'static str>,
    },
    /// There is nothing at this path.
    #[error("{}: no such file or folder", .0.display())]
    Missing(PathBuf),
    /// A file that holds no MLX weights.
    #[error("{}: not a .safetensors file; --mlx-file takes one, or the folder around it", .0.display())]
    NotWeights(PathBuf),
    /// A folder that is no model.
    #[error("{}: no {what} in this folder, so it is no MLX model", dir.display())]
    Incomplete {
        /// The folder.
        dir: PathBuf,
        /// What is missing.
        what: &'static str,
    },
    /// A weight file that its folder's model does not use.
    #[error("{}: the model in this folder has other weight files and would not use this one; name the folder, or move the file", .0.display())]
    Stray(PathBuf),
    /// A path that gives the model no name.
    #[error("{}: a model is called what its folder is called, and this folder has no usable name", .0.display())]
    Nameless(PathBuf),
    /// A file that is there and cannot be what it should be.
    #[error("{}: {message}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// The disk refused.
    #[error("{}: {cause}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The bundled model cannot be laid out.
    #[error("cannot lay out the bundled model in {}: {cause} (MESH_LLM_CACHE names another folder)", path.display())]
    Cache {
        /// Where.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

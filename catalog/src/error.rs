//! Why a name leads to no model, in one line each; must not know how it is shown.

use std::{io, path::PathBuf};

use thiserror::Error;

/// Why a name leads to no model.
#[derive(Debug, Error)]
pub enum CatalogError {
    /// Neither bundled nor on disk.
    #[error(
        "no model called {name} is on this machine or in the catalog: write a repository of the hub as ORG/NAME, give a \
         model that you have with --mlx-file DIR or --gguf-file FILE, or try the bundled {}",
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
    #[error(
        "{}: not a .safetensors file; --mlx-file takes one, or the folder around it (and --gguf-file a .gguf file)",
        .0.display()
    )]
    NotWeights(PathBuf),
    /// A folder that is no model.
    #[error("{}: no {what} in this folder, so it is no MLX model", dir.display())]
    Incomplete {
        /// The folder.
        dir: PathBuf,
        /// What is missing.
        what: &'static str,
    },
    /// A model in both formats, where nobody said which.
    #[error("{0} is there as MLX and as GGUF: say which with --mlx or --gguf")]
    BothFormats(String),
    /// A folder that is no model in any format.
    #[error("{}: neither an MLX model (config.json and .safetensors) nor a .gguf file in this folder", .0.display())]
    NoModel(PathBuf),
    /// A folder without a GGUF model.
    #[error("{}: no GGUF model in this folder", .0.display())]
    NoGguf(PathBuf),
    /// A folder with more than one GGUF model.
    #[error("{}: more than one GGUF model in this folder; name one with --gguf-file: {}", dir.display(), listed(names))]
    SeveralModels {
        /// The folder.
        dir: PathBuf,
        /// Their first files.
        names: Vec<String>,
    },
    /// More than one projector beside a GGUF model.
    #[error("{}: more than one projector beside the model; say which with --mmproj: {}", dir.display(), listed(names))]
    SeveralProjectors {
        /// The folder.
        dir: PathBuf,
        /// Their files.
        names: Vec<String>,
    },
    /// A projector for a model that takes none.
    #[error("--mmproj {}: a projector file is for GGUF models, and this one was asked for as MLX", .0.display())]
    ProjectorForMlx(PathBuf),
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
    /// A model that the hub has and MLX cannot compute.
    #[error(
        "{repo}: MLX cannot serve the family {family:?}, so nothing was downloaded (it serves {}); a GGUF version of the \
         model, if there is one, works with --gguf",
        families.join(", ")
    )]
    Family {
        /// The repository.
        repo: String,
        /// What its `config.json` says.
        family: String,
        /// What would have worked.
        families: Vec<String>,
    },
    /// What was typed is no name.
    #[error(transparent)]
    Reference(#[from] crate::reference::ReferenceError),
    /// The repository has no one model that was meant.
    #[error(transparent)]
    Pick(#[from] crate::reference::PickError),
    /// A catalog entry in another format than was asked for.
    #[error("{id} is a {own} model, and --{asked} was given: leave --{asked} out, or name another model")]
    OtherFormat {
        /// The entry.
        id: String,
        /// Its format.
        own: &'static str,
        /// What was asked for.
        asked: &'static str,
    },
    /// The hub, or its cache.
    #[error(transparent)]
    Hub(#[from] crate::hub::HubError),
    /// The bundled model cannot be laid out.
    #[error("cannot lay out the bundled model in {}: {cause} (MESH_LLM_CACHE names another folder)", path.display())]
    Cache {
        /// Where.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

/// The first eight of them; a folder may hold hundreds.
fn listed(names: &[String]) -> String {
    let more = names.len().saturating_sub(8);
    let shown: Vec<String> = names.iter().take(8).map(|name| name.escape_debug().to_string()).collect();
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

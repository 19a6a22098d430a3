//! What the hub has by some words; must not know the disk.

use serde::Deserialize;
use serde_json::Value;

use super::{Hub, HubError, http::About, listing, names};
use crate::Format;

/// Results asked for at most. Origin: the hub's own limit of a page is 1,000; nobody reads more than this.
const RESULTS: usize = 100;
/// Bytes of an answer at most; a hundred results have some hundred kilobytes.
const ANSWER_BYTES: usize = 16 << 20;

/// A repository that the hub found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub repo: String,
    /// Downloads in the last month.
    pub downloads: u64,
    /// People who marked it.
    pub likes: u64,
    /// Terms have to be accepted first.
    pub gated: bool,
    /// When it was last changed, as the hub writes it.
    pub changed: Option<String>,
    /// What it is marked with: `mlx`, `gguf`, `4-bit`, `license:apache-2.0`, … As strangers wrote it.
    pub tags: Vec<String>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
    #[serde(default)]
    downloads: u64,
    #[serde(default)]
    likes: u64,
    #[serde(default)]
    gated: Value,
    #[serde(default, rename = "lastModified")]
    changed: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
}

impl Hub {
    /// Repositories by words in their names, the most downloaded ones first; of one format, if it is said.
    ///
    /// # Errors
    /// When the hub refuses or cannot be reached, or when this is offline.
    pub async fn search(&self, words: &str, format: Option<Format>, most: usize) -> Result<Vec<Found>, HubError> {
        if self.config().offline {
            return Err(self.missing("a search".to_owned()));
        }
        let filter = match format {
            Some(Format::Mlx) => "&filter=mlx",
            Some(Format::Gguf) => "&filter=gguf",
            None => "",
        };
        let (words, most) = (names::encoded(words, false), most.clamp(1, RESULTS));
        let fields =
            ["downloads", "likes", "gated", "lastModified", "tags"].map(|name| format!("&expand%5B%5D={name}"));
        let query = format!("search={words}{filter}&sort=downloads&direction=-1&limit={most}{}", fields.concat());
        let client = &self.0.client;
        let about = About { repo: "the search", revision: "", file: None };
        let url = client.url(&format!("api/models?{query}"))?;
        let mut left = ANSWER_BYTES;
        let (body, _) = listing::page(client, &url, &mut left, about).await?;
        let models: Vec<Model> = serde_json::from_slice(&body)
            .map_err(|error| HubError::Nonsense { what: "the search".to_owned(), why: error.to_string() })?;
        // What could not be fetched is no result.
        let usable = models.into_iter().filter(|model| names::check_repo(&model.id).is_ok()).take(most);
        Ok(usable.map(found).collect())
    }
}

fn found(model: Model) -> Found {
    let gated = listing::is_gated(&model.gated);
    let Model { id, downloads, likes, changed, tags, .. } = model;
    Found { repo: id, downloads, likes, gated, changed, tags }
}

//! What on the hub a name means; must not know how it is fetched.

use std::path::Path;

use mesh_proto::ModelId;

use crate::{
    CatalogError, Format, bundled, entry,
    hub::{self, Fetched, Hub, Progress, Wanted},
    reference::{HubReference, Reference, RepoId},
};

/// A model of the hub, by a name that somebody typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubModel {
    /// Where it is.
    pub reference: HubReference,
    /// Its format, where that is known or was said.
    pub format: Option<Format>,
    /// What clients call it, where that is not for its files to say: the catalog's id.
    pub id: Option<ModelId>,
}

/// What on the hub a name means: an entry of the catalog, a repository, or something in one. `None`: it is on this machine,
/// and [`resolve`](crate::resolve) finds it. `endpoint` is the hub's address.
///
/// # Errors
/// When it names nothing that could be anywhere.
pub fn on_hub(name: &str, format: Option<Format>, endpoint: &str) -> Result<Option<HubModel>, CatalogError> {
    match Reference::parse(name, Some(endpoint))? {
        Reference::Path(_) => Ok(None),
        // A relative path looks the same, and what is here needs nobody.
        _ if bundled::find(name).is_some() || Path::new(name).exists() => Ok(None),
        Reference::Hub(reference) => Ok(Some(HubModel { reference, format, id: None })),
        Reference::Name(name) => {
            let found = entry(&name).ok_or(CatalogError::UnknownName { name, bundled: bundled::names() })?;
            if let Some(asked) = format.filter(|format| *format != found.format) {
                let (own, asked) = (word(found.format), word(asked));
                return Err(CatalogError::OtherFormat { id: found.id.clone(), own, asked });
            }
            let (org, repo) = found.repository.split_once('/').unwrap_or_default();
            let file = found.files.first().cloned();
            let quant = (found.format == Format::Gguf && file.is_none()).then(|| found.quantization.clone());
            let reference = HubReference { repo: RepoId::new(org, repo)?, revision: None, file, quant };
            Ok(Some(HubModel { reference, format: Some(found.format), id: Some(ModelId::new(found.id.as_str())) }))
        }
    }
}

/// Brings a model of the hub into the cache by its name, unless it is there: see [`hub::fetch`].
///
/// # Errors
/// As there; and when the name means nothing on the hub.
pub async fn fetch(
    name: &str,
    wanted: Wanted<'_>,
    hub: &Hub,
    progress: impl Fn(Progress) + Send + Sync,
) -> Result<Fetched, CatalogError> {
    let unknown = || CatalogError::UnknownName { name: name.to_owned(), bundled: bundled::names() };
    let model = on_hub(name, wanted.format, &hub.config().endpoint)?.ok_or_else(unknown)?;
    let mut fetched = hub::fetch(hub, &model.reference, Wanted { format: model.format, ..wanted }, progress).await?;
    if let Some(id) = model.id {
        fetched.files.id = id;
    }
    Ok(fetched)
}

fn word(format: Format) -> &'static str {
    match format {
        Format::Mlx => "mlx",
        Format::Gguf => "gguf",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entries;

    const HUB: &str = "https://huggingface.co";

    #[test]
    fn every_entry_of_the_catalog_leads_to_the_hub() {
        for entry in entries() {
            let found = on_hub(&entry.id, None, HUB).unwrap().unwrap();
            assert_eq!(found.reference.repo.as_str(), entry.repository);
            assert_eq!((found.format, found.id.unwrap().as_str()), (Some(entry.format), entry.id.as_str()));
            let labelled = found.reference.quant.is_some() || found.reference.file.is_some();
            assert_eq!(labelled, entry.format == Format::Gguf, "{}", entry.id);
            let other = if entry.format == Format::Mlx { Format::Gguf } else { Format::Mlx };
            assert!(on_hub(&entry.id, Some(other), HUB).unwrap_err().to_string().contains("leave --"));
        }
    }

    #[test]
    fn what_is_here_is_not_looked_for_elsewhere() {
        for name in ["mesh-tiny", "./x", "/x/y", "src/lib.rs"] {
            assert_eq!(on_hub(name, None, HUB).unwrap(), None, "{name}");
        }
        let found = on_hub("org/name@v1:Q4_K_M", Some(Format::Gguf), HUB).unwrap().unwrap();
        assert_eq!((found.reference.quant.as_deref(), found.id), (Some("Q4_K_M"), None));
        assert!(on_hub("no-such-model", None, HUB).unwrap_err().to_string().contains("ORG/NAME"));
    }
}

//! Models named at the start: found on this machine at once, or fetched from the hub while the node answers already; must
//! not know how models are served.

mod tell;

use std::sync::Arc;

use catalog::{
    CatalogError, Format, HubModel, ModelFiles,
    hub::{Elsewhere, Hub, HubConfig, Wanted},
};
use mesh_proto::{ModelId, record::ModelIdentity};

use crate::{
    cli::{ModelSource, Serving, say},
    local::{LocalModel, LocalState, ModelFacts},
};
use tell::Teller;

/// A model that was named.
pub(crate) enum Named {
    /// Its files are here.
    Here(ModelFiles),
    /// They may be on the hub.
    Coming {
        /// As typed.
        name: String,
        /// What that means.
        model: Box<HubModel>,
    },
}

impl Named {
    /// What it is called; until its files are here, what it will probably be called.
    pub(crate) fn id(&self) -> ModelId {
        match self {
            Self::Here(files) => files.id.clone(),
            Self::Coming { name, model } => model.id.clone().unwrap_or_else(|| {
                let repo = model.reference.repo.as_str();
                ModelId::new(repo.rsplit('/').next().unwrap_or(name))
            }),
        }
    }

    /// What clients see of it until its files are here.
    pub(crate) fn placeholder(&self) -> LocalModel {
        // Nobody else's model: what it is will be known once it is here.
        let identity = ModelIdentity { content: rand::random(), ..ModelIdentity::default() };
        let facts = ModelFacts { identity, ..ModelFacts::default() };
        LocalModel { id: self.id(), facts, pinned: true, state: LocalState::Loading }
    }
}

/// Finds what is here, and what would have to come. Asks nobody.
///
/// # Errors
/// When a name means nothing, or its files are no good.
pub(crate) fn find(serving: &Serving) -> Result<Vec<Named>, CatalogError> {
    let mmproj = serving.gguf.mmproj.as_deref();
    let one = |source: &ModelSource| match source {
        ModelSource::MlxFile(path) => catalog::open(path).map(Named::Here),
        ModelSource::GgufFile(path) => catalog::open_gguf(path, mmproj).map(Named::Here),
        ModelSource::Named(name, format) => {
            let endpoint = serving.hub.as_ref().map_or(catalog::hub::HUB, |hub| hub.endpoint.as_str());
            if let Some(model) = catalog::on_hub(name, *format, endpoint)? {
                return Ok(Named::Coming { name: name.clone(), model: Box::new(model) });
            }
            let mmproj = mmproj.filter(|_| *format != Some(Format::Mlx));
            catalog::resolve(name, &serving.cache, *format, mmproj).map(Named::Here)
        }
    };
    serving.models.iter().map(one).collect()
}

/// Brings a model here, from others who have it or else from the hub, telling how far it is.
///
/// # Errors
/// Why it does not come, in one line.
pub(crate) async fn fetch(
    name: &str,
    model: &HubModel,
    config: Option<&HubConfig>,
    elsewhere: Option<Arc<dyn Elsewhere>>,
) -> Result<ModelFiles, String> {
    let config = config.ok_or("there is no folder for downloads: set HF_HOME to one")?.clone();
    let hub = match elsewhere {
        Some(elsewhere) => Hub::with_elsewhere(config, elsewhere),
        None => Hub::new(config),
    };
    let hub = hub.map_err(|error| error.to_string())?;
    let families = runtime_mlx::families();
    let wanted = Wanted { format: model.format, families: &families, projector: false };
    let teller = Teller::new(name.to_owned());
    let fetched = catalog::fetch(name, wanted, &hub, |progress| teller.hear(&progress)).await;
    let fetched = fetched.map_err(|error| error.to_string())?;
    teller.done();
    if let Some(why) = fetched.unreachable {
        say::note(format!("{name}: all of it is here; whether there is a newer one is not known ({why})"));
    }
    Ok(fetched.files)
}

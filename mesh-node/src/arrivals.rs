//! Models named at the start: found on this machine at once, or fetched from the hub while the node answers already; must
//! not know how models are served.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytesize::ByteSize;
use catalog::{
    CatalogError, Format, HubModel, ModelFiles,
    hub::{Elsewhere, Hub, HubConfig, Progress, Stage, Wanted},
};
use mesh_proto::{ModelId, record::ModelIdentity};

use crate::{
    cli::{ModelSource, Serving, say},
    local::{LocalModel, LocalState, ModelFacts},
};

/// Between two lines about a download. Unit: time; 2 s, a guess at what people read. Less: a log full of it.
const TELL_EVERY: Duration = Duration::from_secs(2);

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
    if let Some(why) = fetched.unreachable {
        say::note(format!("{name}: all of it is here; whether there is a newer one is not known ({why})"));
    }
    Ok(fetched.files)
}

/// Tells how far a download is, now and then.
struct Teller {
    name: String,
    state: Mutex<State>,
}

struct State {
    began: Option<(Instant, u64)>,
    told: Option<Instant>,
}

impl Teller {
    fn new(name: String) -> Self {
        Self { name, state: Mutex::new(State { began: None, told: None }) }
    }

    fn hear(&self, progress: &Progress) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let (began, before) = *state.began.get_or_insert((now, progress.all_done));
        let over = progress.all_done >= progress.all_total;
        if state.told.is_some_and(|told| now.duration_since(told) < TELL_EVERY) && !over {
            return;
        }
        // What was here from the start was not downloaded.
        if over && progress.all_done == before {
            return;
        }
        state.told = Some(now);
        drop(state);
        say::note(format!("{}: {}", self.name, words(progress, now.duration_since(began), before)));
    }
}

/// `downloading 40 % of 2.1 GiB, 12.0 MiB/s, 1 min 40 s left`.
fn words(progress: &Progress, since: Duration, before: u64) -> String {
    let Progress { file, stage, all_done, all_total, .. } = progress;
    let percent = all_done.saturating_mul(100) / (*all_total).max(1);
    let mut words = format!("downloading {percent} % of {}", ByteSize(*all_total));
    let rate = all_done.saturating_sub(before) as f64 / since.as_secs_f64().max(0.001);
    if rate >= 1.0 && since >= Duration::from_millis(500) {
        let left = (all_total.saturating_sub(*all_done) as f64 / rate).round() as u64;
        let left = if left >= 60 { format!("{} min {} s", left / 60, left % 60) } else { format!("{left} s") };
        words += &format!(", {}/s, {left} left", ByteSize(rate as u64));
    }
    match stage {
        Stage::Waiting => words += &format!("; another process is downloading {file}, which is waited for"),
        Stage::Retrying => words += &format!("; the hub is asked again for {file}"),
        Stage::Elsewhere => words += ", from the mesh",
        Stage::OthersTurn => words += &format!("; another node is fetching {file}, and gives it when it has it"),
        Stage::Fetching | Stage::Done => {}
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_is_told_with_rate_and_time_left() {
        let progress = |all_done, stage| Progress {
            file: "model.safetensors".into(),
            stage,
            done: 0,
            total: 0,
            all_done,
            all_total: 1 << 30,
        };
        let half = words(&progress(1 << 29, Stage::Fetching), Duration::from_secs(100), 0);
        assert_eq!(half, "downloading 50 % of 1.0 GiB, 5.1 MiB/s, 1 min 40 s left");
        let start = words(&progress(0, Stage::Waiting), Duration::ZERO, 0);
        assert!(start.starts_with("downloading 0 % of 1.0 GiB; another process"), "{start}");
    }
}

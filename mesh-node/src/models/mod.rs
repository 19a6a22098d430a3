//! `mesh-llm models`: what there is and what of it fits here; must not know the node, the mesh or the network.

mod describe;
mod engines;
mod find;
mod machine;
mod near;
mod store;
mod table;

use catalog::{CatalogError, hub::HubError};
use serde::Serialize;
use thiserror::Error;

use crate::cli::{Choice, Models, ModelsAsk, say};

pub use describe::{FitAccount, FitVerdict, ModelCard, Source};
pub use machine::Memory;

/// Why there is no answer. One line.
#[derive(Debug, Error)]
pub enum ModelsError {
    /// Nothing is called that.
    #[error("no model is called {}{}", name.escape_debug(), suggestion(near))]
    Unknown {
        /// What was typed.
        name: String,
        /// What comes close.
        near: Vec<String>,
    },
    /// It is there, in another form.
    #[error("{id} is {is}, and was asked for as {asked}")]
    OtherForm {
        /// Its name.
        id: String,
        /// What it is.
        is: &'static str,
        /// What it is not.
        asked: &'static str,
    },
    /// Its files say why.
    #[error(transparent)]
    Files(#[from] CatalogError),
    /// The hub, or its cache.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// It did not come; says itself which and why.
    #[error("{0}")]
    Fetch(String),
    /// There is nowhere to put downloads.
    #[error("there is no folder for downloads: set HF_HOME to one")]
    NoCache,
    /// Files that are not what they should be.
    #[error("{repo}: {} are not what they should be; delete it and download it again", files.join(", "))]
    Wrong {
        /// Of which repository.
        repo: String,
        /// Which.
        files: Vec<String>,
    },
    /// A bug of ours.
    #[error("looking at the cache failed: {0}")]
    Panicked(String),
    /// The answer cannot be written as JSON.
    #[error("cannot write the answer: {0}")]
    Json(#[from] serde_json::Error),
}

fn suggestion(near: &[String]) -> String {
    match near {
        [] => "; mesh-llm models list --all has the names that there are".to_owned(),
        [one] => format!("; did you mean {one}?"),
        [all @ .., last] => format!("; did you mean {} or {last}?", all.join(", ")),
    }
}

/// What `--json` prints. `show` has a list too: one name may be there in both forms.
#[derive(Serialize)]
struct Answer<'a> {
    memory: Memory,
    models: &'a [ModelCard],
}

/// Answers. What is about this machine blocks, for milliseconds.
///
/// # Errors
/// When nothing has the name, its files cannot be read, or the hub refuses. One line.
pub async fn run(models: Models) -> Result<(), ModelsError> {
    let store = store::Store { hub: models.hub.clone(), cache: models.cache.clone(), json: models.json };
    if let Some(answered) = store.answer(&models.ask).await {
        return answered;
    }
    let memory = Memory::of_this_machine();
    let engines = engines::Engines::of_this_machine();
    let beside = describe::Beside { memory, engines: &engines };
    match models.ask {
        ModelsAsk::List(choice) => {
            let found = find::all(&models.cache, &beside).into_iter().filter(|card| is_chosen(card, choice));
            let found: Vec<ModelCard> = found.collect();
            if models.json {
                say::result(serde_json::to_string_pretty(&Answer { memory, models: &found })?);
            } else {
                say::result(table::list(&found, memory));
            }
        }
        ModelsAsk::Show(name, format) => {
            let found = find::named(&name, format, &models.cache, &beside)?;
            if models.json {
                say::result(serde_json::to_string_pretty(&Answer { memory, models: &found })?);
            } else {
                say::result(table::show(&found, memory));
            }
        }
        // The store has answered.
        _ => {}
    }
    Ok(())
}

fn is_chosen(card: &ModelCard, choice: Choice) -> bool {
    let form = choice.format.is_none_or(|format| engines::word(format) == card.engine);
    form && (choice.all || card.served) && (!choice.fits || card.fits())
}

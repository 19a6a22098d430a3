//! `mesh-llm models`: what there is and what of it fits here; must not know the node, the mesh or the network.

mod describe;
mod engines;
mod find;
mod machine;
mod near;
mod table;

use catalog::CatalogError;
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

/// Answers. Blocks.
///
/// # Errors
/// When nothing has the name, or its files cannot be read. One line.
pub fn run(models: Models) -> Result<(), ModelsError> {
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
    }
    Ok(())
}

fn is_chosen(card: &ModelCard, choice: Choice) -> bool {
    let form = choice.format.is_none_or(|format| engines::word(format) == card.engine);
    form && (choice.all || card.served) && (!choice.fits || card.fits())
}

//! Models as text for people; must not know how they were found.

use std::fmt::Write;

use bytesize::ByteSize;
use catalog::Capability;
use comfy_table::{CellAlignment, Table, presets};

use super::{
    describe::{FitAccount, FitVerdict, ModelCard, Source},
    machine::Memory,
};

fn human(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

/// As text, without the blanks that fill the last column.
fn text(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

fn align_right(table: &mut Table, column: usize) {
    if let Some(column) = table.column_mut(column) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

pub(super) fn list(cards: &[ModelCard], memory: Memory) -> String {
    if cards.is_empty() {
        return "no model is like that; mesh-llm models list --all has all of them".to_owned();
    }
    let mut rows = table();
    rows.set_header(["name", "weights", "engine", "context", "fits", "runs here"]);
    for card in cards {
        rows.add_row([
            card.id.clone(),
            weights(card),
            engine(card).to_owned(),
            card.context_tokens.to_string(),
            card.fit.as_ref().map_or_else(|| "not known".to_owned(), |fit| briefly(&fit.verdict)),
            runs(card).to_owned(),
        ]);
    }
    for column in [1, 3] {
        align_right(&mut rows, column);
    }
    let mut out = text(&rows);
    if let Some(total) = memory.total_bytes {
        let _ = write!(out, "\n\nfits: one answer that fills the context, in this machine's {}", human(total));
    }
    if cards.iter().any(|card| card.weight_bytes_estimated) {
        out.push_str("\n~: estimated from parameters and quantisation, not compared with the hub");
    }
    out
}

fn weights(card: &ModelCard) -> String {
    let mark = if card.weight_bytes_estimated { "~" } else { "" };
    card.weight_bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{mark}{}", human(bytes)))
}

fn engine(card: &ModelCard) -> &'static str {
    if card.engine == "mlx" { "MLX" } else { "llama-server" }
}

fn runs(card: &ModelCard) -> &'static str {
    match card.obstacle {
        Some(_) if !card.served => "not yet",
        Some(_) => "no llama-server",
        None if card.fit.is_none() => "not known",
        None if card.runs_here => "yes",
        None => "no",
    }
}

fn briefly(verdict: &FitVerdict) -> String {
    match verdict {
        FitVerdict::WholeContext => "yes".to_owned(),
        FitVerdict::PartOfContext { context_tokens } => format!("{context_tokens} tokens"),
        FitVerdict::WeightsOnly => "weights, at least".to_owned(),
        FitVerdict::TooLarge { missing_bytes } => format!("{} short", human(*missing_bytes)),
    }
}

fn in_words(verdict: &FitVerdict, context: u32) -> String {
    match verdict {
        FitVerdict::WholeContext => format!("fits with its whole context of {context} tokens"),
        FitVerdict::PartOfContext { context_tokens } => {
            format!("fits with {context_tokens} of {context} tokens of context")
        }
        FitVerdict::WeightsOnly => {
            "the weights fit; what a context takes is not known before they are there".to_owned()
        }
        FitVerdict::TooLarge { missing_bytes } => {
            format!("does not fit: {} are missing even for a short context", human(*missing_bytes))
        }
    }
}

pub(super) fn show(cards: &[ModelCard], memory: Memory) -> String {
    cards.iter().map(|card| one(card, memory)).collect::<Vec<_>>().join("\n\n")
}

fn one(card: &ModelCard, memory: Memory) -> String {
    let mut rows = table();
    let mut row = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            rows.add_row([name.to_owned(), value]);
        }
    };
    row("repository", card.repository.clone());
    row("files", Some(card.files.join(", ")));
    row("folder", card.path.as_ref().map(|path| path.display().to_string()));
    row("engine", Some(engine(card).to_owned()));
    row("stored as", Some(card.quantization.clone()));
    row("family", Some(card.family.clone()));
    row("parameters", card.parameters.map(|all| parameters(all, card.active_parameters)));
    row("context", Some(format!("{} tokens", card.context_tokens)));
    let can: Vec<&str> = card.capabilities.iter().copied().map(Capability::word).collect();
    row("can", Some(can.join(", ")));
    row("licence", card.licence.clone());
    row("drafter", card.drafter.clone());
    row("checked", Some(checked(card)));
    row("runs here", Some(card.obstacle.map_or_else(|| runs(card).to_owned(), |why| format!("no: {why}"))));
    let mut out = format!("{}\n{}", card.id, text(&rows));
    match &card.fit {
        Some(fit) => account(&mut out, card, fit, memory),
        None => out.push_str("\n\nwhether it fits is not known: its size or this machine's memory is not"),
    }
    out
}

fn parameters(all: u64, active: Option<u64>) -> String {
    // Millions are told as such: 0.6 billion is no name that people know.
    let short = |number: u64| match number {
        0..1_000_000_000 => format!("{} million", number / 1_000_000),
        _ => format!("{:.1} billion", number as f64 / 1e9),
    };
    active.map_or_else(|| short(all), |active| format!("{}, {} of them for each token", short(all), short(active)))
}

fn checked(card: &ModelCard) -> String {
    match (card.source, &card.verified) {
        (Source::Bundled, _) => "part of this binary".to_owned(),
        (Source::Local, _) => "read from its files".to_owned(),
        (Source::Catalog, Some(day)) => format!("compared with the hub on {day}"),
        (Source::Catalog, None) => "never compared with the hub; it may be wrong in parts".to_owned(),
    }
}

fn account(out: &mut String, card: &ModelCard, fit: &FitAccount, memory: Memory) {
    let mut rows = table();
    let tokens = fit.account_tokens;
    let note = if card.weight_bytes_estimated { "estimated from parameters and quantisation" } else { "" };
    rows.add_row(["weights".to_owned(), weights(card), note.to_owned()]);
    let each = fit.kv_bytes_per_token.map_or_else(String::new, |bytes| format!("{} a token", human(bytes)));
    let (name, kv) = match fit.kv_bytes {
        Some(bytes) => {
            let answers = fit.slots.map_or_else(String::new, |slots| format!("{slots} answers of "));
            (format!("keys and values of {answers}{tokens} tokens"), human(bytes))
        }
        None => ("keys and values".to_owned(), "not known".to_owned()),
    };
    rows.add_row([name, kv, each]);
    if fit.reserve_bytes > 0 {
        let note = "room to grow, and prompts of ended answers";
        rows.add_row(["kept beside them".to_owned(), human(fit.reserve_bytes), note.to_owned()]);
    }
    rows.add_row(["to compute with".to_owned(), human(fit.workspace_bytes), String::new()]);
    let of = format!("of {} that models may take", human(fit.usable_bytes));
    rows.add_row(["together".to_owned(), human(fit.total_bytes), of]);
    align_right(&mut rows, 1);
    let what = if fit.slots.is_some() { "memory as llama-server gets it" } else { "memory for one answer" };
    let _ = write!(out, "\n\n{what}\n{}", text(&rows));
    let total = memory.total_bytes.map_or_else(String::new, |total| format!(" of {}", human(total)));
    let _ = write!(out, "\nthis machine{total}: {}", in_words(&fit.verdict, card.context_tokens));
    if let (Some(now), Some(free)) = (&fit.now, memory.free_bytes)
        && *now != fit.verdict
    {
        let _ = write!(out, "\nwith the {} that are free now: {}", human(free), in_words(now, card.context_tokens));
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;

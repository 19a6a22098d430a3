//! All that is said of one model, as JSON has it; must not know where it was found or how it is shown.

use std::path::PathBuf;

use catalog::{
    Capability, CatalogError, Entry, Format, GgufFiles, ModelFiles,
    fit::{self, Account, Kv, Needs, Verdict, Weights},
    gguf::{self, Header},
};
use serde::Serialize;

use super::{
    engines::{self, Engines},
    machine::Memory,
};

/// Where a model comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// This binary has it inside.
    Bundled,
    /// The catalog knows its repository; its files are not looked for.
    Catalog,
    /// A path led to it.
    Local,
}

/// One model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelCard {
    /// Its name.
    pub id: String,
    /// Where it comes from.
    pub source: Source,
    /// `mlx` or `gguf`.
    pub engine: &'static str,
    /// Owner and name on the hub.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// Its files there, where they are more than the repository's name and the quantisation say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// Its folder on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// The architecture.
    pub family: String,
    /// How the weights are stored.
    pub quantization: String,
    /// Rounded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<u64>,
    /// Those that one token uses, where not all do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_parameters: Option<u64>,
    /// Most tokens of prompt and answer together.
    pub context_tokens: u32,
    /// SPDX identifier, or the licence's own name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// What the model can do; empty: not said.
    pub capabilities: Vec<Capability>,
    /// A smaller model that can guess ahead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drafter: Option<String>,
    /// Bytes of the weights; `None`: not known.
    pub weight_bytes: Option<u64>,
    /// Whether that is a guess from parameters and quantisation.
    pub weight_bytes_estimated: bool,
    /// The day on which the catalog's entry was compared with the hub; `None`: never.
    pub verified: Option<String>,
    /// Whether an engine of this version computes such a model.
    pub served: bool,
    /// Whether this machine can load it: there is an engine, and it fits.
    pub runs_here: bool,
    /// Why no engine computes it here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<&'static str>,
    /// Whether it fits, term by term; `None` where its size or this machine's memory is not known.
    pub fit: Option<FitAccount>,
}

/// The account of one answer that fills the context; of a GGUF file that is here, of all that llama-server would be given.
/// Sizes are bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FitAccount {
    /// On this machine, if nothing else wanted its memory.
    #[serde(flatten)]
    pub verdict: FitVerdict,
    /// With what is free at this moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub now: Option<FitVerdict>,
    /// The tokens that the terms are for.
    pub account_tokens: u32,
    /// How many answers of so many tokens they are for, where that is more than one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
    /// The weights.
    pub weight_bytes: u64,
    /// Keys and values; `None`: not known.
    pub kv_bytes: Option<u64>,
    /// Of a token beyond every window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_bytes_per_token: Option<u64>,
    /// What the engine keeps beside keys and values.
    pub reserve_bytes: u64,
    /// To compute with.
    pub workspace_bytes: u64,
    /// All of them.
    pub total_bytes: u64,
    /// What models may take of this machine.
    pub usable_bytes: u64,
}

/// Whether it fits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum FitVerdict {
    /// With all of its context.
    WholeContext,
    /// With less context.
    PartOfContext {
        /// So many tokens.
        context_tokens: u32,
    },
    /// The weights do; what a context costs is not known.
    WeightsOnly,
    /// It does not.
    TooLarge {
        /// By so many bytes, at the shortest context that is of use.
        missing_bytes: u64,
    },
}

impl From<Verdict> for FitVerdict {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Whole => Self::WholeContext,
            Verdict::Part(context_tokens) => Self::PartOfContext { context_tokens },
            Verdict::Weights => Self::WeightsOnly,
            Verdict::Short(missing_bytes) => Self::TooLarge { missing_bytes },
        }
    }
}

impl ModelCard {
    /// Whether it is known to fit this machine.
    pub fn fits(&self) -> bool {
        self.fit.as_ref().is_some_and(|fit| !matches!(fit.verdict, FitVerdict::TooLarge { .. }))
    }
}

/// What a model is held against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beside<'a> {
    pub(super) memory: Memory,
    pub(super) engines: &'a Engines,
}

/// What the judgement is made from.
struct Facts {
    refusal: Option<&'static str>,
    weights: Option<Weights>,
    kv: Option<Kv>,
    /// From which llama-server's plan is made.
    planned: Option<Planned>,
}

/// A GGUF model whose files are here.
struct Planned {
    headers: Vec<Header>,
    /// Bytes of its projector.
    beside: u64,
}

impl Planned {
    fn of(files: &GgufFiles) -> Result<Self, CatalogError> {
        let headers = files.parts.iter().map(|part| gguf::read(part)).collect::<Result<_, _>>()?;
        let beside = files.mmproj.as_ref().and_then(|path| std::fs::metadata(path).ok()).map_or(0, |meta| meta.len());
        Ok(Self { headers, beside })
    }

    /// The plan on a machine with so many bytes of memory.
    fn account(&self, memory: u64) -> Option<(runtime_gguf_bridge::Account, u64)> {
        let usable = engines::usable(memory);
        let parallel = engines::PARALLEL;
        // There is a part, so there is a plan.
        let mut account =
            runtime_gguf_bridge::account(&self.headers, parallel, usable.saturating_sub(self.beside)).ok()?;
        account.workspace_bytes = account.workspace_bytes.saturating_add(self.beside);
        Some((account, usable))
    }
}

fn verdict(account: &runtime_gguf_bridge::Account) -> FitVerdict {
    match account.missing_bytes {
        0 if account.context_tokens == account.trained_tokens => FitVerdict::WholeContext,
        0 => FitVerdict::PartOfContext { context_tokens: account.context_tokens },
        missing_bytes => FitVerdict::TooLarge { missing_bytes },
    }
}

/// A card with nothing on it yet but the name.
fn blank(id: &str, source: Source, format: Format) -> ModelCard {
    ModelCard {
        id: id.to_owned(),
        source,
        engine: engines::word(format),
        repository: None,
        files: Vec::new(),
        path: None,
        family: String::new(),
        quantization: String::new(),
        parameters: None,
        active_parameters: None,
        context_tokens: 0,
        licence: None,
        capabilities: Vec::new(),
        drafter: None,
        weight_bytes: None,
        weight_bytes_estimated: false,
        verified: None,
        served: false,
        runs_here: false,
        obstacle: None,
        fit: None,
    }
}

impl Beside<'_> {
    /// Of an entry of the catalog.
    pub(super) fn entry(&self, entry: &Entry) -> ModelCard {
        let card = ModelCard {
            repository: Some(entry.repository.clone()),
            files: entry.files.clone(),
            family: entry.family.clone(),
            quantization: entry.quantization.clone(),
            parameters: Some(entry.parameters),
            active_parameters: entry.active_parameters,
            context_tokens: entry.context,
            licence: Some(entry.licence.clone()),
            capabilities: entry.capabilities.clone(),
            drafter: entry.drafter.clone(),
            verified: entry.verified.clone(),
            ..blank(&entry.id, Source::Catalog, entry.format)
        };
        let refusal = self.engines.refusal_of(entry);
        let facts = Facts { refusal, weights: entry.weights(), kv: entry.kv(), planned: None };
        self.judged(card, entry.format, facts)
    }

    /// Of files on this machine.
    pub(super) fn files(&self, files: &ModelFiles, source: Source) -> Result<ModelCard, CatalogError> {
        let (read, kv, format) = (catalog::facts(files)?, fit::kv(files)?, files.format());
        let refusal = self.engines.refusal(format, &read.family);
        let weights = Some(Weights { bytes: read.weight_bytes, estimated: false });
        let planned = files.gguf.as_ref().map(Planned::of).transpose()?;
        let card = ModelCard {
            path: (source == Source::Local).then(|| files.dir.clone()),
            family: read.family,
            quantization: read.quantization,
            context_tokens: read.context_tokens,
            ..blank(files.id.as_str(), source, format)
        };
        Ok(self.judged(card, format, Facts { refusal, weights, kv, planned }))
    }

    fn judged(&self, card: ModelCard, format: Format, facts: Facts) -> ModelCard {
        let Facts { refusal, weights, kv, planned } = facts;
        let obstacle = refusal.or_else(|| self.engines.missing(format));
        let context_tokens = card.context_tokens;
        let fit = match &planned {
            Some(planned) => self.plan(planned),
            None => weights.and_then(|weights| self.fit(Needs { weights, kv, context_tokens }, format)),
        };
        let card = ModelCard {
            weight_bytes: weights.map(|weights| weights.bytes),
            weight_bytes_estimated: weights.is_some_and(|weights| weights.estimated),
            served: refusal.is_none(),
            obstacle,
            fit,
            ..card
        };
        ModelCard { runs_here: obstacle.is_none() && card.fits(), ..card }
    }

    /// What llama-server would be given.
    fn plan(&self, planned: &Planned) -> Option<FitAccount> {
        let (whole, usable) = planned.account(self.memory.total_bytes?)?;
        let now = self.memory.free_bytes.and_then(|free| planned.account(free));
        Some(FitAccount {
            verdict: verdict(&whole),
            now: now.map(|(now, _)| verdict(&now)),
            account_tokens: whole.context_tokens,
            slots: Some(whole.slots).filter(|slots| *slots > 1),
            weight_bytes: whole.weight_bytes,
            kv_bytes: Some(whole.kv_bytes),
            kv_bytes_per_token: Some(whole.kv_bytes_per_token),
            reserve_bytes: whole.cache_bytes,
            workspace_bytes: whole.workspace_bytes,
            total_bytes: whole.total(),
            usable_bytes: usable,
        })
    }

    fn fit(&self, needs: Needs, format: Format) -> Option<FitAccount> {
        let rules = engines::rules(format);
        let account = |memory| fit::account(needs, rules, memory);
        let whole: Account = account(self.memory.total_bytes?);
        Some(FitAccount {
            verdict: whole.verdict.into(),
            now: self.memory.free_bytes.map(|free| account(free).verdict.into()),
            account_tokens: whole.context_tokens,
            slots: None,
            weight_bytes: whole.weights.bytes,
            kv_bytes: whole.kv,
            kv_bytes_per_token: needs.kv.map(|kv| kv.whole),
            reserve_bytes: whole.reserve,
            workspace_bytes: whole.workspace,
            total_bytes: whole.total(),
            usable_bytes: whole.usable,
        })
    }
}

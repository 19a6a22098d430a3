//! What a GGUF file was made for, answers, vectors or scores, from its header; must not know processes.

use catalog::gguf::Header;
use engine::pool::Skills;

/// `pooling_type`. Source: `llama_pooling_type` in llama.cpp's `llama.h`.
mod pooling {
    pub(super) const MEAN: u64 = 1;
    pub(super) const CLS: u64 = 2;
    pub(super) const LAST: u64 = 3;
    pub(super) const RANK: u64 = 4;
}

/// Architectures that read texts both ways and keep no cache. Source: `llama_model::create_memory` in llama.cpp.
const ENCODERS: [&str; 9] = [
    "bert",
    "nomic-bert",
    "nomic-bert-moe",
    "neo-bert",
    "jina-bert-v2",
    "jina-bert-v3",
    "modern-bert",
    "eurobert",
    "gemma-embedding",
];

/// Whose scores are probabilities already. Source: `build_pooling` in llama.cpp's `llama-graph.cpp`.
const SCORES_BY_SOFTMAX: [&str; 2] = ["qwen3", "qwen3vl"];

/// What a file was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Answers.
    Answers,
    /// Vectors, of so many values.
    Vectors {
        /// How many.
        width: u32,
        /// The header does not say how they are made of hidden states.
        unsaid: bool,
    },
    /// Scores.
    Scores {
        /// Any number, of which a sigmoid makes one from 0 to 1, as the models' own code does.
        raw: bool,
    },
}

impl Kind {
    pub(crate) fn of(header: &Header) -> Self {
        let architecture = header.architecture();
        match header.own("pooling_type") {
            Some(pooling::RANK) => Self::Scores { raw: !SCORES_BY_SOFTMAX.contains(&architecture) },
            Some(pooling::MEAN | pooling::CLS | pooling::LAST) => Self::Vectors { width: width(header), unsaid: false },
            _ if is_encoder(header) => Self::Vectors { width: width(header), unsaid: true },
            _ => Self::Answers,
        }
    }

    pub(crate) fn skills(self) -> Skills {
        Skills {
            generates: self == Self::Answers,
            embeds: matches!(self, Self::Vectors { .. }),
            reranks: matches!(self, Self::Scores { .. }),
        }
    }
}

/// Whether a model has no cache of keys and values.
pub(crate) fn is_encoder(header: &Header) -> bool {
    ENCODERS.contains(&header.architecture())
}

/// Whether a text must be computed in one piece. Source: `server_slot::can_split` in llama.cpp's server.
pub(crate) fn reads_whole(header: &Header) -> bool {
    let causal = header.flag(&header.own_key("attention.causal")).unwrap_or(true) && !is_encoder(header);
    match header.own("pooling_type") {
        Some(pooling::MEAN | pooling::CLS) => true,
        Some(pooling::LAST) => is_encoder(header),
        _ => !causal,
    }
}

fn width(header: &Header) -> u32 {
    let values = header.own("embedding_length_out").or_else(|| header.own("embedding_length"));
    values.and_then(|values| u32::try_from(values).ok()).unwrap_or(0)
}

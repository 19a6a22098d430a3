//! The flags for GGUF models, as typed and as meant; must not know who runs llama-server.

use std::path::PathBuf;

use clap::{Args, ValueEnum, error::ErrorKind};
use runtime_gguf_bridge::KvBits;

use super::config::usage;

/// How GGUF models are served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GgufServing {
    /// The llama-server to run; `None`: the one beside this binary, or in PATH.
    pub llama_server: Option<PathBuf>,
    /// How keys and values are stored; `None`: 16 bits.
    pub kv_bits: Option<KvBits>,
    /// Layers on the GPU; `None`: as many as fit.
    pub gpu_layers: Option<u32>,
    /// A smaller model that guesses ahead.
    pub draft: Option<PathBuf>,
    /// The projector for images; `None`: the one beside the model.
    pub mmproj: Option<PathBuf>,
    /// Handed on as they are.
    pub extra: Vec<String>,
}

#[derive(Args, Default)]
#[command(next_help_heading = "GGUF")]
pub(super) struct GgufArgs {
    /// The llama-server to run [default: the one beside this binary, or in PATH]
    #[arg(long, value_name = "FILE")]
    llama_server: Option<PathBuf>,
    /// Bits of each key and value in the cache: 8 and 4 hold more tokens in the same memory, and answers differ a little
    #[arg(long, value_name = "BITS")]
    kv_bits: Option<Bits>,
    /// Layers computed on the GPU [default: as many as fit]
    #[arg(long, value_name = "N")]
    gpu_layers: Option<u32>,
    /// A smaller model of the same vocabulary that guesses ahead
    #[arg(long, value_name = "GGUF_FILE")]
    draft: Option<PathBuf>,
    /// Load this projector for images beside the model; no API of this version takes images yet
    #[arg(long, value_name = "GGUF_FILE")]
    mmproj: Option<PathBuf>,
    /// Hand this on to llama-server, e.g. --llama-arg=--rope-scaling --llama-arg=yarn; repeat for more
    #[arg(long = "llama-arg", value_name = "ARG", allow_hyphen_values = true)]
    extra: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Bits {
    #[value(name = "16")]
    Sixteen,
    #[value(name = "8")]
    Eight,
    #[value(name = "4")]
    Four,
}

impl GgufArgs {
    /// The first flag that was given, for saying that it does nothing.
    fn given(&self) -> Option<&'static str> {
        let flags = [
            ("--llama-server", self.llama_server.is_some()),
            ("--kv-bits", self.kv_bits.is_some()),
            ("--gpu-layers", self.gpu_layers.is_some()),
            ("--draft", self.draft.is_some()),
            ("--mmproj", self.mmproj.is_some()),
            ("--llama-arg", !self.extra.is_empty()),
        ];
        flags.into_iter().find_map(|(flag, given)| given.then_some(flag))
    }

    /// What was meant, beside models of which `mlx` are computed by MLX and `others` are not, or not for certain.
    pub(super) fn meant(self, mlx: usize, others: usize) -> Result<GgufServing, clap::Error> {
        if let Some(flag) = self.given().filter(|_| mlx > 0 && others == 0) {
            let message = format!("{flag} is for GGUF models: --gguf, or --gguf-file FILE");
            return Err(usage(ErrorKind::ArgumentConflict, message));
        }
        for (flag, one) in [("--draft", self.draft.is_some()), ("--mmproj", self.mmproj.is_some())] {
            if one && others > 1 {
                let message =
                    format!("{flag} belongs to one GGUF model, and there are {others}: start a node for each");
                return Err(usage(ErrorKind::ArgumentConflict, message));
            }
        }
        runtime_gguf_bridge::check_arguments(&self.extra)
            .map_err(|message| usage(ErrorKind::ArgumentConflict, message))?;
        let kv_bits = self.kv_bits.map(|bits| match bits {
            Bits::Sixteen => KvBits::F16,
            Bits::Eight => KvBits::Q8,
            Bits::Four => KvBits::Q4,
        });
        let Self { llama_server, gpu_layers, draft, mmproj, extra, .. } = self;
        Ok(GgufServing { llama_server, kv_bits, gpu_layers, draft, mmproj, extra })
    }
}

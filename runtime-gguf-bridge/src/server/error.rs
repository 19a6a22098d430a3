//! What can go wrong with the child, each in one line that says what to do; must not know how anybody words it in HTTP.

use std::path::PathBuf;

use serde_json::Value;

/// Why there is no `llama-server` to ask.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BridgeError {
    /// None was found.
    #[error(
        "no llama-server found (looked at: {looked_at}); install it (`brew install llama.cpp` on a Mac, \
         `scripts/llama-server` of this project on Linux) or name one with --llama-server PATH"
    )]
    NotFound {
        /// Where it was looked for.
        looked_at: String,
    },
    /// The file cannot be asked what it is.
    #[error(
        "{} does not answer {asked} as llama-server does: {why}; name a working one with --llama-server PATH",
        binary.display()
    )]
    NotLlamaServer {
        /// Which file.
        binary: PathBuf,
        /// The argument it was run with.
        asked: &'static str,
        /// What it did instead.
        why: String,
    },
    /// It lacks what the bridge needs.
    #[error(
        "{} is llama-server {found}, and {wanted} or newer is needed (for --threads-http, load progress and Unix \
         sockets); update it (`brew upgrade llama.cpp` on a Mac, `scripts/llama-server` of this project on Linux) or \
         name a newer one with --llama-server PATH",
        binary.display()
    )]
    TooOld {
        /// Which file.
        binary: PathBuf,
        /// Its version.
        found: String,
        /// The oldest one that was tried.
        wanted: &'static str,
    },
    /// No folder for its socket.
    #[error("no folder for llama-server's socket: {why}; set TMPDIR to a writable folder with a short path")]
    NoSocket {
        /// Why not.
        why: String,
    },
    /// It did not start, or crashed too often.
    #[error("llama-server does not run {name}: {words}")]
    Failed {
        /// The model.
        name: String,
        /// The child's last words.
        words: String,
    },
    /// It is not ready within the time that a request waits.
    #[error("llama-server for {name} is {state} for longer than {waited_s} s; try again later")]
    NotReady {
        /// The model.
        name: String,
        /// What it does instead.
        state: String,
        /// How long it was waited.
        waited_s: u64,
    },
    /// It was stopped.
    #[error("llama-server for {name} was stopped; load the model again")]
    Stopped {
        /// The model.
        name: String,
    },
}

/// Why the child did not answer a request.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CallError {
    /// It is not there, or went away before the answer was whole.
    #[error("llama-server is gone: {0}; it is started again, so try again")]
    Unreachable(String),
    /// It refused.
    #[error("llama-server refused with {code} ({kind}): {message}")]
    Status {
        /// HTTP status, or the code inside an error that came in a stream.
        code: u16,
        /// In words.
        message: String,
        /// Its own name for the kind, such as `exceed_context_size_error`; empty where it gave none.
        kind: String,
        /// The whole error object, for what else is in it (`n_prompt_tokens`, `n_ctx`); null where it gave none.
        error: Box<Value>,
    },
    /// It said something that is no answer.
    #[error("llama-server's answer cannot be read: {0}; is it a version that was tried?")]
    Malformed(String),
    /// It says more than fits.
    #[error("llama-server's answer exceeds {limit} bytes; ask for less")]
    TooLarge {
        /// The cap.
        limit: usize,
    },
    /// It took longer than the caller wanted to wait.
    #[error("llama-server did not answer within {ms} ms; try again later")]
    Timeout {
        /// How long that was.
        ms: u64,
    },
}

impl CallError {
    /// From the body of a refusal, or from an error in a stream (`code` 500 unless it says another).
    pub(super) fn refused(code: u16, body: &[u8]) -> Self {
        let Some(error) = serde_json::from_slice::<Value>(body).ok().and_then(|value| value.get("error").cloned())
        else {
            let message = String::from_utf8_lossy(&body[..body.len().min(300)]).replace(['\n', '\r'], " ");
            return Self::Status { code, message, kind: String::new(), error: Box::default() };
        };
        Self::from_error(code, error)
    }

    /// From what lies under `error`.
    pub(super) fn from_error(code: u16, error: Value) -> Self {
        let text = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let told = error.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
        let message = match error.as_str() {
            Some(bare) => bare.to_owned(),
            None => text("message"),
        };
        Self::Status { code: told.unwrap_or(code), message, kind: text("type"), error: Box::new(error) }
    }
}

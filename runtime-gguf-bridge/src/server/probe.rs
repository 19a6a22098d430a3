//! Runs `llama-server` for one short answer; must not know what is asked.

use std::{path::Path, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
};

use super::{BridgeError, environment};

/// How much of an answer is read. Unit: bytes. Default: 64 KiB. Origin: the longest real one is some lines. Cost of
/// less: a talkative driver's warnings could hide the answer.
const CAP: u64 = 64 << 10;

/// What `binary ASKED` prints on both of its streams, standard error first: the version comes there.
pub(super) async fn probe(binary: &Path, asked: &'static str, limit: Duration) -> Result<String, BridgeError> {
    let fault = |why: String| BridgeError::NotLlamaServer { binary: binary.to_owned(), asked, why };
    let mut command = Command::new(binary);
    command.arg(asked).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true).process_group(0);
    environment::clean(command.as_std_mut());
    let mut child = command.spawn().map_err(|error| fault(format!("it cannot be run ({error})")))?;
    let group = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let all = async { tokio::join!(text(err), text(out), child.wait()) };
    let answer = tokio::time::timeout(limit, all).await;
    if answer.is_err() {
        // A wrapper's own children would go on otherwise.
        let _ = group.map(|group| kill_process_group(group, Signal::KILL));
    }
    let (err, out, status) = answer.map_err(|_| fault(format!("no answer within {} s", limit.as_secs())))?;
    let text = err + "\n" + &out;
    match status {
        Ok(status) if status.success() => Ok(text),
        Ok(status) => {
            let last = text.trim().lines().last().unwrap_or("it says nothing");
            Err(fault(format!("{status}, {}", last.chars().take(300).collect::<String>())))
        }
        Err(error) => Err(fault(error.to_string())),
    }
}

async fn text(from: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        let _ = from.take(CAP).read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

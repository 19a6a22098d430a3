//! One process of the child, under its guard: made, heard, measured, ended; must not know when any of that is due.

use std::{
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use rustix::process::{Pid, Signal as Unix, kill_process_group};
use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, ChildStdin, Command},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};

use super::{
    ServerOptions,
    life::Input,
    output::{Cutter, Output, Signal, one_line},
    socket::SocketFolder,
};

/// How long its output is read after its end. Unit: time. Default: 500 ms. Origin: it lies in the pipe by then. Cost of
/// less: last words lost; of more: a later restart where something else holds the pipe.
const LAST_READ: Duration = Duration::from_millis(500);

/// What comes from a process: which one, and what.
pub(super) type Note = (u64, Input);

/// A guard and what it guards.
pub(super) struct Process {
    guard: Child,
    /// Open as long as the child is wanted.
    life_line: Option<ChildStdin>,
    group: Pid,
    child: Arc<AtomicU32>,
    folder: SocketFolder,
    output: Arc<Output>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts the `number`-th one; what it says goes to `tell` and into `output`.
    pub(super) fn spawn(
        options: &ServerOptions,
        number: u64,
        tell: &mpsc::Sender<Note>,
        output: &Arc<Output>,
    ) -> Result<Self, String> {
        let folder = SocketFolder::create().map_err(|error| error.to_string())?;
        let mut words = options.guard.iter();
        let guard = words.next().ok_or("no guard to start it with")?;
        let mut command = Command::new(guard);
        command.args(words).arg(folder.path()).arg("--").arg(&options.binary).args(&options.args);
        command.arg("--host").arg(folder.socket());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C in the terminal is the node's to act on: it still has answers to finish.
        command.process_group(0);
        let mut guard = command.spawn().map_err(|error| format!("the guard cannot be started: {error}"))?;
        let group = guard.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        let group = group.ok_or("the guard ended at once")?;
        let child = Arc::new(AtomicU32::new(0));
        let reader = Reader {
            name: options.name.clone(),
            number,
            tell: tell.clone(),
            output: output.clone(),
            child: child.clone(),
        };
        let readers = [
            guard.stdout.take().map(|from| tokio::spawn(reader.clone().read(from))),
            guard.stderr.take().map(|from| tokio::spawn(reader.read(from))),
        ];
        let readers = readers.into_iter().flatten().collect();
        let life_line = guard.stdin.take();
        Ok(Self { guard, life_line, group, child, folder, output: output.clone(), readers })
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.socket()
    }

    /// The guard's and, once known, the child's.
    pub(super) fn pids(&self) -> (u32, Arc<AtomicU32>) {
        (self.group.as_raw_nonzero().get().unsigned_abs(), self.child.clone())
    }

    /// Asks it to end: the guard sees to it.
    pub(super) fn stop(&mut self) {
        self.life_line = None;
    }

    /// Ends all of it at once.
    pub(super) fn kill(&self) {
        let _ = kill_process_group(self.group, Unix::KILL);
    }

    /// Waits for the guard's end, which is the child's. May be dropped and called again.
    pub(super) async fn ended(&mut self) -> Option<ExitStatus> {
        self.guard.wait().await.ok()
    }

    /// Clears up after its end, and says in one line how it ended.
    pub(super) async fn bury(mut self, status: Option<ExitStatus>) -> String {
        // Where the guard was killed, its child is still there. The number cannot be another's as long as one of
        // the group lives, and nobody takes it in the instant after.
        self.kill();
        for reader in &mut self.readers {
            let _ = timeout(LAST_READ, reader).await;
        }
        self.readers.iter().for_each(JoinHandle::abort);
        let words = self.output.last_words();
        let how = status.map_or_else(|| "its end was missed".to_owned(), how);
        one_line(&if words.is_empty() { format!("{how}, without a word") } else { format!("{how}: {words}") })
    }

    /// The CPU time of all that the guard guards, in milliseconds. Walks the process list: a wrapper script's children
    /// count, too. Blocks for some milliseconds.
    pub(super) fn cpu_time(guard: u32) -> Option<u64> {
        let mut system = System::new().ok()?;
        let kind = ProcessRefreshKind::nothing().with_cpu().without_tasks();
        system.refresh_processes_specifics(ProcessesToUpdate::All, true, kind);
        let guard = sysinfo::Pid::from_u32(guard);
        let guarded = |pid: &sysinfo::Pid| {
            let mut at = *pid;
            // No chain is longer than this; one that changes while it is read could be a ring.
            for _ in 0..64 {
                match system.process(at).and_then(sysinfo::Process::parent) {
                    Some(parent) if parent == guard => return true,
                    Some(parent) => at = parent,
                    None => return false,
                }
            }
            false
        };
        let times: Vec<u64> = system
            .processes()
            .iter()
            .filter(|(pid, _)| guarded(pid))
            .map(|(_, process)| process.accumulated_cpu_time())
            .collect();
        (!times.is_empty()).then(|| times.iter().sum())
    }
}

/// The guard passes the child's end on as an exit code.
fn how(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(127), _) => "it could not be run".to_owned(),
        (Some(code), _) if (129..=192).contains(&code) => by_signal(code - 128),
        (Some(code), _) => format!("it exited with code {code}"),
        (None, Some(signal)) => format!("its guard was ended by signal {signal}"),
        (None, None) => "it ended".to_owned(),
    }
}

fn by_signal(signal: i32) -> String {
    let hint = match signal {
        // By far the most frequent sender.
        9 => " (the system does that when memory runs out)",
        4 => " (built for another processor?)",
        _ => "",
    };
    format!("it was ended by signal {signal}{hint}")
}

/// Reads for ever, whatever comes: a full pipe would stop the child.
#[derive(Clone)]
struct Reader {
    name: String,
    number: u64,
    tell: mpsc::Sender<Note>,
    output: Arc<Output>,
    child: Arc<AtomicU32>,
}

impl Reader {
    async fn read(self, mut from: impl AsyncRead + Unpin) {
        let (mut cutter, mut bytes) = (Cutter::default(), vec![0; 16 << 10]);
        let mut take = |line: &str| self.line(line);
        loop {
            match from.read(&mut bytes).await {
                Ok(0) | Err(_) => return cutter.end(&mut take),
                Ok(count) => cutter.feed(&bytes[..count], &mut take),
            }
        }
    }

    fn line(&self, line: &str) {
        // Where the driver is behind, a note may be lost: health and the next progress say the same.
        let tell = |input| {
            let _ = self.tell.try_send((self.number, input));
        };
        match Signal::read(line) {
            Some(Signal::Pid(pid)) => self.child.store(pid, Relaxed),
            Some(Signal::Progress(progress)) => tell(Input::Progress(progress)),
            Some(Signal::Ready) => tell(Input::Listening),
            Some(Signal::Other) => {}
            None => self.output.line(&self.name, line),
        }
    }
}

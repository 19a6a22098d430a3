//! The guard: a process between node and `llama-server` that outlives neither; must not know HTTP, models or tokio.

use std::{
    ffi::OsString,
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitId, WaitIdOptions, getpgrp, getpid, kill_process, kill_process_group, waitid},
};

use super::{environment, socket::SOCKET_NAME};

/// What the guard's own lines begin with, on its standard output and error, among the child's.
pub(super) const VOICE: &str = "guard: ";

/// What a child that was told of a router ends at. A SIGTERM alone is not enough for such a one: it stops serving and then
/// waits for this line. Closing its input instead makes it abort.
const EXIT: &[u8] = b"cmd_router_to_child:exit\n";

/// How long the child has to end by itself. Unit: time. Default: 1 s. Origin: it takes 0.02 s when idle, and as long as
/// its clients when not, who are gone with the node. Cost of less: none known; it writes nothing at its end.
const GRACE: Duration = Duration::from_secs(1);

/// How long a killed child is waited for. Unit: time. Default: 5 s. Origin: guess; a driver may take seconds to free a
/// large model. Cost of less: the socket's folder goes before the child.
const LAST_WAIT: Duration = Duration::from_secs(5);

enum Event {
    NodeGone,
    ChildEnded,
}

/// Runs `SOCKET_DIR -- PROGRAM ARGS…` until it ends, or until standard input does: then the program is made to end.
/// Either way the folder goes. Its exit code is the program's, 128 + N after signal N.
pub fn guard_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let (Some(folder), Some(dashes), Some(program)) = (args.next(), args.next(), args.next()) else {
        return refuse("usage: SOCKET_DIR -- PROGRAM ARGS…; it is run by the node, not by people");
    };
    if dashes != "--" {
        return refuse("usage: SOCKET_DIR -- PROGRAM ARGS…; it is run by the node, not by people");
    }
    let folder = PathBuf::from(folder);
    let mut command = Command::new(&program);
    // The held pipe is its second life line: with this variable it ends at its input's end, should the guard be killed.
    command.args(args).stdin(Stdio::piped());
    environment::clean(&mut command);
    command.env("LLAMA_SERVER_ROUTER_PORT", "1");
    let code = match command.spawn() {
        Ok(child) => watch(child, &folder),
        Err(error) => {
            clear(&folder);
            return refuse(&format!("error: {} cannot be run: {error}", program.display()));
        }
    };
    clear(&folder);
    code
}

fn watch(mut child: Child, folder: &Path) -> ExitCode {
    // Waiting would close it.
    let mut held = child.stdin.take();
    let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else { return ExitCode::FAILURE };
    say(&mut io::stdout(), &format!("pid {}", child.id()));
    let (tell, heard) = mpsc::channel();
    let node = tell.clone();
    thread::spawn(move || {
        drain(&mut io::stdin());
        let _ = node.send(Event::NodeGone);
    });
    thread::spawn(move || {
        // Without reaping, so that its number cannot be another's while signals may still be sent to it.
        let quietly = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while matches!(waitid(WaitId::Pid(pid), quietly), Err(Errno::INTR)) {}
        let _ = tell.send(Event::ChildEnded);
    });
    let node_gone = matches!(heard.recv(), Ok(Event::NodeGone));
    if node_gone {
        // The line ends one that serves, the signal one that loads; the pipe is empty, so this does not block.
        let _ = held.as_mut().map(|held| held.write_all(EXIT));
        let _ = kill_process(pid, Signal::TERM);
        if heard.recv_timeout(GRACE).is_err() {
            let _ = kill_process(pid, Signal::KILL);
            let _ = heard.recv_timeout(LAST_WAIT);
        }
    }
    drop(held);
    if node_gone {
        clear(folder);
        // Whatever else the program started (a wrapper script's children) goes with it, and so does this process.
        if getpgrp() == getpid() {
            let _ = kill_process_group(getpid(), Signal::KILL);
        }
        return ExitCode::SUCCESS;
    }
    child.wait().map_or(ExitCode::FAILURE, |status| {
        use std::os::unix::process::ExitStatusExt;
        let code = status.code().or_else(|| Some(128 + status.signal()?)).unwrap_or(1);
        ExitCode::from(u8::try_from(code).unwrap_or(1))
    })
}

/// Until the end, or until it breaks.
fn drain(from: &mut impl Read) {
    let mut bytes = [0; 64];
    loop {
        match from.read(&mut bytes) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Only what belongs there: a wrong path must not cost anybody a folder.
fn clear(folder: &Path) {
    let _ = fs::remove_file(folder.join(SOCKET_NAME));
    let _ = fs::remove_dir(folder);
}

fn refuse(why: &str) -> ExitCode {
    say(&mut io::stderr(), why);
    ExitCode::from(127)
}

/// The whole line in one write, since the child writes to the same pipe. Nobody may be left to read it.
fn say(to: &mut impl Write, words: &str) {
    let _ = to.write_all(format!("{VOICE}{words}\n").as_bytes()).and_then(|()| to.flush());
}

//! Whether this machine has a llama-server for tests, and which processes it left.

#![allow(dead_code, unreachable_pub, clippy::print_stderr, reason = "each test file uses its part")]

use std::path::PathBuf;

use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind};

/// `None`: there is none, which a CI machine may not lack.
pub fn llama_server() -> Option<PathBuf> {
    let found = std::env::var_os("MESH_LLM_TEST_LLAMA_SERVER").map(PathBuf::from);
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "MESH_LLM_TEST_LLAMA_SERVER is not set");
        eprintln!("skipped: MESH_LLM_TEST_LLAMA_SERVER is not set");
    }
    found
}

/// Flags of a node that serves mesh-tiny by llama-server.
pub fn gguf_tiny() -> Option<String> {
    let server = llama_server()?;
    let server = server.display();
    Some(format!("--model mesh-tiny --gguf --llama-server {server} --parallel 4 --llama-arg=-t --llama-arg=1"))
}

/// Processes with this word on their command line.
pub fn processes_with(word: &str) -> Vec<(u32, String)> {
    let mut system = System::new().unwrap();
    let what = ProcessRefreshKind::nothing().with_cmd(UpdateKind::Always);
    system.refresh_processes_specifics(ProcessesToUpdate::All, true, what);
    let line = |process: &sysinfo::Process| {
        process.cmd().iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    };
    let processes = system.processes().values().filter(|process| process.thread_kind().is_none());
    let all = processes.map(|process| (process.pid().as_u32(), line(process)));
    all.filter(|(_, line)| line.contains(word)).collect()
}

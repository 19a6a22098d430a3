//! What each flag becomes, and what is refused; must not know how any of it is used.

use clap::Parser;
use mesh_proto::{
    identity::{Admission, NodeKey, Nonce, Terms, Ticket},
    time::UnixMillis,
};

use runtime_gguf_bridge::KvBits;

use super::*;
use crate::cli::{Relay, Share, Way};

fn environment() -> Environment {
    Environment { cache: Some("/cache".into()), state: Some("/state".into()), ..Environment::default() }
}

fn config(words: &[&str], environment: Environment) -> Result<Config, String> {
    let typed = Typed::try_parse_from(std::iter::once("mesh-llm").chain(words.iter().copied()));
    Config::from(typed.map_err(|e| e.to_string())?, environment).map_err(|e| e.to_string())
}

fn serving_in(line: &str, environment: Environment) -> Result<Serving, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match config(&words, environment)?.command {
        Command::Serve(serving) => Ok(*serving),
        _ => Err("does not serve".into()),
    }
}

fn serving(line: &str) -> Result<Serving, String> {
    serving_in(line, environment())
}

fn mesh(line: &str) -> MeshOptions {
    serving(line).unwrap().mesh.unwrap()
}

/// A ticket into the mesh that this founder founds.
fn ticket(founder: u8) -> String {
    let now = UnixMillis(1_700_000_000_000);
    let desk = Admission::found(NodeKey::from_seed([founder; 32]), now).unwrap();
    let nonce = Nonce([7; 16]);
    let signed = desk.invite(&Terms::new(MemberRole::Serve, nonce), now).unwrap();
    Ticket::new(Vec::new(), signed, desk.secret(&nonce)).to_text().unwrap()
}

#[test]
fn clap_finds_no_fault_in_the_command() {
    Typed::command().debug_assert();
}

#[test]
fn serve_is_the_default_verb_and_a_node_is_alone_unless_told() {
    for line in ["--model mesh-tiny --mlx", "serve --model mesh-tiny --mlx"] {
        let serving = serving(line).unwrap();
        assert_eq!(serving.models, [ModelSource::Named("mesh-tiny".into(), Some(Format::Mlx))]);
        assert_eq!(serving.listen.address().to_string(), "127.0.0.1:9337");
        assert_eq!((serving.parallel, serving.context_tokens, serving.max_memory), (64, None, None));
        assert_eq!((serving.console, serving.state), (Console::Usual, PathBuf::from("/state")));
        assert!(serving.keys.is_open() && serving.mesh.is_none());
    }
}

#[test]
fn a_node_may_start_without_a_model() {
    for line in ["", "serve", "serve --port 0"] {
        assert!(serving(line).unwrap().models.is_empty(), "{line}");
    }
}

#[test]
fn every_flag_arrives() {
    let line = "--model a --model ./b --mlx --mlx-file c --port 0 --host ::1 --api-key k --ctx-size 4096 \
                --parallel 2 --max-memory 8GiB --log-format json --console 0 --state /elsewhere";
    let words: Vec<&str> = line.split_whitespace().collect();
    let Config { logging, command: Command::Serve(serving) } = config(&words, environment()).unwrap() else { panic!() };
    let named = |name: &str| ModelSource::Named(name.into(), Some(Format::Mlx));
    assert_eq!(serving.models, [named("a"), named("./b"), ModelSource::MlxFile("c".into())]);
    assert_eq!(serving.listen.address().to_string(), "[::1]:0");
    assert_eq!((serving.parallel, serving.context_tokens, serving.max_memory), (2, Some(4096), Some(8 << 30)));
    assert_eq!((serving.console, serving.state), (Console::At(0), PathBuf::from("/elsewhere")));
    assert_eq!(logging.format, LogFormat::Json);
    assert!(!serving.keys.is_open());
}

#[test]
fn what_is_for_llama_server_arrives() {
    let line = "--model a --gguf --gguf-file b --llama-server ./llama --kv-bits 8 --gpu-layers 3 --llama-arg=-t \
                --llama-arg 2";
    let found = serving(line).unwrap();
    assert_eq!(found.models, [ModelSource::Named("a".into(), Some(Format::Gguf)), ModelSource::GgufFile("b".into())]);
    let GgufServing { llama_server, kv_bits, gpu_layers, draft, mmproj, extra } = found.gguf;
    assert_eq!((llama_server, kv_bits, gpu_layers), (Some("./llama".into()), Some(KvBits::Q8), Some(3)));
    assert_eq!((draft, mmproj, extra), (None, None, vec!["-t".to_owned(), "2".to_owned()]));
    let found = serving("--model a --draft d --mmproj m").unwrap();
    assert_eq!(found.models, [ModelSource::Named("a".into(), None)]);
    assert_eq!((found.gguf.draft, found.gguf.mmproj), (Some("d".into()), Some("m".into())));
}

#[test]
fn the_console_is_at_its_usual_port_at_another_or_nowhere() {
    for (line, console, port) in [
        ("", Console::Usual, Some(3131)),
        ("--console 3131", Console::At(3131), Some(3131)),
        ("--console 0", Console::At(0), Some(0)),
        ("--no-console", Console::Off, None),
    ] {
        let found = serving(line).unwrap().console;
        assert_eq!((found, found.port()), (console, port), "{line}");
    }
}

#[test]
fn a_mesh_is_founded_with_a_name() {
    let found = mesh("--mesh-name home --ticket-file t --bind 127.0.0.1:0 --bind [::1]:7 --no-relay --no-mdns");
    assert!(matches!(&found.way, Way::Found { name } if name == "home"));
    assert_eq!((found.role, found.relay, found.mdns), (MemberRole::Serve, Relay::None, false));
    assert_eq!((found.ticket_file, found.state), (Some("t".into()), PathBuf::from("/state")));
    assert_eq!(found.bind.iter().map(ToString::to_string).collect::<Vec<_>>(), ["127.0.0.1:0", "[::1]:7"]);
    let plain = mesh("--model x --mlx --mesh-name home --relay https://relay.example");
    assert_eq!((plain.relay, plain.mdns), (Relay::Own("https://relay.example".into()), true));
    assert_eq!(mesh("--mesh-name home").relay, Relay::Public);
}

#[test]
fn model_files_are_shared_as_the_flags_say() {
    assert_eq!(mesh("--mesh-name home").share, Share::default());
    assert_eq!(mesh("--mesh-name home --no-share").share, Share::Nothing);
    let also = vec!["org/a".to_owned(), "org/b.c_d-e".to_owned()];
    assert_eq!(mesh("--mesh-name home --share org/a --share org/b.c_d-e").share, Share::Open { also });
}

#[test]
fn a_mesh_is_joined_with_tickets_typed_or_in_a_file_or_in_the_environment() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{}\n", ticket(1))).unwrap();
    let joined = |line: &str| match mesh(line).way {
        Way::Join(tickets) => tickets.len(),
        Way::Found { .. } => 0,
    };
    let path = file.path().display();
    assert_eq!(joined(&format!("--join {0} --join {0}", ticket(1))), 2);
    assert_eq!(joined(&format!("--join-file {path}")), 1);
    assert_eq!(joined(&format!("--join {} --join-file {path}", ticket(1))), 2);
    let from_environment = || Environment { join: Some(ticket(1).into()), ..environment() };
    assert!(serving_in("", from_environment()).unwrap().mesh.is_some());
    // What was typed goes before the environment.
    let typed = serving_in(&format!("--join {}", ticket(2)), from_environment()).unwrap().mesh.unwrap();
    assert!(matches!(typed.way, Way::Join(tickets) if tickets.len() == 1));
}

#[test]
fn a_client_is_a_door_without_models() {
    let line = format!("client --join {} --port 0 --console 0", ticket(1));
    let found = serving(&line).unwrap();
    assert!(found.models.is_empty());
    assert_eq!(found.mesh.unwrap().role, MemberRole::Client);
    assert!(serving("client").unwrap_err().contains("client needs a mesh"));
    for flag in ["--model x", "--mlx", "--mlx-file x", "--mesh-name x", "--ctx-size 9"] {
        let error = serving(&format!("{line} {flag}")).unwrap_err();
        assert!(error.contains(flag.split(' ').next().unwrap()), "{flag}: {error}");
    }
}

#[test]
fn what_does_not_fit_together_or_does_not_work_yet_is_an_error() {
    let (one, other) = (ticket(1), ticket(2));
    let both = format!("--mesh-name x --join {one}");
    let two = format!("--join {one} --join {other}");
    for (line, said) in [
        ("--mlx", "needs --model"),
        ("--gguf", "needs --model"),
        ("--model x --gguf --mlx", "--gguf"),
        ("--model x --mlx --draft y", "--draft is for GGUF"),
        ("--mlx-file x --kv-bits 8", "--kv-bits is for GGUF"),
        ("--model x --gguf --kv-bits 5", "--kv-bits"),
        ("--model x --gguf-file y --mmproj z", "--mmproj belongs to one GGUF model"),
        ("--model x --gguf --llama-arg=--port --llama-arg 80", "--llama-arg --port cannot be given"),
        ("--model x --mlx --parallel 0", "--parallel"),
        ("--model x --mlx --ctx-size -1", "-1"),
        ("--model x --mlx --port 70000", "--port"),
        ("--model x --mlx --max-memory lots", "--max-memory"),
        ("--model x --mlx --log-format xml", "--log-format"),
        ("bench", "bench"),
        ("--console 70000", "--console"),
        ("--console 1 --no-console", "--no-console"),
        ("--ticket-file t", "--mesh-name"),
        ("--bind 127.0.0.1:0", "--bind needs a mesh"),
        ("--relay https://x.example", "--relay needs a mesh"),
        ("--no-relay", "--no-relay needs a mesh"),
        ("--no-mdns", "--no-mdns needs a mesh"),
        ("--no-share", "--no-share needs a mesh"),
        ("--share org/a", "--share needs a mesh"),
        ("--mesh-name x --share tiny", "--share tiny"),
        ("--mesh-name x --share org/../a", "--share org/../a"),
        ("--mesh-name x --share org/a --no-share", "--no-share"),
        ("--mesh-name x --bind 127.0.0.1", "--bind"),
        ("--mesh-name x --relay https://x.example --no-relay", "--no-relay"),
        ("--mesh-name x --relay nowhere", "--relay nowhere"),
        ("--mesh-name x --relay ftp://x.example", "--relay ftp://x.example"),
        ("--join-file /no/such/file", "--join-file /no/such/file"),
        (both.as_str(), "--mesh-name"),
        (two.as_str(), "different meshes"),
    ] {
        let error = serving(line).map(|_| ()).unwrap_err();
        assert!(error.contains(said), "{line}: {error}");
    }
    let name = |name: &str| config(&["--mesh-name", name], environment()).map(|_| ()).unwrap_err();
    for bad in ["", " ", "a\nb", &"x".repeat(65)] {
        assert!(name(bad).contains("--mesh-name"), "{bad:?}");
    }
    let environment = Environment { join: Some(one.into()), ..environment() };
    assert!(serving_in("--mesh-name x", environment).unwrap_err().contains("MESH_LLM_JOIN"));
}

#[test]
fn a_bad_ticket_is_a_usage_error_that_does_not_repeat_it() {
    let good = ticket(1);
    let cut = &good[..good.len() - 9];
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), cut).unwrap();
    let errors = [
        ("checksum", serving(&format!("--join {cut}"))),
        ("checksum", serving(&format!("--join-file {}", file.path().display()))),
        ("checksum", serving_in("", Environment { join: Some(cut.into()), ..environment() })),
        ("starts with", serving("--join hunter2hunter2")),
        ("version", serving(&format!("--join {}", good.replacen('1', "9", 1)))),
    ];
    for (said, found) in errors {
        let error = found.map(|_| ()).unwrap_err();
        assert!(error.contains(said), "{error}");
        assert!(!error.contains(&good[20..40]) && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn a_ticket_does_not_show_in_debug_output() {
    let text = ticket(1);
    let shown = format!("{:?}", mesh(&format!("--join {text}")));
    assert!(!shown.contains(&text[8..]), "{shown}");
}

#[test]
fn a_key_comes_from_the_environment_unless_it_was_typed() {
    let environment = Environment { api_key: Some("from-env".into()), log: Some("debug".into()), ..environment() };
    let Config { command: Command::Serve(serving), logging } = config(&[], environment).unwrap() else { panic!() };
    assert!(!serving.keys.is_open());
    assert_eq!(logging.filter.as_deref(), Some("debug"));
}

#[test]
fn without_a_home_both_folders_must_be_named() {
    assert!(serving_in("", Environment::default()).unwrap_err().contains("MESH_LLM_CACHE"));
    let environment = Environment { cache: Some("/cache".into()), ..Environment::default() };
    assert!(serving_in("", environment.clone()).unwrap_err().contains("MESH_LLM_STATE"));
    assert!(serving_in("--state /here", environment).is_ok());
}

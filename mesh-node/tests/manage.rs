//! The verbs that talk to a running node, and the API behind them, driven as a person and as a hostile page would.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/binary.rs"]
mod binary;

use std::os::unix::fs::PermissionsExt;

use binary::{Home, Node};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

/// The status of a request to the management API with these headers.
async fn knock(node: &Node, method: Method, path: &str, headers: &[(&'static str, String)]) -> StatusCode {
    let mut request = Client::new().request(method, format!("{}{path}", node.console));
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    request.send().await.unwrap().status()
}

#[tokio::test]
async fn a_model_is_loaded_asked_unloaded_and_gone_and_the_node_stops() {
    let node = Node::start_with("").await;
    assert_eq!(node.ask("What is 3 + 4?", json!({})).await.status(), 404);

    let (code, stdout, stderr) = node.manage("load mesh-tiny --mlx").await;
    assert_eq!((code, stdout.as_str()), (Some(0), "mesh-tiny answers\n"), "{stderr}");
    let answer: Value = node.ask("What is 3 + 4?", json!({ "temperature": 0 })).await.json().await.unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], "3 + 4 = 7.");

    let (code, table, _) = node.manage("status").await;
    assert_eq!(code, Some(0));
    assert!(table.contains(&node.url) && table.contains("ready, pinned") && table.contains("in no mesh"), "{table}");
    let (_, json, _) = node.manage("status --json").await;
    let status: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&status["models"][0]["id"], &status["models"][0]["state"]), (&json!("mesh-tiny"), &json!("ready")));
    assert_eq!((&status["mesh"], &status["stopping"]), (&Value::Null, &json!(false)));

    let (code, stdout, stderr) = node.manage("unload mesh-tiny").await;
    assert_eq!((code, stdout.as_str()), (Some(0), "mesh-tiny is unloaded\n"), "{stderr}");
    let refused = node.ask("What is 3 + 4?", json!({})).await;
    assert!([404, 503].contains(&refused.status().as_u16()), "{}", refused.status());
    assert!(refused.text().await.unwrap().contains("mesh-tiny"));
    let (code, _, stderr) = node.manage("unload mesh-tiny").await;
    assert_eq!((code, stderr.as_str()), (Some(1), "mesh-llm: mesh-tiny is not in memory\n"));

    let (code, json, _) = node.manage("load mesh-tiny --mlx --json").await;
    assert_eq!(code, Some(0));
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["state"], "ready");
    assert_eq!(node.ask("Hello", json!({})).await.status(), 200);

    let (code, stdout, stderr) = node.manage("stop").await;
    assert_eq!((code, stdout.as_str()), (Some(0), "stopping: running answers may end first\n"), "{stderr}");
    assert_eq!(node.end().await.code(), Some(0));
}

#[tokio::test]
async fn what_the_node_refuses_is_one_line_and_exit_code_1() {
    let node = Node::start_with("").await;
    for (line, said) in [
        ("load nothing", "no model called nothing is on this machine"),
        ("load ./no-such-folder", "no such file or folder"),
        ("unload nothing", "no model called nothing is on this node"),
        ("ticket new", "this node is in no mesh"),
        ("ticket show", "this node is in no mesh"),
        ("ticket show --secret 7f", "this node is in no mesh"),
        ("ticket revoke 7f", "this node is in no mesh"),
        ("ticket revoke a/b", "no ticket's id"),
        ("expel 0123456789", "no other node's id begins with"),
    ] {
        let (code, stdout, stderr) = node.manage(line).await;
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (Some(1), "", 1), "{line}: {stderr}");
        assert!(stderr.starts_with("mesh-llm: ") && stderr.contains(said), "{line}: {stderr}");
    }
}

#[tokio::test]
async fn without_a_node_or_with_anothers_token_the_verbs_say_what_to_do() {
    let home = Home::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (code, _, stderr) = home.run(&format!("status --console {free}")).await;
    let said = format!(
        "mesh-llm: no node answers on 127.0.0.1:{free}; is mesh-llm running? --console PORT names another port\n"
    );
    assert_eq!((code, stderr), (Some(1), said));

    let node = Node::start_with("").await;
    let port = node.console.rsplit(':').next().unwrap();
    let (code, _, stderr) = home.run(&format!("stop --console {port}")).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("console.token") && stderr.contains("--state"), "{stderr}");
    std::fs::create_dir_all(home.state()).unwrap();
    std::fs::write(home.state().join("console.token"), "ab".repeat(32)).unwrap();
    let (code, _, stderr) = home.run(&format!("stop --console {port}")).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("does not know the token") && !stderr.contains("abab"), "{stderr}");

    // Something else listens there: the node's own OpenAI API, for example.
    let port = node.url.rsplit(':').next().unwrap();
    let (code, _, stderr) = home.run(&format!("status --console {port}")).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("no mesh-llm") || stderr.contains("there is no GET"), "{stderr}");
}

#[tokio::test]
async fn the_token_is_for_its_owner_and_needed_for_all_but_the_status() {
    let node = Node::start_with("").await;
    let mode = std::fs::metadata(node.home.state().join("console.token")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(knock(&node, Method::GET, "/api/status", &[]).await, 200);
    let token = ("authorization", format!("Bearer {}", node.token()));
    let wrong = ("authorization", format!("Bearer {}", "0".repeat(64)));
    for (method, path) in [
        (Method::POST, "/api/load"),
        (Method::POST, "/api/unload"),
        (Method::POST, "/api/stop"),
        (Method::GET, "/api/tickets"),
        (Method::POST, "/api/tickets"),
        (Method::GET, "/api/tickets/x"),
        (Method::DELETE, "/api/tickets/x"),
        (Method::POST, "/api/nodes/x/expel"),
    ] {
        assert_eq!(knock(&node, method.clone(), path, &[]).await, 401, "{path}");
        assert_eq!(knock(&node, method.clone(), path, std::slice::from_ref(&wrong)).await, 401, "{path}");
    }
    assert_eq!(knock(&node, Method::GET, "/api/tickets", std::slice::from_ref(&token)).await, 409);
    assert_eq!(knock(&node, Method::GET, "/api/nothing", std::slice::from_ref(&token)).await, 404);
    assert_eq!(knock(&node, Method::DELETE, "/api/status", std::slice::from_ref(&token)).await, 405);
    assert_eq!(knock(&node, Method::POST, "/api/load", &[token]).await, 400);
    // The token opens the console and nothing else, and shows nowhere.
    assert!(node.said.iter().all(|note| !note.contains(&node.token())));
}

#[tokio::test]
async fn foreign_hosts_and_origins_are_refused() {
    let node = Node::start_with("").await;
    let port = node.console.rsplit(':').next().unwrap().to_owned();
    let token = || ("authorization", format!("Bearer {}", node.token()));
    for (method, path) in [(Method::GET, "/api/status"), (Method::POST, "/api/stop")] {
        for header in [
            ("host", format!("evil.example:{port}")),
            ("host", "127.0.0.1".to_owned()),
            ("origin", "http://evil.example".to_owned()),
            ("origin", "null".to_owned()),
            ("origin", node.url.clone()),
        ] {
            let shown = format!("{path} {header:?}");
            assert_eq!(knock(&node, method.clone(), path, &[header, token()]).await, 403, "{shown}");
        }
    }
    for header in [("host", format!("localhost:{port}")), ("origin", node.console.clone())] {
        assert_eq!(knock(&node, Method::GET, "/api/status", &[header]).await, 200);
    }
    let (code, ..) = node.manage("status").await;
    assert_eq!(code, Some(0), "it runs on");
}

#[tokio::test]
async fn a_taken_console_port_is_an_error_only_where_it_was_asked_for() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let (code, _, stderr) = Home::new().run(&format!("serve --port 0 --console {port}")).await;
    assert_eq!((code, stderr.lines().count()), (Some(1), 1), "{stderr}");
    assert!(stderr.contains(&format!("127.0.0.1:{port}")) && stderr.contains("--no-console"), "{stderr}");
}

#[tokio::test]
async fn a_node_founds_a_mesh_and_hands_out_tickets() {
    let flags = "--mesh-name home --bind 127.0.0.1:0 --no-relay --no-mdns";
    let node = Node::start_with(flags).await;
    let (code, ticket, stderr) = node.manage("ticket new --uses 2 --expires 1h").await;
    assert_eq!((code, ticket.lines().count()), (Some(0), 1), "{stderr}");
    assert!(ticket.starts_with("meshllm1"), "{ticket}");

    let (_, json, _) = node.manage("ticket show --json").await;
    let open: Vec<Value> = serde_json::from_str(&json).unwrap();
    let mine = open.iter().find(|ticket| ticket["uses"] == 2).unwrap();
    assert!(!json.contains(ticket.trim().strip_prefix("meshllm1").unwrap()), "no secret in the list");
    let id = mine["id"].as_str().unwrap();
    let (_, shown, _) = node.manage(&format!("ticket show --secret {id}")).await;
    assert!(shown.starts_with("meshllm1"), "{shown}");

    let out = node.home.path().join("t");
    let (code, stdout, stderr) = node.manage(&format!("ticket new --role client --out {}", out.display())).await;
    assert_eq!((code, stdout.as_str()), (Some(0), ""), "{stderr}");
    assert!(std::fs::read_to_string(&out).unwrap().starts_with("meshllm1"));
    assert_eq!(std::fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);

    let (code, _, stderr) = node.manage(&format!("ticket revoke {id}")).await;
    assert_eq!(code, Some(0), "{stderr}");
    let (_, table, _) = node.manage("ticket show").await;
    assert!(!table.contains(id), "{table}");

    let (_, table, _) = node.manage("status").await;
    assert!(table.contains("mesh home (") && table.contains("founded here"), "{table}");
    node.signal("TERM").await;
    assert_eq!(node.end().await.code(), Some(0));
}

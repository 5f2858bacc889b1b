//! What the command prints, byte for byte: its help, and its output from fixed answers of the API.
//!
//! `NETLOOM_BLESS=1 cargo test -p netloom` writes the golden files anew; read the difference.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test of a program starts the program, and its helpers may fail loudly"
)]

use axum::Json;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn network() -> Value {
    json!({
        "id": ID, "name": "blue", "driver": "bridge", "state": "ready", "internal": false,
        "subnets": [
            {"subnet": "10.9.0.0/24", "gateway": "10.9.0.1", "auxiliary": {"router": "10.9.0.2"}},
            {"subnet": "fd00:9::/64", "gateway": "fd00:9::1", "auxiliary": {}},
        ],
        "options": {"netloom.mtu": "1400"}, "endpoints": 2, "created_ms": 1_700_000_000_000_u64,
    })
}

fn port(container: &str, number: u16) -> Value {
    let endpoint = if container == "web" {
        ID
    } else {
        "fedcba9876543210"
    };
    json!({
        "protocol": "tcp", "host_ip": "0.0.0.0", "host_port": number,
        "container_ip": "10.9.0.5", "container_port": 80, "endpoint": endpoint, "container": container,
    })
}

fn endpoint() -> Value {
    json!({
        "id": ID, "network": ID, "network_name": "blue", "container": "web", "state": "joined",
        "mac": "02:42:0a:09:00:05", "ipv4": "10.9.0.5/24", "ipv6": "fd00:9::5/64",
        "netns": "/run/docker/netns/0123456789ab", "ports": [port("web", 8080)],
        "created_ms": 1_700_000_000_000_u64,
    })
}

fn pool() -> Value {
    let fill: Vec<u8> = (0..64).map(|n| if n < 16 { 255 } else { n }).collect();
    json!({
        "subnet": "10.9.0.0/24", "space": "local", "range": null, "gateway": "10.9.0.1",
        "references": ["local-10.9.0.0-24-00"], "capacity": 254, "used": 77, "fill": fill,
    })
}

fn addresses() -> Value {
    let address = |ip: &str, kind: &str, name: Option<&str>| {
        json!({"ip": ip, "pool": "10.9.0.0/24", "kind": kind, "mac": null, "name": name,
            "since_ms": 0})
    };
    json!([
        address("10.9.0.1", "gateway", None),
        address("10.9.0.2", "auxiliary", None),
        address("10.9.0.5", "endpoint", Some("web")),
        address("10.9.0.6", "in-doubt", None),
        address("10.9.0.80", "reserved", Some("db")),
    ])
}

fn findings() -> Value {
    json!([{
        "kind": "stray-link", "subject": "nlv0123456789",
        "detail": "it carries our tag, and no endpoint on record has it",
        "repair": "by-repair", "next_step": "netloom audit --repair",
    }])
}

fn status() -> Value {
    json!({
        "version": "9.9.9", "uptime_s": 93_784, "host": "h1", "store": "embedded-1",
        "docker": "28.5.2", "relay": "ok", "networks": 1, "endpoints": 2, "pools": 1,
        "addresses": 77, "ports": 2, "findings": [],
        "calls": [{"method": "NetworkDriver.Join", "ok": 7, "failed": 1}],
    })
}

fn cluster() -> Value {
    json!({
        "host": "h1", "url": "etcd://10.0.0.1:2379/netloom", "store": "etcd-0a1b", "epoch": 2,
        "standing": "healing", "why": null, "waiting": ["h2"],
    })
}

fn hosts() -> Value {
    let host = |id: &str, here: bool, owned: u64| {
        json!({
            "id": id, "here": here, "membership": "member", "boot": "b1", "starts": 3, "counter": 41,
            "last_heard_ms": 1_700_000_000_000_u64,
            "shares": [{"subnet": "10.9.0.0/24", "owned": owned, "free": 60}],
        })
    };
    json!([host("h1", true, 128), host("h2", false, 64)])
}

/// The fixed answers of the API.
async fn answer(request: Request) -> Response {
    let line = format!("{} {}", request.method(), request.uri().path());
    let body = match line.as_str() {
        "GET /v1/status" => status(),
        "GET /v1/networks" => json!([network()]),
        "GET /v1/networks/blue" | "POST /v1/networks" => network(),
        "GET /v1/endpoints" => json!([endpoint()]),
        "GET /v1/endpoints/web" => endpoint(),
        "GET /v1/ports" => json!([port("db", 5432), port("web", 8080)]),
        "GET /v1/pools" => json!([pool()]),
        "GET /v1/addresses" => addresses(),
        "POST /v1/audit" => json!({"not_asked": ["Docker: it is away"], "findings": findings()}),
        "GET /v1/doctor" => json!({"not_asked": [], "findings": []}),
        "POST /v1/uninstall" => {
            let body = json!({"error": "2 endpoints are joined: use --force"});
            return (StatusCode::CONFLICT, Json(body)).into_response();
        }
        "GET /v1/cluster" => cluster(),
        "POST /v1/cluster/init" => json!({"epoch": 1}),
        "GET /v1/hosts" => hosts(),
        "POST /v1/hosts/forget" => {
            json!({"freed": [{"subnet": "10.9.0.0/24", "addresses": 64}]})
        }
        "POST /v1/reservations" | "DELETE /v1/reservations/10.9.0.80" => {
            return StatusCode::NO_CONTENT.into_response();
        }
        _ => {
            let body = json!({"error": format!("there is no {line} here")});
            return (StatusCode::NOT_FOUND, Json(body)).into_response();
        }
    };
    Json(body).into_response()
}

/// Serves the fixed answers for as long as the test runs.
fn serve(socket: &Path) {
    let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::UnixListener::from_std(listener).unwrap();
            let router = axum::Router::new().fallback(answer);
            axum::serve(listener, router).await.unwrap();
        });
    });
}

fn netloom(socket: &Path, line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_netloom"))
        .env_clear()
        .env("NETLOOM_SOCKET", socket)
        .args(line.split_whitespace())
        .output()
        .unwrap()
}

/// Output, errors and exit code, as one text.
fn transcript(socket: &Path, line: &str) -> String {
    let output = netloom(socket, line);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let shown = socket.display().to_string();
    let errors = text(&output.stderr).replace(&shown, "SOCKET");
    format!(
        "$ netloom {line}\n{}{errors}[exit {}]\n",
        text(&output.stdout).replace(&shown, "SOCKET"),
        output.status.code().unwrap()
    )
}

/// Compares a transcript of several calls with a golden file.
fn compare(name: &str, socket: &Path, lines: &[&str]) {
    let found: Vec<String> = lines.iter().map(|line| transcript(socket, line)).collect();
    let found = found.join("\n");
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "golden", name]
        .iter()
        .collect();
    if std::env::var_os("NETLOOM_BLESS").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        golden == found,
        "{} differs (NETLOOM_BLESS=1 writes it anew); now it is:\n{found}",
        path.display()
    );
}

#[test]
fn help_is_as_it_was_read_last() {
    let nowhere = Path::new("/nonexistent/api.sock");
    compare(
        "help.txt",
        nowhere,
        &[
            "--help",
            "network --help",
            "network create --help",
            "endpoint --help",
            "pool --help",
            "address --help",
            "address reserve --help",
            "port --help",
            "audit --help",
            "uninstall --help",
            "cluster --help",
            "cluster init --help",
            "host --help",
            "host forget --help",
            "store --help",
            "store copy --help",
        ],
    );
}

#[test]
fn answers_are_shown_to_people() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("api.sock");
    serve(&socket);
    compare(
        "people.txt",
        &socket,
        &[
            "status",
            "network ls",
            "network inspect blue",
            "network create blue --subnet 10.9.0.0/24",
            "endpoint ls",
            "endpoint inspect web",
            "pool ls",
            "pool inspect 10.9.0.0/24",
            "address ls",
            "address reserve 10.9.0.80",
            "address release 10.9.0.80",
            "port",
            "port web",
            "audit",
            "doctor",
            "cluster init",
            "cluster status",
            "host ls",
            "host inspect h2",
            "host forget h2 --yes",
        ],
    );
}

#[test]
fn failures_have_a_cause_a_next_step_and_a_code() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("api.sock");
    compare(
        "not-running.txt",
        &socket,
        &["status", "network", "audit --nope"],
    );
    serve(&socket);
    compare(
        "failures.txt",
        &socket,
        &[
            "uninstall",
            "network inspect red",
            "address release 10.9.0.81",
            "host forget h2",
            "host inspect h",
            "host inspect x",
            "store check redis://h",
            "store check file:///nonexistent/store.redb",
            "store copy etcd://h etcd://h:2379/netloom",
            "store dump etcd://h --cert /c.pem",
        ],
    );
}

#[test]
fn json_is_one_document_that_holds_the_answer() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("api.sock");
    serve(&socket);
    for (line, expected) in [
        ("--json status", status()),
        ("--json network ls", json!([network()])),
        ("network inspect blue --json", network()),
        ("--json endpoint ls", json!([endpoint()])),
        ("--json pool ls", json!([pool()])),
        ("--json address ls", addresses()),
        ("--json host ls", hosts()),
    ] {
        let output = netloom(&socket, line);
        assert_eq!(output.status.code(), Some(0), "{line}");
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found, expected, "{line}");
    }
    let output = netloom(&socket, "--json audit");
    assert_eq!(output.status.code(), Some(3));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["findings"], findings());
    for line in [
        "--json address reserve 10.9.0.80",
        "--json address release 10.9.0.80",
    ] {
        let output = netloom(&socket, line);
        let _: Value = serde_json::from_slice(&output.stdout).unwrap();
    }
}

#[test]
fn man_pages_and_completions_need_no_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = Path::new("/nonexistent/api.sock");
    let man = dir.path().join("man");
    let output = netloom(nowhere, &format!("man {}", man.display()));
    assert_eq!(output.status.code(), Some(0));
    let page = std::fs::read_to_string(man.join("netloom-network-create.1")).unwrap();
    assert!(page.contains("\\-\\-subnet"), "{page}");
    for shell in ["bash", "zsh", "fish"] {
        let output = netloom(nowhere, &format!("completions {shell}"));
        assert!(output.stdout.len() > 1000, "{shell}");
    }
}

#[test]
fn a_stores_file_can_be_looked_at_without_a_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    drop(netloom_store::EmbeddedStore::open(&path).unwrap());
    let nowhere = Path::new("/nonexistent/api.sock");
    let output = netloom(nowhere, &format!("store check file://{}", path.display()));
    // No daemon ever began in it.
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let output = netloom(
        nowhere,
        &format!("store dump file://{} --json", path.display()),
    );
    assert_eq!(output.stdout, b"[]\n");
}

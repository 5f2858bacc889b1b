//! A plugin that does next to nothing: dockerd's own floor, a recorder, a check of the lab itself.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// A request larger than this is not from dockerd.
const MAX_BODY: u64 = 1 << 20;

/// Settings of [`serve_floor_plugin`].
#[derive(Debug, Clone, Default)]
pub struct FloorPlugin {
    /// One JSON object per call is appended here: `{"method":..,"request":..,"response":..}`.
    pub record: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct State {
    record: Option<fs::File>,
    /// Per pool: its first three octets and the last host number given out.
    pools: BTreeMap<String, u32>,
}

/// Serves both plugin protocols at `socket` until the process ends. Addresses are counted up and
/// never reused; endpoints get no interface.
///
/// # Errors
/// When the socket cannot be bound.
pub fn serve_floor_plugin(socket: &Path, settings: &FloorPlugin) -> Result<()> {
    let _ = fs::remove_file(socket);
    if let Some(dir) = socket.parent() {
        fs::create_dir_all(dir)?;
    }
    let listener = UnixListener::bind(socket)
        .with_context(|| format!("could not listen at {}", socket.display()))?;
    let record = settings.record.as_ref().map(|path| {
        fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .context("no record file")
    });
    let state = Arc::new(Mutex::new(State {
        record: record.transpose()?,
        ..State::default()
    }));
    for stream in listener.incoming() {
        let (stream, state) = (stream?, Arc::clone(&state));
        // dockerd closes idle connections itself; an error ends this connection only.
        thread::spawn(move || serve(&stream, &state));
    }
    Ok(())
}

fn serve(stream: &UnixStream, state: &Mutex<State>) -> Result<()> {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let method = line
            .split_whitespace()
            .nth(1)
            .unwrap_or("/")
            .trim_start_matches('/')
            .to_owned();
        let mut length = 0_u64;
        loop {
            let mut header = String::new();
            ensure!(reader.read_line(&mut header)? > 0, "the head was cut off");
            if header.trim().is_empty() {
                break;
            }
            if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        ensure!(length <= MAX_BODY, "a body of {length} bytes");
        let mut body = String::new();
        reader.by_ref().take(length).read_to_string(&mut body)?;
        let answer = answer(&method, &body, state)?.to_string();
        let size = answer.len();
        write!(
            writer,
            "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n{answer}"
        )?;
    }
}

fn answer(method: &str, body: &str, state: &Mutex<State>) -> Result<Value> {
    let request: Value = if body.trim().is_empty() {
        Value::Null
    } else {
        serde_json::from_str(body)?
    };
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let response = match method {
        "Plugin.Activate" => json!({ "Implements": ["NetworkDriver", "IpamDriver"] }),
        "NetworkDriver.GetCapabilities" => {
            json!({ "Scope": "local", "ConnectivityScope": "global" })
        }
        "IpamDriver.GetDefaultAddressSpaces" => {
            json!({ "LocalDefaultAddressSpace": "local", "GlobalDefaultAddressSpace": "global" })
        }
        "IpamDriver.RequestPool" => state.pool(&request),
        "IpamDriver.RequestAddress" => state.address(&request),
        "NetworkDriver.EndpointOperInfo" => json!({ "Value": {} }),
        // Without a gateway Docker would join every container to docker_gwbridge as well.
        "NetworkDriver.Join" => json!({ "DisableGatewayService": true }),
        _ => json!({}),
    };
    if let Some(file) = &mut state.record {
        let line = json!({ "method": method, "request": request, "response": response });
        writeln!(file, "{line}")?;
    }
    Ok(response)
}

impl State {
    fn pool(&mut self, request: &Value) -> Value {
        let wanted = text(request, "Pool");
        let v6 = request.get("V6").and_then(Value::as_bool).unwrap_or(false);
        let pool = match (wanted, v6) {
            ("", true) => format!("fd00:99:{}::/64", self.pools.len()),
            ("", false) => format!("10.99.{}.0/24", self.pools.len()),
            (wanted, _) => wanted.to_owned(),
        };
        self.pools.insert(pool.clone(), 0);
        json!({ "PoolID": pool, "Pool": pool })
    }

    fn address(&mut self, request: &Value) -> Value {
        let pool = text(request, "PoolID");
        let Some((base, length)) = pool.split_once('/') else {
            return json!({ "Error": format!("no pool {pool}"), "Err": format!("no pool {pool}") });
        };
        let wanted = text(request, "Address");
        if !wanted.is_empty() {
            return json!({ "Address": format!("{wanted}/{length}") });
        }
        let last = self.pools.entry(pool.to_owned()).or_default();
        *last += 1;
        let number = *last % 250 + 1;
        let address = match base.rsplit_once('.') {
            Some((net, _)) => format!("{net}.{number}"),
            None => format!("{base}{number:x}"),
        };
        json!({ "Address": format!("{address}/{length}") })
    }
}

fn text<'a>(request: &'a Value, key: &str) -> &'a str {
    request.get(key).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_a_pool_count_up_with_the_pools_length() {
        let state = Mutex::new(State::default());
        let pool = answer(
            "IpamDriver.RequestPool",
            r#"{"Pool":"10.5.0.0/16"}"#,
            &state,
        );
        let id = text(&pool.expect("an answer"), "PoolID").to_owned();
        let ask = json!({ "PoolID": id }).to_string();
        let first = answer("IpamDriver.RequestAddress", &ask, &state).expect("an answer");
        let second = answer("IpamDriver.RequestAddress", &ask, &state).expect("an answer");
        assert_eq!(text(&first, "Address"), "10.5.0.2/16");
        assert_eq!(text(&second, "Address"), "10.5.0.3/16");
    }

    #[test]
    fn a_body_that_is_not_json_is_an_error() {
        assert!(answer("NetworkDriver.Join", "{", &Mutex::new(State::default())).is_err());
    }
}

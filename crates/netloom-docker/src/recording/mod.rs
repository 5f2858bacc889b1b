//! Recorded call sequences of real Docker daemons: their format, a proxy that makes them, a replay.
//!
//! A recording is a text file of JSON lines. The first line says what was recorded, each other line
//! is one call:
//!
//! ```text
//! {"netloom_recording":1,"docker":"20.10.24","date":"2026-11-20","about":"run and stop"}
//! {"method":"POST","path":"/Plugin.Activate","request":null,"status":200,"response":{...}}
//! ```

mod proxy;
mod replay;

pub use proxy::RecordingProxy;
pub use replay::{Mismatch, replay};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The only version so far.
const VERSION: u32 = 1;

/// The first line of a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingHeader {
    #[serde(rename = "netloom_recording")]
    version: u32,
    /// The version of the Docker daemon.
    pub docker: String,
    /// The day, as `2026-11-20`.
    pub date: String,
    /// What was done meanwhile.
    pub about: String,
}

impl RecordingHeader {
    /// A header of the current version.
    #[must_use]
    pub fn new(docker: &str, date: &str, about: &str) -> Self {
        Self {
            version: VERSION,
            docker: docker.to_owned(),
            date: date.to_owned(),
            about: about.to_owned(),
        }
    }
}

/// One call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exchange {
    /// The HTTP method, always `POST` so far.
    pub method: String,
    /// The request's path, such as `/NetworkDriver.Join`.
    pub path: String,
    /// The request's JSON; none for an empty body, a text for a body that is no JSON.
    pub request: Option<Value>,
    /// The HTTP status of the answer.
    pub status: u16,
    /// The answer's JSON; a text where it is no JSON.
    pub response: Value,
}

/// A file of recorded calls.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    /// What was recorded.
    pub header: RecordingHeader,
    /// The calls in order of their answers.
    pub exchanges: Vec<Exchange>,
}

/// A text is no recording.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordingError {
    /// A line does not parse.
    #[error("line {line} of the recording is not valid; record it again")]
    Line {
        /// Counted from one.
        line: usize,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The first line is missing.
    #[error("the recording is empty; record it again")]
    Empty,
    /// A later version of the format.
    #[error("the recording has version {0}, which this program does not know")]
    Version(u32),
}

impl Recording {
    /// Reads a recording.
    ///
    /// # Errors
    /// When a line is not what it should be.
    pub fn parse(text: &str) -> Result<Self, RecordingError> {
        let at = |line: usize| move |source| RecordingError::Line { line, source };
        let mut lines = text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty());
        let (number, first) = lines.next().ok_or(RecordingError::Empty)?;
        let header: RecordingHeader = serde_json::from_str(first).map_err(at(number + 1))?;
        if header.version != VERSION {
            return Err(RecordingError::Version(header.version));
        }
        let exchanges = lines
            .map(|(number, line)| serde_json::from_str(line).map_err(at(number + 1)))
            .collect::<Result<_, _>>()?;
        Ok(Self { header, exchanges })
    }

    /// The text that [`parse`](Self::parse) reads.
    ///
    /// # Errors
    /// When a value cannot be written as JSON, which no parsed value can.
    pub fn to_text(&self) -> Result<String, serde_json::Error> {
        let mut text = serde_json::to_string(&self.header)? + "\n";
        for exchange in &self.exchanges {
            text += &(serde_json::to_string(exchange)? + "\n");
        }
        Ok(text)
    }

    /// The same recording with Docker's random ids numbered in order of appearance, so that two
    /// recordings of the same actions can be compared line by line. Nothing else is changed.
    #[must_use]
    pub fn with_stable_ids(mut self) -> Self {
        let mut ids = BTreeMap::new();
        for exchange in &mut self.exchanges {
            if let Some(request) = &mut exchange.request {
                number_ids(request, &mut ids);
            }
            number_ids(&mut exchange.response, &mut ids);
        }
        self
    }

    /// What differs in Docker's part of two recordings of the same actions: the sequence of calls,
    /// the names and kinds of their fields, and how each ended. Values differ between any two runs,
    /// and what the plugin answers is held by its own tests.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let shapes = |recording: &Self| -> Vec<String> {
            let of = |e: &Exchange| {
                let request = e.request.as_ref().map_or("nothing".into(), shape);
                let end = if is_success(&e.response) {
                    "done"
                } else {
                    "refused"
                };
                format!("{} {request}: {} {end}", e.path, e.status)
            };
            recording.exchanges.iter().map(of).collect()
        };
        let (ours, theirs) = (shapes(self), shapes(other));
        let longest = ours.len().max(theirs.len());
        let call = |shapes: &[String], at| shapes.get(at).cloned().unwrap_or("no call".into());
        (0..longest)
            .map(|at| (at, call(&ours, at), call(&theirs, at)))
            .filter(|(_, ours, theirs)| ours != theirs)
            .map(|(at, ours, theirs)| format!("call {at}: {ours} became {theirs}"))
            .collect()
    }
}

/// Docker reads network drivers' errors from `Err` and IPAM drivers' from `Error`.
fn is_success(answer: &Value) -> bool {
    let silent = |key| match answer.get(key) {
        Some(Value::String(text)) => text.is_empty(),
        _ => true,
    };
    silent("Err") && silent("Error")
}

/// Ids of Docker have 64 hexadecimal digits, ids of sandboxes are 12 at the end of a path.
fn number_ids(value: &mut Value, ids: &mut BTreeMap<String, usize>) {
    match value {
        Value::String(text) => {
            let (head, tail) = text
                .rsplit_once('/')
                .map_or(("", text.as_str()), |split| split);
            let hex = tail.bytes().all(|b| b.is_ascii_hexdigit());
            let wide = tail.len();
            if hex && (wide == 64 || (wide == 12 && head.ends_with("netns"))) {
                let next = ids.len() + 1;
                let number = *ids.entry(tail.to_owned()).or_insert(next);
                let slash = if head.is_empty() { "" } else { "/" };
                *text = format!("{head}{slash}{number:0wide$x}");
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| number_ids(item, ids)),
        Value::Object(fields) => fields.values_mut().for_each(|field| number_ids(field, ids)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A value with its texts, numbers and truths replaced by the names of their kinds.
fn shape(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "bool".into(),
        Value::Number(_) => "number".into(),
        Value::String(_) => "text".into(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(shape).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields
                .iter()
                .map(|(key, value)| format!("{key}:{}", shape(value)))
                .collect();
            fields.sort();
            format!("{{{}}}", fields.join(","))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn recording(id: &str, sandbox: &str) -> Recording {
        let request =
            json!({"NetworkID": id, "SandboxKey": format!("/run/docker/netns/{sandbox}")});
        let exchange = Exchange {
            method: "POST".into(),
            path: "/NetworkDriver.Join".into(),
            request: Some(request),
            status: 200,
            response: json!({"Gateway": "10.9.0.1"}),
        };
        Recording {
            header: RecordingHeader::new("20.10.24", "2026-11-20", "a join"),
            exchanges: vec![exchange],
        }
    }

    #[test]
    fn text_round_trips() {
        let before = recording(&"a".repeat(64), "0123456789ab");
        let after = Recording::parse(&before.to_text().unwrap()).unwrap();
        assert_eq!(before, after);
    }

    #[test]
    fn random_ids_become_numbers_and_equal_runs_equal_texts() {
        let a = recording(&"a".repeat(64), "0123456789ab").with_stable_ids();
        let b = recording(&"b".repeat(64), "ba9876543210").with_stable_ids();
        assert_eq!(a, b);
        let key = a.exchanges[0].request.as_ref().unwrap()["SandboxKey"].clone();
        assert_eq!(key, "/run/docker/netns/000000000002");
    }

    #[test]
    fn a_new_field_and_a_missing_call_are_differences() {
        let a = recording("n", "0123456789ab");
        let mut b = a.clone();
        assert!(a.differences(&b).is_empty());
        b.exchanges[0].request = Some(json!({"NetworkID": "n", "New": 1}));
        assert_eq!(a.differences(&b).len(), 1);
        b.exchanges.clear();
        assert_eq!(a.differences(&b).len(), 1);
    }

    #[test]
    fn other_texts_are_no_recordings() {
        for odd in [
            "",
            "\n",
            "{}",
            "{\"netloom_recording\":2,\"docker\":\"\",\"date\":\"\",\"about\":\"\"}",
        ] {
            assert!(Recording::parse(odd).is_err(), "{odd:?} was accepted");
        }
    }
}

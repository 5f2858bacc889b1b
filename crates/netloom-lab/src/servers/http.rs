//! The few words with which servers are asked how they are.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};

/// How long one answer may take; whoever waits for a server asks again.
const PATIENCE: Duration = Duration::from_secs(2);

/// Connects, from inside of a network namespace if one is named.
pub(super) fn dial(to: SocketAddr, netns: Option<&Path>) -> Result<TcpStream> {
    let stream = match netns {
        None => TcpStream::connect_timeout(&to, PATIENCE)?,
        // A thread enters alone, and its socket stays where it was made.
        Some(netns) => std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(std::fs::File::open(netns)?, CloneFlags::CLONE_NEWNET)?;
                TcpStream::connect_timeout(&to, PATIENCE)
            });
            inside
                .join()
                .ok()
                .context("a thread panicked")?
                .context("no connection")
        })?,
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Writes `words` and reads until the other side ends.
pub(super) fn ask(mut stream: TcpStream, words: &str) -> Result<String> {
    stream.write_all(words.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// A request of HTTP/1.0, which ends the connection behind the answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    /// A whole header line, or nothing.
    pub(super) header: &'a str,
    pub(super) body: &'a str,
}

impl<'a> Request<'a> {
    pub(super) const fn get(path: &'a str) -> Self {
        Self {
            method: "GET",
            path,
            header: "",
            body: "",
        }
    }

    /// Status and body.
    pub(super) fn send(&self, stream: TcpStream) -> Result<(u16, String)> {
        let header = match self.header {
            "" => String::new(),
            header => format!("{header}\r\n"),
        };
        let text = format!(
            "{} {} HTTP/1.0\r\nHost: localhost\r\n{header}Content-Length: {}\r\n\r\n{}",
            self.method,
            self.path,
            self.body.len(),
            self.body
        );
        let answer = ask(stream, &text)?;
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .context("the answer has no head")?;
        let status = head.split(' ').nth(1).context("the answer has no status")?;
        Ok((status.parse()?, body.to_owned()))
    }

    /// The body of an answer that says yes.
    pub(super) fn ok(&self, stream: TcpStream) -> Result<String> {
        let (status, body) = self.send(stream)?;
        ensure!(
            status == 200,
            "{} {}: {status}: {body}",
            self.method,
            self.path
        );
        Ok(body)
    }
}

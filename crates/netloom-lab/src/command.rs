//! Runs one program to its end and keeps what it said.

use std::fmt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A program that ran to its end.
#[derive(Debug, Clone)]
pub struct Done {
    /// What was run, for messages.
    pub command: String,
    /// Exit code; 128 and more, or -1, where a signal ended it.
    pub code: i32,
    /// Standard output, trimmed at the end.
    pub stdout: String,
    /// Standard error, trimmed at the end.
    pub stderr: String,
}

impl Done {
    /// The standard output of a program that succeeded.
    ///
    /// # Errors
    /// When the exit code is not zero, with everything the program said.
    pub fn ok(self) -> Result<String> {
        if self.code == 0 {
            return Ok(self.stdout);
        }
        bail!("{self}")
    }

    /// The words of a program that was expected to fail.
    ///
    /// # Errors
    /// When it succeeded instead.
    pub fn refused(self) -> Result<String> {
        if self.code == 0 {
            bail!("expected a failure, but it succeeded: {self}");
        }
        Ok(format!("{}\n{}", self.stdout, self.stderr)
            .trim()
            .to_owned())
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ended with {}", self.command, self.code)?;
        for text in [&self.stdout, &self.stderr] {
            if !text.is_empty() {
                write!(f, ": {text}")?;
            }
        }
        Ok(())
    }
}

/// Runs `command` with nothing on standard input.
pub(crate) fn run(mut command: Command, shown: &str) -> Result<Done> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("could not start `{shown}`; is the program installed?"))?;
    Ok(Done {
        command: shown.to_owned(),
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned(),
        stderr: String::from_utf8_lossy(&output.stderr)
            .trim_end()
            .to_owned(),
    })
}

/// Splits a command line at spaces; single and double quotes keep words together.
///
/// # Errors
/// When a quote is left open.
pub fn words(line: &str) -> Result<Vec<String>> {
    let mut out = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => out.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        bail!("a quote is left open in: {line}");
    }
    out.extend(word);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_words_together_and_empty_words_exist() {
        let split = words("run -e A='b c' \"\" x").expect("quotes match");
        assert_eq!(split, ["run", "-e", "A=b c", "", "x"]);
    }

    #[test]
    fn an_open_quote_is_an_error() {
        assert!(words("sh -c 'oops").is_err());
    }

    #[test]
    fn a_failure_carries_what_the_program_said() {
        let done = run(
            {
                let mut c = Command::new("sh");
                c.args(["-c", "echo why >&2; exit 3"]);
                c
            },
            "sh",
        )
        .expect("sh starts");
        let text = done.ok().expect_err("exit code 3").to_string();
        assert!(text.contains("why") && text.contains('3'), "{text}");
    }
}

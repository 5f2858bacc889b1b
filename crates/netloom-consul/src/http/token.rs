//! The token that says who we are.

use super::BoxError;
use hyper::header::HeaderValue;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The content of a file, kept until somebody asks to look again.
#[derive(Debug)]
pub(crate) struct Token {
    file: Option<PathBuf>,
    current: Mutex<Option<HeaderValue>>,
}

impl Token {
    pub(crate) fn none() -> Self {
        Self {
            file: None,
            current: Mutex::default(),
        }
    }

    pub(crate) fn in_file(file: PathBuf) -> Self {
        Self {
            file: Some(file),
            ..Self::none()
        }
    }

    pub(crate) fn current(&self) -> Option<HeaderValue> {
        self.lock().clone()
    }

    /// Reads the file again; whether it held another token than before.
    pub(crate) async fn reload(&self) -> Result<bool, BoxError> {
        let Some(file) = &self.file else {
            return Ok(false);
        };
        let text = tokio::fs::read_to_string(file)
            .await
            .map_err(|error| format!("the token file {}: {error}", file.display()))?;
        let mut token = HeaderValue::from_str(text.trim_end_matches(['\r', '\n']))
            .map_err(|_| format!("the token file {} holds no token", file.display()))?;
        token.set_sensitive(true);
        let token = Some(token);
        let mut current = self.lock();
        let changed = *current != token;
        *current = token;
        Ok(changed)
    }

    fn lock(&self) -> MutexGuard<'_, Option<HeaderValue>> {
        // Nothing panics with it held.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

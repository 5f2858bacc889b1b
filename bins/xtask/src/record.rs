//! `cargo xtask record`: what real dockerds ask of a plugin, call by call.

use anyhow::Result;

use crate::RecordArgs;

/// Placeholder until written below.
pub(crate) fn run(_args: &RecordArgs) -> Result<bool> {
    Ok(false)
}

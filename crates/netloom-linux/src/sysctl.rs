//! Settings under `/proc/sys/net` of the calling thread's network namespace.

use crate::{Applied, KernelError, SysctlKey};
use std::io::ErrorKind;
use std::path::PathBuf;

fn path(key: &SysctlKey) -> PathBuf {
    // A link name holds no '/', and is neither "." nor "..", so the path stays below /proc/sys.
    PathBuf::from(format!("/proc/sys/{key}"))
}

/// The value; none where this kernel, or this namespace, does not have the setting.
pub(crate) fn get(key: &SysctlKey) -> Result<Option<i32>, KernelError> {
    match std::fs::read_to_string(path(key)) {
        Ok(text) => match text.trim().parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(KernelError::Malformed {
                what: format!("reading {key}"),
                reason: "it is not a number",
            }),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(KernelError::io(format!("reading {key}"), error)),
    }
}

/// Writes the value if it differs: several settings act when written, whatever the value.
pub(crate) fn set(key: &SysctlKey, value: i32) -> Result<Applied, KernelError> {
    match get(key)? {
        None => Err(KernelError::NotFound {
            what: format!("setting {key}"),
        }),
        Some(have) if have == value => Ok(Applied::AlreadySo),
        Some(_) => {
            std::fs::write(path(key), value.to_string())
                .map_err(|error| KernelError::io(format!("writing {value} to {key}"), error))?;
            Ok(Applied::Changed)
        }
    }
}

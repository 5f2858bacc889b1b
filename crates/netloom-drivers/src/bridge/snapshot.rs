//! Reads the kernel for a comparison, and mends what the comparison found.

use super::apply::{read_error, sandbox_lives};
use super::audit::{Snapshot, Wanted};
use super::names;
use netloom_core::DriverError;
use netloom_linux::{ApplyError, Element, Kernel, KernelError, KernelStep, SysctlKey};
use netloom_types::LinkName;
use std::collections::{BTreeMap, BTreeSet};

/// Reads everything that `wanted` is compared with.
pub(super) fn take(kernel: &dyn Kernel, wanted: &Wanted) -> Result<Snapshot, DriverError> {
    read(kernel, wanted).map_err(|error| read_error("the comparison failed", error))
}

fn read(kernel: &dyn Kernel, wanted: &Wanted) -> Result<Snapshot, KernelError> {
    let keys: BTreeSet<&SysctlKey> = wanted
        .networks
        .values()
        .flat_map(|n| {
            n.forwarding
                .iter()
                .chain(n.settings.iter().map(|(key, _)| key))
        })
        .collect();
    let mut sysctls = BTreeMap::new();
    for key in keys {
        sysctls.insert(key.clone(), kernel.sysctl(key)?);
    }
    Ok(Snapshot {
        links: kernel.links()?,
        addresses: kernel.addresses()?.into_iter().collect(),
        routes: kernel.routes()?,
        table: kernel.netloom_table()?,
        accepts: kernel.forward_accepts()?.into_iter().collect(),
        accept_need: kernel.accept_need()?,
        sysctls,
        sandboxes: wanted
            .endpoints
            .iter()
            .filter(|(_, endpoint)| sandbox_lives(&endpoint.netns))
            .map(|(id, _)| id.clone())
            .collect(),
    })
}

/// Applies a cure. Settings that the kernel does not have are not missed.
pub(super) fn apply_leniently(kernel: &dyn Kernel, steps: &[KernelStep]) -> Result<(), ApplyError> {
    let mut from = 0;
    while let Some(rest) = steps.get(from..).filter(|rest| !rest.is_empty()) {
        match kernel.apply_all(rest) {
            Ok(_) => break,
            Err(error) => {
                let at = error.index;
                let optional = matches!(rest.get(at), Some(KernelStep::SetSysctl { .. }));
                if !(optional && error.source.is_not_found()) {
                    return Err(error);
                }
                // What came before it was undone: do that again, then go on behind it.
                if let Some(before) = rest.get(..at) {
                    kernel.apply_all(before)?;
                }
                from += at + 1;
            }
        }
    }
    Ok(())
}

/// Takes the tables away when there is no network: then nothing of ours stays on the host.
pub(super) fn remove_tables(kernel: &dyn Kernel) -> Result<(), DriverError> {
    kernel
        .apply(&KernelStep::RemoveTable)
        .map(drop)
        .map_err(|error| DriverError::Kernel {
            what: "the netloom tables could not be removed".into(),
            source: Some(Box::new(error)),
        })
}

/// Keeps our networks and Docker's own bridges apart: the accept pair in DOCKER-USER comes before
/// Docker's isolation, so our table has to do what Docker's would have done.
pub(super) fn wall_off_docker(kernel: &dyn Kernel) -> Result<(), DriverError> {
    let failed = |error| read_error("Docker's own bridges", error);
    let table = kernel.netloom_table().map_err(failed)?;
    if table.state == netloom_linux::TableState::Absent {
        return Ok(());
    }
    let links = kernel.links().map_err(failed)?;
    let there: BTreeSet<LinkName> = links
        .iter()
        .filter(|link| names::is_dockers(link))
        .filter_map(|link| LinkName::new(link.name.as_str()).ok())
        // One that a network of ours names by option is shared on purpose.
        .filter(|link| !table.elements.contains(&Element::Bridge(link.clone())))
        .collect();
    let known: BTreeSet<LinkName> = table
        .elements
        .into_iter()
        .filter_map(|element| match element {
            Element::Foreign(link) => Some(link),
            _ => None,
        })
        .collect();
    let gone = known.difference(&there).cloned().map(Element::Foreign);
    let new = there.difference(&known).cloned().map(Element::Foreign);
    let steps: Vec<KernelStep> = gone
        .map(KernelStep::DeleteElement)
        .chain(new.map(KernelStep::AddElement))
        .collect();
    kernel
        .apply_all(&steps)
        .map(drop)
        .map_err(|error| super::apply::apply_error("Docker's own bridges".into(), error))
}

//! Ctrl-C and a polite kill: machines of the lab are removed before the process ends.

use std::thread;

use tokio::signal::unix::{SignalKind, signal};

/// From now on, an interrupt removes every machine of this process and ends it with 130.
///
/// # Errors
/// When the handler cannot be installed.
pub(crate) fn remove_machines_on_interrupt() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::spawn(move || {
        runtime.block_on(async {
            let (Ok(mut int), Ok(mut term), Ok(mut hup)) = (
                signal(SignalKind::interrupt()),
                signal(SignalKind::terminate()),
                signal(SignalKind::hangup()),
            ) else {
                return;
            };
            tokio::select! {
                _ = int.recv() => {}
                _ = term.recv() => {}
                _ = hup.recv() => {}
            }
            crate::term::failure("interrupted; removing the lab's machines");
            netloom_lab::remove_all_of_this_process();
            // The exit code of a program that Ctrl-C ended, as shells count it: 128 + SIGINT.
            std::process::exit(130);
        });
    });
    Ok(())
}

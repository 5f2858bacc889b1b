//! A TCP proxy that makes the way to a server bad: slow, cut, silent, gone.
//!
//! It knows nothing of what is said through it. Modes are switched while connections run; one that
//! bytes were taken from ends with the next mode that is not silent, since what follows would be
//! garbage.

mod carry;
mod state;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use state::Faults;
use state::Shared;

/// What becomes of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They pass.
    Pass,
    /// They come later, both ways: by `least`, and up to `jitter` more.
    Delay {
        /// At least so much.
        least: Duration,
        /// At most so much more.
        jitter: Duration,
    },
    /// They come at so many bytes a second, both ways.
    Trickle(u32),
    /// The client's next bytes end its connection and do not arrive: nothing has happened.
    CutBefore,
    /// The client's next bytes arrive; the server's answer ends the connection and does not arrive:
    /// the client cannot know what has happened.
    CutAfter,
    /// The client's bytes arrive, the server's answers do not; connections stay.
    HalfOpen,
    /// Connections are made and stay; the client's bytes are taken and do not arrive.
    BlackHole,
    /// Nothing is taken any more, in neither direction, and nothing is lost: all goes on with the
    /// next mode, as after a network that was gone for a while.
    Stall,
    /// Connections are reset, those that are there and new ones.
    Refuse,
}

/// A proxy before one server. Dropping it ends its connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Starts one before `target`, on a free port of 127.0.0.1. `seed` decides the jitter.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start(target: SocketAddr, seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(seed));
        let accepting = tokio::spawn(carry::accept(listener, target, Arc::clone(&shared)));
        Ok(Self {
            address,
            shared,
            accepting,
        })
    }

    /// Where clients connect to.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, for connections that are there and new ones.
    pub fn set(&self, mode: Mode) {
        self.shared.set(mode);
    }

    /// Until the first cut, for [`Mode::CutBefore`] and [`Mode::CutAfter`]; everything passes from
    /// then on.
    pub fn once(&self, mode: Mode) {
        self.shared.set_once(mode);
    }

    /// The mode now.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.shared.mode()
    }

    /// Ends all connections.
    pub fn cut(&self) {
        self.shared.cut();
    }

    /// What was done so far.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.shared.faults()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.shared.cut();
    }
}

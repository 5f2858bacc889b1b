//! Opens whichever store hosts share, by its address.
//!
//! [`SharedStore`] needs no server to be there: it connects at the first use, and again after it
//! could not, so that a daemon starts while its store is away.
//!
//! ```no_run
//! use netloom_core::store::{Key, Store};
//! use netloom_core::{RemoteStoreConfig, StoreUrl};
//! use netloom_stores::SharedStore;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let StoreUrl::Remote(url) = "etcd://h1:2379,h2:2379/netloom".parse()? else { unreachable!() };
//! let store = SharedStore::new(RemoteStoreConfig::new(url));
//! let pools = store.list(&Key::new("pools")?).await?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod shared;

pub use shared::SharedStore;

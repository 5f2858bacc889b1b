//! The calls of both protocols, in one list.

/// Whether a call must carry a JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyRule {
    /// Docker sends none, and whatever comes is not looked at.
    Ignored,
    /// A call without one is a repeat whose body dockerd has lost, never a request for defaults.
    Required,
}

macro_rules! methods {
    ($($name:ident, $path:literal, $body:ident;)*) => {
        /// A call of one of the protocols.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Method { $($name),* }

        impl Method {
            /// All of them.
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$name),*];

            /// The call behind a request path (`/NetworkDriver.Join`).
            pub(crate) fn from_path(path: &str) -> Option<Self> {
                match path.strip_prefix('/')? {
                    $($path => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Its name on the wire.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$name => $path),* }
            }

            /// Whether it needs a body.
            pub(crate) const fn body(self) -> BodyRule {
                match self { $(Self::$name => BodyRule::$body),* }
            }
        }
    };
}

methods! {
    Activate, "Plugin.Activate", Ignored;
    NetworkCapabilities, "NetworkDriver.GetCapabilities", Ignored;
    GwAllocCheck, "NetworkDriver.GwAllocCheck", Required;
    AllocateNetwork, "NetworkDriver.AllocateNetwork", Required;
    FreeNetwork, "NetworkDriver.FreeNetwork", Required;
    CreateNetwork, "NetworkDriver.CreateNetwork", Required;
    DeleteNetwork, "NetworkDriver.DeleteNetwork", Required;
    CreateEndpoint, "NetworkDriver.CreateEndpoint", Required;
    EndpointOperInfo, "NetworkDriver.EndpointOperInfo", Required;
    DeleteEndpoint, "NetworkDriver.DeleteEndpoint", Required;
    Join, "NetworkDriver.Join", Required;
    Leave, "NetworkDriver.Leave", Required;
    ProgramExternalConnectivity, "NetworkDriver.ProgramExternalConnectivity", Required;
    RevokeExternalConnectivity, "NetworkDriver.RevokeExternalConnectivity", Required;
    DiscoverNew, "NetworkDriver.DiscoverNew", Required;
    DiscoverDelete, "NetworkDriver.DiscoverDelete", Required;
    IpamCapabilities, "IpamDriver.GetCapabilities", Ignored;
    DefaultAddressSpaces, "IpamDriver.GetDefaultAddressSpaces", Ignored;
    RequestPool, "IpamDriver.RequestPool", Required;
    ReleasePool, "IpamDriver.ReleasePool", Required;
    RequestAddress, "IpamDriver.RequestAddress", Required;
    ReleaseAddress, "IpamDriver.ReleaseAddress", Required;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_names_are_the_same_words() {
        for method in Method::ALL {
            let path = format!("/{}", method.name());
            assert_eq!(Method::from_path(&path), Some(*method));
        }
        for odd in ["", "/", "NetworkDriver.Join", "/networkdriver.join", "//x"] {
            assert_eq!(Method::from_path(odd), None, "{odd:?} was accepted");
        }
    }
}

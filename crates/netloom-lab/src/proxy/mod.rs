//! A TCP proxy that makes the way to a server bad.

//! Tells when the kernel's state may no longer be ours.

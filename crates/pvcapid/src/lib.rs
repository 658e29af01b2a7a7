//! The PVC API daemon.

//! Request and response types of the PVC HTTP API, shared by daemon and command line.

//! Builds and drives a real PVC cluster of systemd nodes on one machine.

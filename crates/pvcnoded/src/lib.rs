//! The PVC node agent: leads, watches, and runs guests.

//! Types, states and pure decisions of PVC: no input or output, no clock, no runtime.

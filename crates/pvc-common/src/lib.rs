//! What the daemons share: coordination store, configuration, host commands, clock, telemetry.

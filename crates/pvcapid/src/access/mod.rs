//! Who may use the API, and what for.
//!
//! * `guard` - what every request passes: who asks, and may he?
//! * `operations` - what each route needs, as declared beside its handler.
//! * `caller` - who asks.
//! * `configured` - the tokens of the configuration.
//! * `digest` - how tokens are compared.

mod caller;
mod configured;
mod digest;
mod guard;
mod operations;

pub use caller::{Caller, Who};
pub use configured::{AuthPolicy, KnownToken};
pub use digest::TokenDigest;
pub(crate) use guard::{Gate, guard};

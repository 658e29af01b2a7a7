//! Why a text is not the XML of a guest.

/// Why a text is not the XML of a guest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidGuestXml {
    /// Not well-formed XML.
    #[error("it is not well-formed XML: {0}")]
    Syntax(String),
    /// Well-formed, but not a domain.
    #[error("its root element is <{found}>, not <domain>")]
    NotADomain {
        /// The root element.
        found: String,
    },
    /// A required element or attribute is missing.
    #[error("{element} is missing (line {line})")]
    Missing {
        /// The line of the element that lacks it.
        line: u32,
        /// Where it should be, for example `<domain><memory>` or `<disk dev='sda'><source name>`.
        element: String,
    },
    /// An element or attribute has a value that is not allowed.
    #[error("{element} is {value:?} (line {line}): {reason}")]
    Invalid {
        /// Its line.
        line: u32,
        /// Where it is.
        element: String,
        /// What it says.
        value: String,
        /// What it should say.
        reason: String,
    },
}

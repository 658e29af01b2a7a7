//! What a node's BMC is good for: whose it is, and whether a power-off by it proves anything.
//!
//! A BMC that says "off" proves a death only if it is the BMC of the machine that was meant. So each node compares, while
//! it lives, the GUID that its BMC answers over the network with the one that it reads by itself, and reports what it
//! saw; [`power_proof`] is what others make of the report once the node is silent.
//!
//! Both GUIDs are the same 16 bytes, but in different orders: IPMI sends them last byte first, SMBIOS stores the first three
//! groups with their low byte first, and each tool prints them in the order that it believes in. So the same machine
//! has several spellings, which are taken for the same. Another machine's GUID is none of these but by an accident of
//! 1 in 2^124.

use crate::records::{BmcIdentity, BmcReport};

/// GUIDs that firmware carries when nobody has given it one of its own. They say nothing about which machine it is.
const PLACEHOLDERS: [&str; 4] = [
    "00000000000000000000000000000000",
    "ffffffffffffffffffffffffffffffff",
    "03000200040005000006000700080009",
    "00020003000400050006000700080009",
];

/// The 16 bytes of a GUID that is written as 32 hexadecimal digits, with or without hyphens.
fn digits(text: &str) -> Option<[u8; 16]> {
    let plain: String = text.trim().chars().filter(|c| *c != '-').collect();
    if plain.len() != 32 || !plain.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(&plain, 16).ok().map(u128::to_be_bytes)
}

/// With the bytes of its first three groups turned round.
fn smbios_order([a, b, c, d, e, f, g, h, rest @ ..]: [u8; 16]) -> [u8; 16] {
    let [i, j, k, l, m, n, o, p] = rest;
    [d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p]
}

fn reversed(mut bytes: [u8; 16]) -> [u8; 16] {
    bytes.reverse();
    bytes
}

fn spellings(bytes: [u8; 16]) -> [[u8; 16]; 4] {
    let back = reversed(bytes);
    [bytes, smbios_order(bytes), back, smbios_order(back)]
}

/// Whether two readings are of one machine, whatever the order of their bytes. Something that is no GUID is never the
/// same as anything.
pub fn same_machine(one: &str, other: &str) -> bool {
    match (digits(one), digits(other)) {
        (Some(one), Some(other)) => {
            let other = spellings(other);
            spellings(one).iter().any(|spelling| other.contains(spelling))
        }
        (None, _) | (_, None) => false,
    }
}

/// Whether it is a GUID that tells one machine from another.
pub fn tells_machines_apart(text: &str) -> bool {
    digits(text).is_some()
        && !PLACEHOLDERS
            .iter()
            .any(|placeholder| same_machine(text, placeholder))
}

/// Whether it is written as a GUID is.
pub fn is_guid(text: &str) -> bool {
    digits(text).is_some()
}

/// Whose the BMC is, from its GUID over the network (`outside`) and from the one that the node reads by itself
/// (`inside`). What could not be read says why.
pub fn identity(inside: Result<String, String>, outside: Result<String, String>) -> BmcIdentity {
    let unverified = |reason: String| BmcIdentity::Unverified { reason };
    let inside = match inside {
        Ok(guid) if tells_machines_apart(&guid) => guid,
        Ok(guid) => {
            return unverified(format!(
                "this machine's GUID {guid} is the firmware's placeholder"
            ));
        }
        Err(reason) => return unverified(format!("this machine's GUID can't be read: {reason}")),
    };
    match outside {
        Ok(outside) if same_machine(&inside, &outside) => BmcIdentity::Verified { guid: inside },
        Ok(outside) if tells_machines_apart(&outside) => BmcIdentity::Mismatch { inside, outside },
        Ok(outside) => unverified(format!("the BMC's GUID {outside} is the firmware's placeholder")),
        Err(reason) => unverified(format!("the BMC does not tell its GUID: {reason}")),
    }
}

/// What is asked of a BMC before its "off" is taken for a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IdentityPolicy {
    /// It was verified that the BMC is that node's.
    Strict,
    /// Nothing speaks against it.
    Lenient,
}

/// What follows from a BMC that failed its node's last test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailingBmc {
    /// It is tried all the same: it may work by now.
    IsTried,
    /// The node has no power proof until a test succeeds (`disable_on_ipmi_failure`).
    GivesNoProof,
}

/// Why a node has no power proof.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoPowerProof {
    /// The node has not reported on it since it took part under this release, or it has none.
    #[error("the node never reported on its BMC")]
    NoReport,
    /// It would not be that node that goes off.
    #[error("its BMC is another machine's (inside {inside}, over the network {outside})")]
    Mismatch {
        /// Seen from inside.
        inside: String,
        /// Seen over the network.
        outside: String,
    },
    /// Whose it is was never seen, and the policy is strict.
    #[error("it was not verified that its BMC is its own ({reason})")]
    Unverified {
        /// Why not.
        reason: String,
    },
    /// It failed its last test, and the settings say that it is not tried then.
    #[error("its BMC did not work when the node last tried it ({reason})")]
    Fails {
        /// What it said.
        reason: String,
    },
}

/// Whether the "off" of a node's BMC may be taken for a proof of that node's death, from what the node last reported.
///
/// A BMC that was seen to be another machine's never gives one, under any policy: its machine would be shot, and the
/// silent node would go on writing.
///
/// # Errors
/// [`NoPowerProof`] says why not. Nothing is then ordered of the BMC either.
pub fn power_proof(
    report: Option<&BmcReport>,
    policy: IdentityPolicy,
    failing: FailingBmc,
) -> Result<(), NoPowerProof> {
    let Some(report) = report else {
        return match policy {
            IdentityPolicy::Strict => Err(NoPowerProof::NoReport),
            IdentityPolicy::Lenient => Ok(()),
        };
    };
    match (&report.identity, policy) {
        (BmcIdentity::Mismatch { inside, outside }, IdentityPolicy::Strict | IdentityPolicy::Lenient) => {
            return Err(NoPowerProof::Mismatch {
                inside: inside.clone(),
                outside: outside.clone(),
            });
        }
        (BmcIdentity::Unverified { reason }, IdentityPolicy::Strict) => {
            return Err(NoPowerProof::Unverified {
                reason: reason.clone(),
            });
        }
        (BmcIdentity::Unverified { .. }, IdentityPolicy::Lenient)
        | (BmcIdentity::Verified { .. }, IdentityPolicy::Strict | IdentityPolicy::Lenient) => {}
    }
    match failing {
        FailingBmc::GivesNoProof if !report.works => Err(NoPowerProof::Fails {
            reason: report.reason.clone(),
        }),
        FailingBmc::GivesNoProof | FailingBmc::IsTried => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AS_FIRMWARE: &str = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";

    // A node whose BMC is taken for another's could not be fenced by power; one whose neighbour's BMC is taken for its
    // own would have the neighbour shot.
    #[test]
    fn one_machine_is_known_in_each_order_of_its_bytes() {
        for spelling in [
            AS_FIRMWARE,
            "0F1E2D3C-4B5A-6978-8796-A5B4C3D2E1F0",
            "0f1e2d3c4b5a69788796a5b4c3d2e1f0",
            "3c2d1e0f-5a4b-7869-8796-a5b4c3d2e1f0",
            "f0e1d2c3-b4a5-9687-7869-5a4b3c2d1e0f",
            "c3d2e1f0-a5b4-8796-7869-5a4b3c2d1e0f",
            " 3C2D1E0F5A4B78698796A5B4C3D2E1F0\n",
        ] {
            assert!(same_machine(AS_FIRMWARE, spelling), "{spelling}");
            assert!(same_machine(spelling, AS_FIRMWARE), "{spelling}");
        }
    }

    #[test]
    fn another_machine_or_no_guid_is_not_the_same() {
        for other in [
            "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f1",
            "1f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0",
            "",
            "unknown",
            "0f1e2d3c",
        ] {
            assert!(!same_machine(AS_FIRMWARE, other), "{other}");
        }
        assert!(!same_machine("", ""), "nothing is not the same as nothing");
    }

    // Boards of one series often carry the same placeholder: two nodes would each pass for the other.
    #[test]
    fn a_placeholder_tells_nothing() {
        assert!(tells_machines_apart(AS_FIRMWARE));
        for text in [
            "00000000-0000-0000-0000-000000000000",
            "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
            "03000200-0400-0500-0006-000700080009",
            "00020003-0004-0005-0006-000700080009",
            "none",
        ] {
            assert!(!tells_machines_apart(text), "{text}");
        }
    }

    const OTHER: &str = "1f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";

    #[test]
    fn an_identity_is_verified_only_by_two_equal_guids() {
        let ok = |text: &str| Ok(text.to_owned());
        let no = || Err("silent".to_owned());
        let swapped = "3c2d1e0f5a4b78698796a5b4c3d2e1f0";
        assert!(matches!(
            identity(ok(AS_FIRMWARE), ok(swapped)),
            BmcIdentity::Verified { .. }
        ));
        assert!(matches!(
            identity(ok(AS_FIRMWARE), ok(OTHER)),
            BmcIdentity::Mismatch { .. }
        ));
        let nothing = "00000000-0000-0000-0000-000000000000";
        for (inside, outside) in [
            (no(), ok(AS_FIRMWARE)),
            (ok(AS_FIRMWARE), no()),
            (ok(nothing), ok(nothing)),
            (ok(AS_FIRMWARE), ok(nothing)),
            (ok(""), ok("")),
        ] {
            let found = identity(inside, outside);
            assert!(matches!(found, BmcIdentity::Unverified { .. }), "{found:?}");
        }
    }

    // The "off" of another machine's BMC would have guests started while the silent node still writes.
    #[test]
    fn each_report_gives_a_power_proof_only_as_far_as_it_goes() {
        let verified = BmcIdentity::Verified {
            guid: AS_FIRMWARE.to_owned(),
        };
        let unverified = BmcIdentity::Unverified {
            reason: String::new(),
        };
        let mismatch = BmcIdentity::Mismatch {
            inside: AS_FIRMWARE.to_owned(),
            outside: OTHER.to_owned(),
        };
        use FailingBmc::{GivesNoProof, IsTried};
        use IdentityPolicy::{Lenient, Strict};
        // identity, works; proof under strict and lenient, then the same if a failing BMC gives no proof
        for (identity, works, expected) in [
            (&verified, true, [true, true, true, true]),
            (&verified, false, [true, true, false, false]),
            (&unverified, true, [false, true, false, true]),
            (&unverified, false, [false, true, false, false]),
            (&mismatch, true, [false, false, false, false]),
            (&mismatch, false, [false, false, false, false]),
        ] {
            let report = BmcReport {
                works,
                reason: String::new(),
                identity: identity.clone(),
                tried_at: 0,
            };
            let ways = [
                (Strict, IsTried),
                (Lenient, IsTried),
                (Strict, GivesNoProof),
                (Lenient, GivesNoProof),
            ];
            let found = ways.map(|(policy, failing)| power_proof(Some(&report), policy, failing).is_ok());
            assert_eq!(found, expected, "{report:?}");
        }
        assert_eq!(power_proof(None, Strict, IsTried), Err(NoPowerProof::NoReport));
        assert_eq!(power_proof(None, Lenient, IsTried), Ok(()));
    }
}

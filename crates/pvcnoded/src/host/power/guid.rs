//! The GUID of a machine, as its BMC and its firmware tell it.
//!
//! Both tell the same 16 bytes, but in different orders: IPMI sends them last byte first, SMBIOS stores the first three
//! groups with their low byte first, and each tool prints them in the order that it believes in. So the same machine
//! has up to four spellings, which are taken for the same. Another machine's GUID is none of these but by an accident
//! of 1 in 2^126.

/// GUIDs that firmware carries when nobody has given it one of its own. They say nothing about which machine it is.
const PLACEHOLDERS: [&str; 4] = [
    "00000000000000000000000000000000",
    "ffffffffffffffffffffffffffffffff",
    "03000200040005000006000700080009",
    "00020003000400050006000700080009",
];

/// The 16 bytes of a GUID that is written as 32 hexadecimal digits, with or without hyphens.
pub(super) fn digits(text: &str) -> Option<[u8; 16]> {
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
}

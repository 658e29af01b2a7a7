//! Reckoning with addresses and networks, the same for IPv4 and IPv6.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::finding::Problem;

/// IPv4 or IPv6.
pub trait Family: Copy + Eq + fmt::Debug + fmt::Display + Into<IpAddr> {
    /// The length of an address, in bits.
    const BITS: u8;
    /// Whether the last address of a network is its broadcast address.
    const HAS_BROADCAST: bool;

    /// The address as a number.
    fn to_number(self) -> u128;
    /// The address of a number; bits beyond the length of an address are cut off.
    fn from_number(number: u128) -> Self;
}

impl Family for Ipv4Addr {
    const BITS: u8 = 32;
    const HAS_BROADCAST: bool = true;

    fn to_number(self) -> u128 {
        u128::from(self.to_bits())
    }

    fn from_number(number: u128) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "documented to cut off")]
        Ipv4Addr::from_bits(number as u32)
    }
}

impl Family for Ipv6Addr {
    const BITS: u8 = 128;
    const HAS_BROADCAST: bool = false;

    fn to_number(self) -> u128 {
        self.to_bits()
    }

    fn from_number(number: u128) -> Self {
        Ipv6Addr::from_bits(number)
    }
}

/// A network of one family: address and prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prefix<A> {
    pub(super) network: A,
    pub(super) length: u8,
}

impl<A: Family> fmt::Display for Prefix<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.length)
    }
}

impl<A: Family> Prefix<A> {
    fn host_mask(length: u8) -> u128 {
        u128::MAX >> (128 - u32::from(A::BITS - length))
    }

    /// The network in which that address is.
    pub(super) fn of(address: A, length: u8) -> Prefix<A> {
        Prefix {
            network: A::from_number(address.to_number() & !Self::host_mask(length)),
            length,
        }
    }

    pub(super) fn contains(&self, address: A) -> bool {
        Prefix::of(address, self.length).network == self.network
    }

    pub(super) fn overlaps(&self, other: &Prefix<A>) -> bool {
        let shorter = self.length.min(other.length);
        Prefix::of(self.network, shorter) == Prefix::of(other.network, shorter)
    }

    /// Why an address is none of a host in this network.
    pub(super) fn objection(&self, address: A) -> Option<Problem> {
        let host = address.to_number() & Self::host_mask(self.length);
        if !self.contains(address) {
            Some(Problem::OutsideNetwork {
                address: address.into(),
                network: self.to_string(),
            })
        } else if host == 0 {
            Some(Problem::IsNetworkAddress(address.into()))
        } else if A::HAS_BROADCAST && host == Self::host_mask(self.length) {
            Some(Problem::IsBroadcastAddress(address.into()))
        } else {
            None
        }
    }

    /// The address of that number, if it is one of a host.
    pub(super) fn numbered(&self, number: u32) -> Option<A> {
        let address = A::from_number(self.network.to_number().checked_add(u128::from(number))?);
        (number > 0 && self.objection(address).is_none()).then_some(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix<A: Family + std::str::FromStr>(network: &str, length: u8) -> Prefix<A> {
        let Ok(network) = network.parse::<A>() else {
            panic!("{network} is no address")
        };
        Prefix::of(network, length)
    }

    #[test]
    fn numbers_count_from_the_network_address_and_stay_inside() {
        let small: Prefix<Ipv4Addr> = prefix("10.0.0.4", 30);
        let addresses: Vec<Option<String>> = (0..5)
            .map(|number| small.numbered(number).map(|address| address.to_string()))
            .collect();
        assert_eq!(
            addresses,
            [None, Some("10.0.0.5".into()), Some("10.0.0.6".into()), None, None]
        );
        let last: Prefix<Ipv4Addr> = prefix("255.255.255.0", 24);
        assert_eq!(last.numbered(300), None, "it does not run over into 0.0.0.44");
        let top: Prefix<Ipv6Addr> = prefix("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffc", 126);
        assert_eq!(
            top.numbered(3).map(|address| address.to_bits()),
            Some(u128::MAX),
            "IPv6 has no broadcast"
        );
        assert_eq!(top.numbered(4), None);
    }

    #[test]
    fn networks_overlap_when_one_contains_the_other() {
        let wide: Prefix<Ipv4Addr> = prefix("10.0.0.0", 8);
        let narrow: Prefix<Ipv4Addr> = prefix("10.1.2.0", 24);
        assert!(wide.overlaps(&narrow) && narrow.overlaps(&wide));
        assert!(!narrow.overlaps(&prefix("10.1.3.0", 24)));
    }
}

//! Which addresses a stranger may send us to: the public ones, and the ranges that the operator opens.

use domain::fault::Invalid;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// All addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpRange {
    base: IpAddr,
    prefix_bits: u8,
}

impl IpRange {
    /// Reads `127.0.0.0/8`, `::1/128`, or an address alone.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new("allow-source", text, "an address or a range such as 127.0.0.0/8 or ::1/128");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let base: IpAddr = address.parse().map_err(|_| invalid())?;
        let bits_max = if base.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix {
            None => bits_max,
            // `parse` would take a plus sign.
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_err(|_| invalid())?
            }
            Some(_) => return Err(invalid()),
        };
        if prefix_bits > bits_max {
            return Err(invalid());
        }
        Ok(Self { base, prefix_bits })
    }

    /// Never across families: `::ffff:127.0.0.1` is not in `127.0.0.0/8`.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let differing = base.to_bits() ^ address.to_bits();
                differing.checked_shr(32 - u32::from(self.prefix_bits)).unwrap_or(0) == 0
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let differing = base.to_bits() ^ address.to_bits();
                differing.checked_shr(128 - u32::from(self.prefix_bits)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl fmt::Display for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix_bits)
    }
}

/// Whether an address is on the public internet, as far as its bits can tell.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => !FORBIDDEN_V4.iter().any(|range| range.contains(address)),
        IpAddr::V6(_) => GLOBAL_V6.contains(address) && !FORBIDDEN_V6.iter().any(|range| range.contains(address)),
    }
}

/// The registry of special-purpose addresses, and two ranges that only look public.
const FORBIDDEN_V4: [IpRange; 18] = [
    v4([0, 0, 0, 0], 8),          // this network; Linux takes it for loopback
    v4([10, 0, 0, 0], 8),         // private
    v4([100, 64, 0, 0], 10),      // carriers' NAT
    v4([127, 0, 0, 0], 8),        // loopback
    v4([168, 63, 129, 16], 32),   // Azure's host agent, behind every virtual machine
    v4([169, 254, 0, 0], 16),     // link-local, the clouds' metadata
    v4([172, 16, 0, 0], 12),      // private
    v4([192, 0, 0, 0], 24),       // IETF protocols
    v4([192, 0, 2, 0], 24),       // documentation
    v4([192, 88, 99, 0], 24),     // 6to4 relays
    v4([192, 168, 0, 0], 16),     // private
    v4([198, 18, 0, 0], 15),      // benchmarks
    v4([198, 51, 100, 0], 24),    // documentation
    v4([203, 0, 113, 0], 24),     // documentation
    v4([224, 0, 0, 0], 4),        // multicast
    v4([233, 252, 0, 0], 24),     // documentation
    v4([240, 0, 0, 0], 4),        // reserved
    v4([255, 255, 255, 255], 32), // broadcast
];

/// What is allotted as global unicast. Outside are unspecified, loopback, IPv4-mapped and -compatible, NAT64, discard,
/// unique-local, link-local, site-local, multicast, and whatever will be invented.
const GLOBAL_V6: IpRange = v6([0x2000, 0], 3);

/// Within [`GLOBAL_V6`].
const FORBIDDEN_V6: [IpRange; 5] = [
    v6([0x2001, 0], 23),      // IETF protocols: Teredo, ORCHID, benchmarks
    v6([0x2001, 0x0db8], 32), // documentation
    v6([0x2002, 0], 16),      // 6to4, any IPv4 address inside
    v6([0x3ffe, 0], 16),      // the former 6bone
    v6([0x3fff, 0], 20),      // documentation
];

const fn v4(octets: [u8; 4], prefix_bits: u8) -> IpRange {
    IpRange { base: IpAddr::V4(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3])), prefix_bits }
}

const fn v6(start: [u16; 2], prefix_bits: u8) -> IpRange {
    IpRange { base: IpAddr::V6(Ipv6Addr::new(start[0], start[1], 0, 0, 0, 0, 0, 0)), prefix_bits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_written() {
        let range = |text: &str| IpRange::parse(text).unwrap();
        assert!(range("127.0.0.0/8").contains("127.255.0.1".parse().unwrap()));
        assert!(!range("127.0.0.0/8").contains("128.0.0.1".parse().unwrap()));
        assert!(range("10.1.2.3").contains("10.1.2.3".parse().unwrap()));
        assert!(!range("10.1.2.3").contains("10.1.2.4".parse().unwrap()));
        assert!(range("0.0.0.0/0").contains("8.8.8.8".parse().unwrap()));
        assert!(!range("0.0.0.0/0").contains("::1".parse().unwrap()));
        assert!(range("::/0").contains("fe80::1".parse().unwrap()));
        assert!(range("::1/128").contains("::1".parse().unwrap()));
        assert!(!range("::1").contains("::2".parse().unwrap()));
        assert!(!range("127.0.0.0/8").contains("::ffff:127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_range_is_refused_with_an_example() {
        let texts =
            ["", "/", "localhost", "127.0.0.0/33", "::1/129", "127.0.0.1/", "127.0.0.1/+8", "127.1", "1.2.3.4/8/8"];
        for text in texts {
            let error = IpRange::parse(text).unwrap_err().to_string();
            assert!(error.contains("127.0.0.0/8"), "{text}: {error}");
        }
    }

    const PRIVATE: &str = "\
        0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.255 127.0.0.1 127.255.255.255
        168.63.129.16 169.254.0.1 169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.1 192.0.2.1 192.88.99.1
        192.168.0.1 198.18.0.1 198.19.255.255 198.51.100.7 203.0.113.9 224.0.0.1 239.255.255.255 240.0.0.1
        255.255.255.255 :: ::1 ::ffff:8.8.8.8 ::ffff:127.0.0.1 ::8.8.8.8 ::127.0.0.1 64:ff9b::808:808
        64:ff9b:1::1 100::1 2001::1 2001:10::1 2001:20::1 2001:db8::1 2002:7f00:1:: 2002:808:808::1 3ffe::1
        3fff::1 5f00::1 fc00::1 fd00:ec2::254 fe80::1 febf::1 fec0::1 ff02::1 ff0e::1";

    const PUBLIC: &str = "\
        1.1.1.1 8.8.8.8 100.63.255.255 100.128.0.1 126.255.255.255 128.0.0.1 172.15.255.255 172.32.0.1 192.0.1.1
        192.167.255.255 192.169.0.1 198.17.255.255 198.20.0.1 223.255.255.255 2001:4860:4860::8888
        2606:4700:4700::1111 2a00:1450::1 3f00::1";

    #[test]
    fn only_public_addresses_are_public() {
        for text in PRIVATE.split_whitespace() {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in PUBLIC.split_whitespace() {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }
}

//! Which cluster addresses and node ports there are, and which of them to choose. Pure.
//!
//! What is taken is known elsewhere: addresses by their IPAddress objects, ports by a bitmap in the store
//! ([`super::claims`]). A range keeps a band at its lower end for static choices as long as there is room
//! above it (KEPs 3070 and 3668).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;
use rand::Rng;

/// Why something could not be handed out; worded as upstream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllocationError {
    #[error("range is full")]
    Full,
    #[error("provided {0} is already allocated")]
    Taken(&'static str),
    #[error("the provided network does not match the current range")]
    NoRange,
    #[error("the provided IP ({ip}) is not in the valid range. The range of valid IPs is {range}")]
    AddressOutside { ip: String, range: String },
    #[error("provided port is not in the valid range. The range of valid ports is {0}")]
    PortOutside(String),
}

/// Offsets from 0 of which the lower ones are chosen last.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Offsets {
    size: u64,
    band: u64,
}

impl Offsets {
    /// The band is a part of `whole`, which may count what is never handed out; there is none when that is small.
    fn new(size: u64, whole: u64, band_divisor: u64, band_min: u64, band_max: u64) -> Self {
        let band = if whole <= band_min { 0 } else { (whole / band_divisor).clamp(band_min, band_max) };
        Self { size, band }
    }

    /// A free offset at random, from above the band when there is one.
    fn choose(&self, taken: impl Fn(u64) -> bool) -> Option<u64> {
        let free = |range: RangeInclusive<u64>| {
            let (first, last) = (*range.start(), *range.end());
            if first > last {
                return None;
            }
            let start = rand::rng().random_range(first..=last);
            (start..=last).chain(first..start).find(|offset| !taken(*offset))
        };
        free(self.band..=self.size.checked_sub(1)?).or_else(|| free(0..=self.band.checked_sub(1)?))
    }
}

/// The longest IPv6 range that is handed out from, by its prefix.
const PREFIX_MIN_IPV6: u8 = 64;

/// One range of a ServiceCIDR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressRange {
    range: IpNet,
    offsets: Offsets,
}

impl AddressRange {
    /// `None` for an IPv6 range that is too large, as upstream.
    pub fn new(range: IpNet) -> Option<Self> {
        let range = range.trunc();
        let ipv4 = range.addr().is_ipv4();
        if !ipv4 && range.prefix_len() < PREFIX_MIN_IPV6 {
            return None;
        }
        let bits = u32::from(range.max_prefix_len() - range.prefix_len());
        let whole = 1u128 << bits;
        // Neither the network's own address nor, in IPv4, the broadcast address.
        let size = whole.saturating_sub(if ipv4 { 2 } else { 1 });
        let counted = |addresses: u128| u64::try_from(addresses).unwrap_or(u64::MAX);
        // Upstream has no band in an IPv4 range of half the Internet or more.
        let banded = if ipv4 && bits >= 31 { 0 } else { whole };
        Some(Self { range, offsets: Offsets::new(counted(size), counted(banded), 16, 16, 256) })
    }

    pub fn family(&self) -> &'static str {
        family_of(self.range.addr())
    }

    pub fn cidr(&self) -> IpNet {
        self.range
    }

    /// How many addresses there are to hand out.
    pub fn size(&self) -> u64 {
        self.offsets.size
    }

    fn offset(&self, ip: IpAddr) -> Option<u64> {
        let distance = match (self.range.network(), ip) {
            (IpAddr::V4(base), IpAddr::V4(ip)) => u128::from(u32::from(ip).checked_sub(u32::from(base))?),
            (IpAddr::V6(base), IpAddr::V6(ip)) => u128::from(ip).checked_sub(u128::from(base))?,
            _ => return None,
        };
        let offset = u64::try_from(distance.checked_sub(1)?).ok()?;
        (offset < self.offsets.size).then_some(offset)
    }

    fn address(&self, offset: u64) -> IpAddr {
        match self.range.network() {
            IpAddr::V4(base) => {
                // An offset is below the size, which fits.
                let offset = u32::try_from(offset).unwrap_or(u32::MAX - 1);
                IpAddr::V4(Ipv4Addr::from(u32::from(base).wrapping_add(offset + 1)))
            }
            IpAddr::V6(base) => {
                IpAddr::V6(Ipv6Addr::from(u128::from(base).wrapping_add(u128::from(offset) + 1)))
            }
        }
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        self.offset(ip).is_some()
    }

    /// An address that is not taken.
    ///
    /// # Errors
    /// When every address is taken.
    pub fn choose(&self, taken: impl Fn(IpAddr) -> bool) -> Result<IpAddr, AllocationError> {
        let offset = self.offsets.choose(|offset| taken(self.address(offset)));
        offset.map(|offset| self.address(offset)).ok_or(AllocationError::Full)
    }
}

/// As `spec.ipFamilies` says it.
pub fn family_of(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// The ports of `--service-node-port-range`, a bit each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortMap {
    range: RangeInclusive<u16>,
    /// Offset 0 is the lowest bit of the first byte.
    bits: Vec<u8>,
}

impl PortMap {
    pub fn new(range: RangeInclusive<u16>) -> Self {
        Self { range, bits: Vec::new() }
    }

    /// Reads what [`Self::to_bytes`] wrote.
    pub fn from_bytes(range: RangeInclusive<u16>, bytes: &[u8]) -> Self {
        Self { range, bits: bytes.iter().rev().copied().collect() }
    }

    /// The bits as one number, its highest byte first, as upstream keeps them.
    pub fn to_bytes(&self) -> Vec<u8> {
        let used = self.bits.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        self.bits[..used].iter().rev().copied().collect()
    }

    /// How many ports there are.
    pub fn size(&self) -> u64 {
        u64::from(self.range.end().saturating_sub(*self.range.start())) + 1
    }

    /// How many are taken.
    pub fn used(&self) -> u64 {
        self.bits.iter().map(|byte| u64::from(byte.count_ones())).sum()
    }

    fn place(&self, port: u16) -> Option<(usize, u8)> {
        let offset = port.checked_sub(*self.range.start()).filter(|_| self.range.contains(&port))?;
        Some((usize::from(offset / 8), 1 << (offset % 8)))
    }

    pub fn is_taken(&self, port: u16) -> bool {
        self.place(port).is_some_and(|(byte, bit)| self.bits.get(byte).is_some_and(|b| b & bit != 0))
    }

    /// The ports that are taken, in order.
    pub fn taken(&self) -> impl Iterator<Item = u16> {
        self.range.clone().filter(|port| self.is_taken(*port))
    }

    /// # Errors
    /// When the port is outside the range or taken.
    pub fn reserve(&mut self, port: u16) -> Result<(), AllocationError> {
        let Some((byte, bit)) = self.place(port) else {
            let (first, last) = (self.range.start(), self.range.end());
            return Err(AllocationError::PortOutside(format!("{first}-{last}")));
        };
        if self.is_taken(port) {
            return Err(AllocationError::Taken("port"));
        }
        if self.bits.len() <= byte {
            self.bits.resize(byte + 1, 0);
        }
        self.bits[byte] |= bit;
        Ok(())
    }

    /// # Errors
    /// When every port is taken.
    pub fn reserve_any(&mut self) -> Result<u16, AllocationError> {
        let first = *self.range.start();
        let port = |offset: u64| first.saturating_add(u16::try_from(offset).unwrap_or(u16::MAX));
        let offsets = Offsets::new(self.size(), self.size(), 32, 16, 128);
        let chosen = offsets.choose(|offset| self.is_taken(port(offset))).map(port);
        let chosen = chosen.ok_or(AllocationError::Full)?;
        self.reserve(chosen)?;
        Ok(chosen)
    }

    pub fn release(&mut self, port: u16) {
        if let Some((byte, bit)) = self.place(port)
            && let Some(b) = self.bits.get_mut(byte)
        {
            *b &= !bit;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn range(text: &str) -> AddressRange {
        AddressRange::new(text.parse().expect("range")).expect("not too large")
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("ip")
    }

    #[test]
    fn every_address_is_handed_out_once() {
        let range = range("10.96.0.0/28");
        let mut seen = BTreeSet::new();
        for _ in 0..14 {
            let ip = range.choose(|ip| seen.contains(&ip)).expect("free");
            assert!(seen.insert(ip));
        }
        assert_eq!(range.choose(|ip| seen.contains(&ip)), Err(AllocationError::Full));
        assert!(!seen.contains(&"10.96.0.0".parse().expect("ip")));
        assert!(!seen.contains(&"10.96.0.15".parse().expect("ip")));
    }

    #[test]
    fn the_lower_band_is_chosen_last() {
        let range = range("10.96.0.0/24");
        let mut seen = BTreeSet::new();
        for _ in 0..(254 - 16) {
            seen.insert(range.choose(|ip| seen.contains(&ip)).expect("free"));
        }
        assert_eq!(seen.first(), Some(&"10.96.0.17".parse().expect("ip")));
    }

    #[test]
    fn sizes_and_bands_are_those_of_upstream() {
        let sized = |text: &str| {
            let range = range(text);
            (range.offsets.size, range.offsets.band)
        };
        assert_eq!(sized("10.0.0.0/29"), (6, 0));
        assert_eq!(sized("10.0.0.0/28"), (14, 0));
        assert_eq!(sized("10.0.0.0/27"), (30, 16));
        assert_eq!(sized("10.0.0.0/20"), (4094, 256));
        assert_eq!(sized("10.0.0.0/8"), ((1 << 24) - 2, 256));
        assert_eq!(sized("10.0.0.0/32"), (0, 0));
        assert_eq!(sized("fd00::/126"), (3, 0));
        assert_eq!(sized("fd00::/64"), (u64::MAX, 256));
        assert_eq!(AddressRange::new("fd00::/63".parse().expect("range")), None);
        let wide = range("fd00::/64");
        let chosen = wide.choose(|_| false).expect("free");
        assert!(wide.contains(chosen) && !wide.contains(ip("fd00::")) && !wide.contains(ip("fd00:0:0:1::1")));
    }

    #[test]
    fn refusals_are_worded_as_upstream() {
        let outside = AllocationError::AddressOutside { ip: "10.0.0.1".into(), range: "10.96.0.0/12".into() };
        assert_eq!(
            outside.to_string(),
            "the provided IP (10.0.0.1) is not in the valid range. The range of valid IPs is 10.96.0.0/12"
        );
        let mut ports = PortMap::new(30000..=32767);
        assert_eq!(
            ports.reserve(80).expect_err("outside").to_string(),
            "provided port is not in the valid range. The range of valid ports is 30000-32767"
        );
        ports.reserve(30001).expect("free");
        assert_eq!(
            ports.reserve(30001).expect_err("taken").to_string(),
            "provided port is already allocated"
        );
    }

    #[test]
    fn ports_are_kept_as_one_number() {
        let mut ports = PortMap::new(30000..=32767);
        for port in [30000, 30009, 32767] {
            ports.reserve(port).expect("free");
        }
        let bytes = ports.to_bytes();
        // 2^0 + 2^9 + 2^2767, its highest byte first
        assert_eq!((bytes.len(), bytes[0], &bytes[344..]), (346, 0x80, &[0x02, 0x01][..]));
        let read = PortMap::from_bytes(30000..=32767, &bytes);
        assert_eq!(read.taken().collect::<Vec<_>>(), [30000, 30009, 32767]);
        ports.release(32767);
        assert_eq!(ports.to_bytes(), [0x02, 0x01]);
        let mut small = PortMap::new(1..=3);
        let all: BTreeSet<u16> = (0..3).map(|_| small.reserve_any().expect("free")).collect();
        assert_eq!(all.len(), 3);
        assert_eq!(small.reserve_any(), Err(AllocationError::Full));
    }
}

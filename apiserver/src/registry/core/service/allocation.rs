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
    #[error("the provided IP ({ip}) is not in the valid range. The range of valid IPs is {range}")]
    AddressOutside { ip: String, range: String },
    #[error("provided port is not in the valid range. The range of valid ports is {0}")]
    PortOutside(String),
}

/// Offsets from 0 of which the lower ones are chosen last.
#[derive(Debug, Clone)]
struct Offsets {
    size: u32,
    band: u32,
}

impl Offsets {
    fn new(size: u32, band_divisor: u32, band_min: u32, band_max: u32) -> Self {
        let band = if size < band_min { 0 } else { (size / band_divisor).clamp(band_min, band_max) };
        Self { size, band }
    }

    /// A free offset at random, from above the band when there is one.
    fn choose(&self, taken: impl Fn(u32) -> bool) -> Option<u32> {
        let free = |range: RangeInclusive<u32>| {
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

/// The most addresses of an IPv6 range that are handed out.
const ADDRESSES_MAX: u128 = 1 << 16;

/// One `--service-cluster-ip-range`.
#[derive(Debug, Clone)]
pub struct AddressRange {
    range: IpNet,
    offsets: Offsets,
}

impl AddressRange {
    pub fn new(range: IpNet) -> Self {
        let range = range.trunc();
        let bits = u32::from(range.max_prefix_len() - range.prefix_len());
        let all = 1u128.checked_shl(bits).unwrap_or(ADDRESSES_MAX);
        let all = if range.addr().is_ipv4() { all } else { all.min(ADDRESSES_MAX) };
        // neither the network's own address nor, in IPv4, the broadcast address
        let usable = all.saturating_sub(if range.addr().is_ipv4() { 2 } else { 1 });
        let size = u32::try_from(usable).unwrap_or(u32::MAX);
        Self { range, offsets: Offsets::new(size, 16, 16, 256) }
    }

    pub fn family(&self) -> &'static str {
        if self.range.addr().is_ipv4() { "IPv4" } else { "IPv6" }
    }

    fn offset(&self, ip: IpAddr) -> Option<u32> {
        let distance = match (self.range.network(), ip) {
            (IpAddr::V4(base), IpAddr::V4(ip)) => u128::from(u32::from(ip).checked_sub(u32::from(base))?),
            (IpAddr::V6(base), IpAddr::V6(ip)) => u128::from(ip).checked_sub(u128::from(base))?,
            _ => return None,
        };
        let offset = u32::try_from(distance.checked_sub(1)?).ok()?;
        (offset < self.offsets.size).then_some(offset)
    }

    fn address(&self, offset: u32) -> IpAddr {
        match self.range.network() {
            IpAddr::V4(base) => IpAddr::V4(Ipv4Addr::from(u32::from(base).wrapping_add(offset + 1))),
            IpAddr::V6(base) => {
                IpAddr::V6(Ipv6Addr::from(u128::from(base).wrapping_add(u128::from(offset) + 1)))
            }
        }
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        self.offset(ip).is_some()
    }

    /// # Errors
    /// When the address is outside the range.
    pub fn check(&self, ip: IpAddr) -> Result<(), AllocationError> {
        let outside =
            || AllocationError::AddressOutside { ip: ip.to_string(), range: self.range.to_string() };
        self.offset(ip).map(|_| ()).ok_or_else(outside)
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

    fn size(&self) -> u32 {
        u32::from(self.range.end().saturating_sub(*self.range.start())) + 1
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
        let port = |offset: u32| first.saturating_add(u16::try_from(offset).unwrap_or(u16::MAX));
        let offsets = Offsets::new(self.size(), 32, 16, 128);
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

    #[test]
    fn every_address_is_handed_out_once() {
        let range = AddressRange::new("10.96.0.0/28".parse().expect("range"));
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
        let range = AddressRange::new("10.96.0.0/24".parse().expect("range"));
        let mut seen = BTreeSet::new();
        for _ in 0..(254 - 16) {
            seen.insert(range.choose(|ip| seen.contains(&ip)).expect("free"));
        }
        assert_eq!(seen.first(), Some(&"10.96.0.17".parse().expect("ip")));
    }

    #[test]
    fn refusals_are_worded_as_upstream() {
        let range = AddressRange::new("10.96.0.0/12".parse().expect("range"));
        assert_eq!(
            range.check("10.0.0.1".parse().expect("ip")).expect_err("outside").to_string(),
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

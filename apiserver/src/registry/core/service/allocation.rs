//! Which cluster addresses and node ports are taken.
//!
//! Kept in memory, built from the Services there are and rebuilt now and then so that nothing leaks. Two
//! apiservers over one store could hand out the same address between two rebuilds; the seam for a shared
//! range object in storage is [`Pool::reserve`], the only place where something becomes taken.

use std::collections::BTreeSet;
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

/// Offsets of one range that are taken.
#[derive(Debug, Clone)]
pub struct Pool {
    /// How many offsets there are.
    size: u32,
    /// The lower offsets, used only when all others are taken, so that they stay free for static choices.
    band: u32,
    taken: BTreeSet<u32>,
}

impl Pool {
    pub fn new(size: u32, band_divisor: u32, band_min: u32, band_max: u32) -> Self {
        let band = if size < band_min { 0 } else { (size / band_divisor).clamp(band_min, band_max) };
        Self { size, band, taken: BTreeSet::new() }
    }

    /// Takes one offset; false when it is taken already.
    pub fn reserve(&mut self, offset: u32) -> bool {
        self.taken.insert(offset)
    }

    pub fn release(&mut self, offset: u32) {
        self.taken.remove(&offset);
    }

    /// Takes a free offset, from above the band when there is one.
    pub fn reserve_any(&mut self) -> Option<u32> {
        let offset = self
            .free_in(self.band..=self.size.checked_sub(1)?)
            .or_else(|| self.free_in(0..=self.band.checked_sub(1)?))?;
        self.reserve(offset);
        Some(offset)
    }

    fn free_in(&self, range: RangeInclusive<u32>) -> Option<u32> {
        let (first, last) = (*range.start(), *range.end());
        if first > last {
            return None;
        }
        let start = rand::rng().random_range(first..=last);
        (start..=last).chain(first..start).find(|offset| !self.taken.contains(offset))
    }

    pub fn clear(&mut self) {
        self.taken.clear();
    }
}

/// The largest pool kept of an IPv6 range.
const ADDRESSES_MAX: u128 = 1 << 16;

/// Addresses of one `--service-cluster-ip-range`.
#[derive(Debug, Clone)]
pub struct AddressPool {
    range: IpNet,
    pool: Pool,
}

impl AddressPool {
    pub fn new(range: IpNet) -> Self {
        let range = range.trunc();
        let bits = u32::from(range.max_prefix_len() - range.prefix_len());
        let all = 1u128.checked_shl(bits).unwrap_or(ADDRESSES_MAX).min(ADDRESSES_MAX);
        // neither the network's own address nor, in IPv4, the broadcast address
        let usable = all.saturating_sub(if range.addr().is_ipv4() { 2 } else { 1 });
        let size = u32::try_from(usable).expect("bounded by ADDRESSES_MAX");
        Self { range, pool: Pool::new(size, 16, 16, 256) }
    }

    pub fn is_ipv4(&self) -> bool {
        self.range.addr().is_ipv4()
    }

    pub fn family(&self) -> &'static str {
        if self.is_ipv4() { "IPv4" } else { "IPv6" }
    }

    fn offset(&self, ip: IpAddr) -> Option<u32> {
        let distance = match (self.range.network(), ip) {
            (IpAddr::V4(base), IpAddr::V4(ip)) => u128::from(u32::from(ip).checked_sub(u32::from(base))?),
            (IpAddr::V6(base), IpAddr::V6(ip)) => u128::from(ip).checked_sub(u128::from(base))?,
            _ => return None,
        };
        let offset = u32::try_from(distance.checked_sub(1)?).ok()?;
        (offset < self.pool.size).then_some(offset)
    }

    fn address(&self, offset: u32) -> IpAddr {
        match self.range.network() {
            IpAddr::V4(base) => IpAddr::V4(Ipv4Addr::from(u32::from(base).wrapping_add(offset + 1))),
            IpAddr::V6(base) => {
                IpAddr::V6(Ipv6Addr::from(u128::from(base).wrapping_add(u128::from(offset) + 1)))
            }
        }
    }

    /// # Errors
    /// When the address is outside the range or taken.
    pub fn reserve(&mut self, ip: IpAddr) -> Result<(), AllocationError> {
        let outside =
            || AllocationError::AddressOutside { ip: ip.to_string(), range: self.range.to_string() };
        let offset = self.offset(ip).ok_or_else(outside)?;
        if self.pool.reserve(offset) { Ok(()) } else { Err(AllocationError::Taken("IP")) }
    }

    /// # Errors
    /// When every address is taken.
    pub fn reserve_any(&mut self) -> Result<IpAddr, AllocationError> {
        self.pool.reserve_any().map(|o| self.address(o)).ok_or(AllocationError::Full)
    }

    pub fn release(&mut self, ip: IpAddr) {
        if let Some(offset) = self.offset(ip) {
            self.pool.release(offset);
        }
    }

    pub fn clear(&mut self) {
        self.pool.clear();
    }
}

/// Node ports.
#[derive(Debug, Clone)]
pub struct PortPool {
    range: RangeInclusive<u16>,
    pool: Pool,
}

impl PortPool {
    pub fn new(range: RangeInclusive<u16>) -> Self {
        let size = u32::from(range.end().saturating_sub(*range.start())) + 1;
        Self { pool: Pool::new(size, 32, 16, 128), range }
    }

    /// # Errors
    /// When the port is outside the range or taken.
    pub fn reserve(&mut self, port: u16) -> Result<(), AllocationError> {
        if !self.range.contains(&port) {
            let (first, last) = (self.range.start(), self.range.end());
            return Err(AllocationError::PortOutside(format!("{first}-{last}")));
        }
        let offset = u32::from(port - self.range.start());
        if self.pool.reserve(offset) { Ok(()) } else { Err(AllocationError::Taken("port")) }
    }

    /// # Errors
    /// When every port is taken.
    pub fn reserve_any(&mut self) -> Result<u16, AllocationError> {
        let offset = self.pool.reserve_any().ok_or(AllocationError::Full)?;
        Ok(self.range.start() + u16::try_from(offset).expect("offsets are below the size of a u16 range"))
    }

    pub fn release(&mut self, port: u16) {
        if self.range.contains(&port) {
            self.pool.release(u32::from(port - self.range.start()));
        }
    }

    pub fn clear(&mut self) {
        self.pool.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_handed_out_once() {
        let mut pool = AddressPool::new("10.96.0.0/28".parse().expect("range"));
        let mut seen = BTreeSet::new();
        for _ in 0..14 {
            assert!(seen.insert(pool.reserve_any().expect("free")));
        }
        assert_eq!(pool.reserve_any(), Err(AllocationError::Full));
        assert!(!seen.contains(&"10.96.0.0".parse().expect("ip")));
        assert!(!seen.contains(&"10.96.0.15".parse().expect("ip")));
        pool.release("10.96.0.3".parse().expect("ip"));
        assert_eq!(pool.reserve_any(), Ok("10.96.0.3".parse().expect("ip")));
    }

    #[test]
    fn refusals_are_worded_as_upstream() {
        let mut pool = AddressPool::new("10.96.0.0/12".parse().expect("range"));
        let ip = "10.96.0.1".parse().expect("ip");
        pool.reserve(ip).expect("free");
        assert_eq!(pool.reserve(ip).expect_err("taken").to_string(), "provided IP is already allocated");
        assert_eq!(
            pool.reserve("10.0.0.1".parse().expect("ip")).expect_err("outside").to_string(),
            "the provided IP (10.0.0.1) is not in the valid range. The range of valid IPs is 10.96.0.0/12"
        );
        let mut ports = PortPool::new(30000..=32767);
        assert_eq!(
            ports.reserve(80).expect_err("outside").to_string(),
            "provided port is not in the valid range. The range of valid ports is 30000-32767"
        );
    }
}

//! Pure: equal subnets of one range, handed out round robin.

use std::net::IpAddr;

use ipnet::IpNet;

/// The subnets of one range. At most 65,536 of them, which the configuration ensures.
#[derive(Debug)]
pub struct CidrSet {
    range: IpNet,
    mask: u8,
    used: Vec<bool>,
    next: usize,
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

impl CidrSet {
    /// Subnets of length `mask`, which must be `range`'s length and up to 16 more.
    pub fn new(range: IpNet, mask: u8) -> Self {
        let count = 1_usize << (mask - range.prefix_len()).min(16);
        Self { range: range.trunc(), mask, used: vec![false; count], next: 0 }
    }

    fn width(&self) -> u32 {
        u32::from(self.range.max_prefix_len() - self.mask)
    }

    fn subnet(&self, index: usize) -> Option<IpNet> {
        let offset = u128::try_from(index).ok()?.checked_shl(self.width())?;
        let address = bits(self.range.network()) + offset;
        let ip = match self.range {
            IpNet::V4(_) => IpAddr::V4(u32::try_from(address).ok()?.into()),
            IpNet::V6(_) => IpAddr::V6(address.into()),
        };
        IpNet::new(ip, self.mask).ok()
    }

    /// The subnets that `net` touches.
    fn indexes(&self, net: &IpNet) -> std::ops::Range<usize> {
        let same = net.network().is_ipv4() == self.range.network().is_ipv4();
        if !same || !(self.range.contains(net) || net.contains(&self.range)) {
            return 0..0;
        }
        if net.contains(&self.range) {
            return 0..self.used.len();
        }
        let base = bits(self.range.network());
        let index = |ip: IpAddr| {
            let offset = (bits(ip) - base).checked_shr(self.width()).unwrap_or(0);
            usize::try_from(offset).unwrap_or(0)
        };
        index(net.network())..(index(net.broadcast()) + 1).min(self.used.len())
    }

    /// Takes everything that `net` overlaps; what is outside the range is none of this set's business.
    pub fn occupy(&mut self, net: &IpNet) {
        let indexes = self.indexes(net);
        self.used[indexes].fill(true);
    }

    pub fn release(&mut self, net: &IpNet) {
        let indexes = self.indexes(net);
        self.used[indexes].fill(false);
    }

    /// The next free subnet, taken.
    pub fn next(&mut self) -> Option<IpNet> {
        let count = self.used.len();
        let index = (0..count).map(|i| (self.next + i) % count).find(|i| !self.used[*i])?;
        self.used[index] = true;
        self.next = (index + 1) % count;
        self.subnet(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("net")
    }

    #[test]
    fn subnets_are_given_once_and_come_back() {
        let mut set = CidrSet::new(net("10.244.0.0/22"), 24);
        set.occupy(&net("10.244.1.0/24"));
        assert_eq!(set.next(), Some(net("10.244.0.0/24")));
        assert_eq!(set.next(), Some(net("10.244.2.0/24")));
        assert_eq!(set.next(), Some(net("10.244.3.0/24")));
        assert_eq!(set.next(), None);
        set.release(&net("10.244.2.0/24"));
        assert_eq!(set.next(), Some(net("10.244.2.0/24")));
    }

    #[test]
    fn overlaps_are_taken_whole_and_strangers_ignored() {
        let mut set = CidrSet::new(net("10.0.0.0/22"), 24);
        set.occupy(&net("10.0.0.128/25"));
        set.occupy(&net("192.168.0.0/16"));
        set.occupy(&net("10.0.2.0/23"));
        assert_eq!(set.next(), Some(net("10.0.1.0/24")));
        assert_eq!(set.next(), None);
        let mut six = CidrSet::new(net("fd00:1::/48"), 64);
        assert_eq!(six.next(), Some(net("fd00:1::/64")));
        assert_eq!(six.next(), Some(net("fd00:1:0:1::/64")));
        six.occupy(&net("10.0.0.0/8"));
    }
}

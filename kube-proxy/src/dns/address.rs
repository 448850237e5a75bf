//! The address that DNS listens on, put on the loopback interface where the node does not have it.

use std::net::IpAddr;

use futures::TryStreamExt;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::Handle;

/// The index of `lo` in every network namespace: the kernel insists on it (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    #[error("cannot read the node's addresses")]
    List(#[source] rtnetlink::Error),
    #[error("cannot add {ip} to the loopback interface")]
    Add { ip: IpAddr, source: rtnetlink::Error },
    #[error("cannot remove {ip} from the loopback interface")]
    Remove { ip: IpAddr, source: rtnetlink::Error },
}

/// All addresses of this machine, with their messages.
async fn list(handle: &Handle) -> Result<Vec<(IpAddr, AddressMessage)>, AddressError> {
    let messages: Vec<AddressMessage> =
        handle.address().get().execute().try_collect().await.map_err(AddressError::List)?;
    Ok(messages.into_iter().filter_map(|m| Some((address(&m)?, m))).collect())
}

/// The local address where there is one (point-to-point links have both).
fn address(message: &AddressMessage) -> Option<IpAddr> {
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => return Some(*ip),
            AddressAttribute::Address(ip) => found = Some(*ip),
            _ => {}
        }
    }
    found
}

/// The machine's own addresses.
///
/// # Errors
/// When the kernel does not tell.
pub async fn local_addresses(handle: &Handle) -> Result<Vec<IpAddr>, AddressError> {
    Ok(list(handle).await?.into_iter().map(|(ip, _)| ip).collect())
}

/// Makes `ip` local; true when it was added and should be removed at the end.
///
/// # Errors
/// When addresses cannot be read or added.
pub async fn ensure(handle: &Handle, ip: IpAddr) -> Result<bool, AddressError> {
    if ip.is_loopback() || ip.is_unspecified() || list(handle).await?.iter().any(|(known, _)| *known == ip) {
        return Ok(false);
    }
    let prefix = if ip.is_ipv4() { 32 } else { 128 };
    let result = handle.address().add(LOOPBACK, ip, prefix).execute().await;
    result.map_err(|source| AddressError::Add { ip, source })?;
    Ok(true)
}

/// Removes `ip` from the loopback interface if it is there as a host address.
///
/// # Errors
/// When addresses cannot be read or removed.
pub async fn remove(handle: &Handle, ip: IpAddr) -> Result<(), AddressError> {
    let whole = if ip.is_ipv4() { 32 } else { 128 };
    for (known, message) in list(handle).await? {
        let header = &message.header;
        if known == ip && header.index == LOOPBACK && header.prefix_len == whole && !ip.is_loopback() {
            let result = handle.address().del(message).execute().await;
            result.map_err(|source| AddressError::Remove { ip, source })?;
        }
    }
    Ok(())
}

//! Routes to other nodes' pod CIDRs through their addresses (`--pod-routes=host-gw`).
//!
//! Planning is pure. Only routes with our protocol number are ever touched.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol};
use rtnetlink::{Handle, RouteMessageBuilder};

use crate::model::Family;
use crate::state::{NodeFacts, State};

/// The mark on our routes (`ip route show proto 112`); unassigned in iproute2's list.
pub const PROTOCOL: u8 = 112;

#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    #[error("cannot read routes")]
    List(#[source] rtnetlink::Error),
    #[error("cannot set the route to {cidr} via {gateway}")]
    Set { cidr: IpNet, gateway: IpAddr, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("cannot delete the route to {cidr}")]
    Delete { cidr: IpNet, source: rtnetlink::Error },
}

/// Gateways by destination.
pub type Routes = BTreeMap<IpNet, IpAddr>;

/// Pure: the routes this node should have.
pub fn plan(state: &State, own_node: &str) -> Routes {
    state.nodes().filter(|n| n.name != own_node).flat_map(|n| of_node(n)).collect()
}

fn of_node(node: &NodeFacts) -> Vec<(IpNet, IpAddr)> {
    let via = |cidr: &IpNet| Some((cidr.trunc(), node.ip(Family::of(&cidr.addr()))?));
    node.pod_cidrs.iter().filter_map(via).collect()
}

/// Pure: (to set, to delete).
pub fn difference(wanted: &Routes, present: &Routes) -> (Vec<(IpNet, IpAddr)>, Vec<IpNet>) {
    let set = wanted.iter().filter(|(cidr, gw)| present.get(*cidr) != Some(*gw));
    let delete = present.keys().filter(|cidr| !wanted.contains_key(*cidr));
    (set.map(|(c, g)| (*c, *g)).collect(), delete.copied().collect())
}

/// Brings the kernel's routes to what is wanted; what failed is told, the rest is done.
pub async fn reconcile(handle: &Handle, wanted: &Routes) -> Vec<RouteError> {
    let messages = match list(handle).await {
        Ok(messages) => messages,
        Err(error) => return vec![error],
    };
    let present: Routes = messages.iter().map(|(cidr, (gateway, _))| (*cidr, *gateway)).collect();
    let (set, delete) = difference(wanted, &present);
    let mut errors = Vec::new();
    for cidr in delete {
        if let Some((_, message)) = messages.get(&cidr)
            && let Err(source) = handle.route().del(message.clone()).execute().await
        {
            errors.push(RouteError::Delete { cidr, source });
        }
    }
    for (cidr, gateway) in set {
        if let Err(source) = set_route(handle, cidr, gateway).await {
            errors.push(RouteError::Set { cidr, gateway, source });
        }
    }
    errors
}

async fn set_route(
    handle: &Handle,
    cidr: IpNet,
    gateway: IpAddr,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let message = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(cidr.addr(), cidr.prefix_len())?
        .gateway(gateway)?
        .protocol(RouteProtocol::Other(PROTOCOL))
        .build();
    handle.route().add(message).replace().execute().await?;
    Ok(())
}

/// Our routes in the kernel.
async fn list(handle: &Handle) -> Result<BTreeMap<IpNet, (IpAddr, RouteMessage)>, RouteError> {
    let mut out = BTreeMap::new();
    let queries =
        [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()];
    for query in queries {
        let found: Vec<RouteMessage> =
            handle.route().get(query).execute().try_collect().await.map_err(RouteError::List)?;
        for message in found {
            if message.header.protocol == RouteProtocol::Other(PROTOCOL)
                && let Some((cidr, gateway)) = parse(&message)
            {
                out.insert(cidr, (gateway, message));
            }
        }
    }
    Ok(out)
}

fn parse(message: &RouteMessage) -> Option<(IpNet, IpAddr)> {
    let ip = |address: &RouteAddress| match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    };
    let (mut to, mut via) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => to = ip(address),
            RouteAttribute::Gateway(address) => via = ip(address),
            _ => {}
        }
    }
    Some((IpNet::new(to?, message.header.destination_prefix_length).ok()?, via?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(all: &[(&str, &str)]) -> Routes {
        all.iter().map(|(c, g)| (c.parse().expect("cidr"), g.parse().expect("ip"))).collect()
    }

    #[test]
    fn only_what_differs_is_touched() {
        let present =
            routes(&[("10.1.0.0/24", "1.1.1.1"), ("10.2.0.0/24", "1.1.1.2"), ("10.3.0.0/24", "1.1.1.3")]);
        let wanted =
            routes(&[("10.1.0.0/24", "1.1.1.1"), ("10.2.0.0/24", "1.1.1.9"), ("10.4.0.0/24", "1.1.1.4")]);
        let (set, delete) = difference(&wanted, &present);
        assert_eq!(
            set.into_iter().collect::<Routes>(),
            routes(&[("10.2.0.0/24", "1.1.1.9"), ("10.4.0.0/24", "1.1.1.4")])
        );
        assert_eq!(delete, ["10.3.0.0/24".parse::<IpNet>().expect("cidr")]);
    }
}

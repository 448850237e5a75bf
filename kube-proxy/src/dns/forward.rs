//! Asking other servers, byte for byte.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// How long one server has for an answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Servers taken from a resolv.conf, as the C library does.
const SERVERS_MAX: usize = 3;
const MESSAGE_MAX: usize = 65_535;

#[derive(Debug, Clone, Default)]
pub struct Forwarder {
    servers: Vec<SocketAddr>,
}

/// The `nameserver` lines of a resolv.conf, without `own`, which would ask itself.
pub fn servers_of_resolv_conf(text: &str, own: IpAddr) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver")?.split_whitespace().next()?.parse().ok())
        .filter(|ip: &IpAddr| *ip != own)
        .take(SERVERS_MAX)
        .map(|ip| SocketAddr::new(ip, 53))
        .collect()
}

impl Forwarder {
    pub fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers }
    }

    pub fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    /// The first answer from the servers in order; `None` when none answers. `tcp` asks over TCP.
    pub async fn ask(&self, query: &[u8], tcp: bool) -> Option<Vec<u8>> {
        for server in &self.servers {
            let work =
                async { if tcp { over_tcp(*server, query).await } else { over_udp(*server, query).await } };
            match tokio::time::timeout(TIMEOUT, work).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => tracing::debug!(%server, %error, "dns server failed"),
                Err(_) => tracing::debug!(%server, "dns server did not answer"),
            }
        }
        None
    }
}

/// A fresh socket per question gives a random port; the transaction number is made anew, too.
async fn over_udp(server: SocketAddr, query: &[u8]) -> std::io::Result<Vec<u8>> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(server).await?;
    let (asked, id) = renumber(query);
    socket.send(&asked).await?;
    let mut buffer = vec![0; MESSAGE_MAX];
    loop {
        let n = socket.recv(&mut buffer).await?;
        if n >= 12 && buffer[..2] == id {
            buffer.truncate(n);
            buffer[..2].copy_from_slice(&query[..2]);
            return Ok(buffer);
        }
    }
}

async fn over_tcp(server: SocketAddr, query: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(std::io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(query).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// The query with a random number in its first two bytes; a query is at least a header long.
fn renumber(query: &[u8]) -> (Vec<u8>, [u8; 2]) {
    let id: [u8; 2] = rand::random();
    let mut asked = query.to_vec();
    asked[..2].copy_from_slice(&id);
    (asked, id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_never_points_back() {
        let text = "# x\nnameserver 10.0.0.10\nnameserver 192.0.2.1\nsearch a\nnameserver bad\n";
        let own = "10.0.0.10".parse().expect("ip");
        assert_eq!(servers_of_resolv_conf(text, own), ["192.0.2.1:53".parse().expect("address")]);
    }
}

//! UDP and TCP, with a bound on everything a client can make us hold.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::shutdown::Tasks;
use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};
use parking_lot::RwLock;
use rand::seq::SliceRandom;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use super::{Forwarder, Resolution, Zone};
use crate::state::State;

/// Questions answered at once; more are dropped, clients ask again.
const QUESTIONS_MAX: usize = 1024;
/// TCP connections at once.
const CONNECTIONS_MAX: usize = 128;
/// A TCP client that is silent for this long is disconnected.
const IDLE: Duration = Duration::from_secs(10);
/// Answers larger than this go over TCP (DNS flag day 2020).
const UDP_PAYLOAD_MAX: u16 = 1232;
/// Aliases followed for one question.
const ALIASES_MAX: usize = 8;
const HEADER: usize = 12;

#[derive(Debug, thiserror::Error)]
#[error("cannot serve DNS on {address}")]
pub struct ServeError {
    pub address: SocketAddr,
    pub source: std::io::Error,
}

pub struct DnsServer {
    pub zone: Zone,
    pub state: Arc<RwLock<State>>,
    pub forwarder: Forwarder,
}

impl DnsServer {
    /// Binds both sockets now and serves until the tasks stop.
    ///
    /// # Errors
    /// When an address cannot be bound.
    pub async fn serve(self, address: SocketAddr, tasks: &Tasks) -> Result<(), ServeError> {
        let fail = |source| ServeError { address, source };
        let udp = UdpSocket::bind(address).await.map_err(fail)?;
        let tcp = TcpListener::bind(address).await.map_err(fail)?;
        let this = Arc::new(self);
        let (stop, owner) = (tasks.stop_token(), tasks.clone());
        let server = this.clone();
        tasks.spawn_essential("dns-udp", async move {
            tokio::select! {
                () = server.udp(udp, owner) => {}
                () = stop.cancelled() => {}
            }
        });
        let (stop, owner) = (tasks.stop_token(), tasks.clone());
        tasks.spawn_essential("dns-tcp", async move {
            tokio::select! {
                () = this.tcp(tcp, owner) => {}
                () = stop.cancelled() => {}
            }
        });
        Ok(())
    }

    async fn udp(self: Arc<Self>, socket: UdpSocket, tasks: Tasks) {
        let (socket, slots) = (Arc::new(socket), Arc::new(Semaphore::new(QUESTIONS_MAX)));
        let mut buffer = vec![0; 4096];
        loop {
            let (n, client) = match socket.recv_from(&mut buffer).await {
                Ok(got) => got,
                Err(error) => {
                    // ICMP errors of earlier answers arrive here.
                    tracing::debug!(%error, "dns receive failed");
                    continue;
                }
            };
            let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
            let query = buffer[..n].to_vec();
            let (this, socket) = (self.clone(), socket.clone());
            tasks.spawn("dns-question", async move {
                if let Some(answer) = this.answer(&query, false).await
                    && let Err(error) = socket.send_to(&answer, client).await
                {
                    tracing::debug!(%error, %client, "dns answer not sent");
                }
                drop(slot);
            });
        }
    }

    async fn tcp(self: Arc<Self>, listener: TcpListener, tasks: Tasks) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "dns accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let (this, stop) = (self.clone(), tasks.stop_token());
            tasks.spawn("dns-connection", async move {
                tokio::select! {
                    result = this.connection(stream) => {
                        if let Err(error) = result {
                            tracing::debug!(%error, "dns connection ended");
                        }
                    }
                    () = stop.cancelled() => {}
                }
                drop(slot);
            });
        }
    }

    async fn connection(&self, mut stream: TcpStream) -> std::io::Result<()> {
        loop {
            let read = async {
                let mut query = vec![0; usize::from(stream.read_u16().await?)];
                stream.read_exact(&mut query).await?;
                Ok::<_, std::io::Error>(query)
            };
            let Ok(query) = tokio::time::timeout(IDLE, read).await else { return Ok(()) };
            let Some(answer) = self.answer(&query?, true).await else { return Ok(()) };
            let length = u16::try_from(answer.len()).map_err(std::io::Error::other)?;
            stream.write_all(&length.to_be_bytes()).await?;
            stream.write_all(&answer).await?;
        }
    }

    /// None for what deserves no answer.
    async fn answer(&self, bytes: &[u8], tcp: bool) -> Option<Vec<u8>> {
        if bytes.len() < HEADER {
            return None;
        }
        let Ok(request) = Message::from_vec(bytes) else {
            let id = u16::from_be_bytes([bytes[0], bytes[1]]);
            // Never answer an answer.
            let is_query = bytes[2] & 0x80 == 0;
            return is_query
                .then(|| Message::error_msg(id, OpCode::Query, ResponseCode::FormErr).to_vec().ok())
                .flatten();
        };
        if request.metadata.message_type != MessageType::Query {
            return None;
        }
        let mut response = Message::new(request.metadata.id, MessageType::Response, request.metadata.op_code);
        response.metadata = Metadata::response_from_request(&request.metadata);
        response.metadata.recursion_available = !self.forwarder.is_empty();
        response.add_queries(request.queries.iter().cloned());
        let mut size = usize::from(u16::MAX);
        if let Some(edns) = &request.edns {
            let mut own = Edns::new();
            own.set_max_payload(UDP_PAYLOAD_MAX);
            response.set_edns(own);
            if edns.version() > 0 {
                response.metadata.response_code = ResponseCode::BADVERS;
                return response.to_vec().ok();
            }
        }
        if !tcp {
            size = usize::from(request.max_payload().min(UDP_PAYLOAD_MAX));
        }
        let [query] = request.queries.as_slice() else {
            response.metadata.response_code = ResponseCode::FormErr;
            return response.to_vec().ok();
        };
        if request.metadata.op_code != OpCode::Query || query.query_class != DNSClass::IN {
            response.metadata.response_code = ResponseCode::NotImp;
            return response.to_vec().ok();
        }
        if let Some(raw) = self.resolve(query, bytes, tcp, &mut response).await {
            return Some(raw);
        }
        let whole = response.to_vec().ok()?;
        if whole.len() > size {
            return response.truncate().to_vec().ok();
        }
        Some(whole)
    }

    /// Fills the response; for questions about other zones gives the other server's answer.
    async fn resolve(&self, query: &Query, raw: &[u8], tcp: bool, response: &mut Message) -> Option<Vec<u8>> {
        let mut name = query.name.clone();
        for hop in 0..ALIASES_MAX {
            let found = self.zone.resolve(&self.state.read(), &name, query.query_type);
            response.metadata.authoritative |= found != Resolution::Elsewhere;
            match found {
                Resolution::Answer { mut records, additional } => {
                    records.shuffle(&mut rand::rng());
                    response.add_answers(records);
                    response.add_additionals(additional);
                    return None;
                }
                Resolution::NoData | Resolution::NoName => {
                    if found == Resolution::NoName {
                        response.metadata.response_code = ResponseCode::NXDomain;
                    }
                    response.add_authority(self.zone.soa());
                    return None;
                }
                Resolution::Alias { record, target } => {
                    response.add_answer(*record);
                    name = target;
                }
                Resolution::Elsewhere if hop == 0 => {
                    if self.forwarder.is_empty() {
                        response.metadata.response_code = ResponseCode::Refused;
                        return None;
                    }
                    let answer = self.forwarder.ask(raw, tcp).await;
                    if answer.is_none() {
                        response.metadata.response_code = ResponseCode::ServFail;
                    }
                    return answer;
                }
                Resolution::Elsewhere => {
                    let records = self.chase(&name, query.query_type).await;
                    response.add_answers(records);
                    return None;
                }
            }
        }
        response.metadata.response_code = ResponseCode::ServFail;
        None
    }

    /// What an alias that leaves the cluster leads to; nothing when nobody can be asked.
    async fn chase(&self, name: &Name, kind: RecordType) -> Vec<Record> {
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(name.clone(), kind));
        let Ok(bytes) = message.to_vec() else { return Vec::new() };
        let Some(answer) = self.forwarder.ask(&bytes, true).await else { return Vec::new() };
        Message::from_vec(&answer).map(|m| m.answers).unwrap_or_default()
    }
}

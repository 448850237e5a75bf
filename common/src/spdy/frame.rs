//! Frames as bytes: eight bytes of head, then a payload. Pure.

use bytes::{Buf, BufMut};

use super::SpdyError;

pub(super) const HEAD: usize = 8;
const VERSION: u16 = 3;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;
const CREDENTIAL: u16 = 10;

const FLAG_FIN: u8 = 1;
const ID_MASK: u32 = 0x7fff_ffff;

/// Why a stream was reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum ResetReason {
    RefusedStream = 3,
    Cancel = 5,
}

/// The first eight bytes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    Data { stream: u32, fin: bool, length: usize },
    Control { kind: u16, fin: bool, length: usize },
}

impl Head {
    pub(super) fn parse(bytes: [u8; HEAD]) -> Result<Self, SpdyError> {
        let mut rest = &bytes[..];
        let first = rest.get_u32();
        let second = rest.get_u32();
        let fin = (second >> 24) as u8 & FLAG_FIN != 0;
        let length = (second & 0x00ff_ffff) as usize;
        if first & !ID_MASK == 0 {
            return Ok(Self::Data { stream: first, fin, length });
        }
        if (first >> 16) as u16 & 0x7fff != VERSION {
            return Err(SpdyError::Protocol("unsupported version"));
        }
        Ok(Self::Control { kind: first as u16, fin, length })
    }
}

/// A control frame from the peer; header blocks are still compressed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Control<'a> {
    SynStream {
        stream: u32,
        fin: bool,
        block: &'a [u8],
    },
    SynReply {
        stream: u32,
        fin: bool,
        block: &'a [u8],
    },
    Reset {
        stream: u32,
    },
    Ping {
        id: u32,
    },
    GoAway,
    /// More headers on an open stream; nobody in Kubernetes reads them, but the compressor must see them.
    Headers {
        stream: u32,
        fin: bool,
        block: &'a [u8],
    },
    Ignored,
}

impl<'a> Control<'a> {
    pub(super) fn parse(kind: u16, fin: bool, payload: &'a [u8]) -> Result<Self, SpdyError> {
        let mut rest = payload;
        let mut id = || rest.try_get_u32().map(|n| n & ID_MASK).map_err(|_| SpdyError::Protocol("cut short"));
        Ok(match kind {
            SYN_STREAM => {
                let stream = id()?;
                id()?;
                let block = payload.get(10..).ok_or(SpdyError::Protocol("cut short"))?;
                Self::SynStream { stream, fin, block }
            }
            SYN_REPLY => Self::SynReply { stream: id()?, fin, block: &payload[4..] },
            HEADERS => Self::Headers { stream: id()?, fin, block: &payload[4..] },
            RST_STREAM => Self::Reset { stream: id()? },
            PING => Self::Ping { id: payload_u32(payload)? },
            GOAWAY => Self::GoAway,
            SETTINGS | WINDOW_UPDATE | CREDENTIAL => Self::Ignored,
            _ => return Err(SpdyError::Protocol("unknown frame type")),
        })
    }
}

fn payload_u32(payload: &[u8]) -> Result<u32, SpdyError> {
    let mut rest = payload;
    rest.try_get_u32().map_err(|_| SpdyError::Protocol("cut short"))
}

fn control(kind: u16, fin: bool, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD + payload.len());
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    out.put_u32(u32::from(fin) << 24 | (payload.len() as u32 & 0x00ff_ffff));
    out.put_slice(payload);
    out
}

pub(super) fn syn_stream(stream: u32, block: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(10 + block.len());
    payload.put_u32(stream & ID_MASK);
    payload.put_u32(0);
    payload.put_u16(0);
    payload.put_slice(block);
    control(SYN_STREAM, false, &payload)
}

pub(super) fn syn_reply(stream: u32, block: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(4 + block.len());
    payload.put_u32(stream & ID_MASK);
    payload.put_slice(block);
    control(SYN_REPLY, false, &payload)
}

pub(super) fn reset(stream: u32, reason: ResetReason) -> Vec<u8> {
    let mut payload = Vec::with_capacity(8);
    payload.put_u32(stream & ID_MASK);
    payload.put_u32(reason as u32);
    control(RST_STREAM, false, &payload)
}

pub(super) fn ping(id: u32) -> Vec<u8> {
    control(PING, false, &id.to_be_bytes())
}

/// `protocol_error` false says a normal end.
pub(super) fn go_away(last_good_stream: u32, protocol_error: bool) -> Vec<u8> {
    let mut payload = Vec::with_capacity(8);
    payload.put_u32(last_good_stream & ID_MASK);
    payload.put_u32(u32::from(protocol_error));
    control(GOAWAY, false, &payload)
}

/// The head of a data frame; the payload follows it on the wire.
pub(super) fn data_head(stream: u32, fin: bool, length: usize) -> [u8; HEAD] {
    let mut out = [0; HEAD];
    out[..4].copy_from_slice(&(stream & ID_MASK).to_be_bytes());
    out[4..].copy_from_slice(&(u32::from(fin) << 24 | (length as u32 & 0x00ff_ffff)).to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_read_back() {
        let check = |bytes: &[u8], expected| {
            assert_eq!(Head::parse(bytes[..HEAD].try_into().unwrap()).unwrap(), expected);
        };
        check(&data_head(7, true, 300), Head::Data { stream: 7, fin: true, length: 300 });
        check(&ping(1), Head::Control { kind: PING, fin: false, length: 4 });
        check(&syn_stream(1, b"xyz"), Head::Control { kind: SYN_STREAM, fin: false, length: 13 });
        assert!(Head::parse([0x80, 2, 0, 1, 0, 0, 0, 0]).is_err());
    }

    #[test]
    fn short_payloads_are_errors() {
        for kind in 0..12 {
            for length in 0..12 {
                let payload = vec![0xff; length];
                let parsed = Control::parse(kind, false, &payload);
                if matches!(kind, SYN_STREAM) && length < 10 {
                    assert!(parsed.is_err());
                }
            }
        }
    }
}

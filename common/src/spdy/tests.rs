//! Two sessions against each other over a pipe, and one against nonsense.

use std::time::Duration;

use bytes::BufMut;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;

use super::frame;
use super::headers::Deflater;
use super::*;

struct Pair {
    client: Session,
    server: Session,
    drivers: [JoinHandle<Result<(), SpdyError>>; 2],
}

fn pair() -> Pair {
    let (a, b) = tokio::io::duplex(4096);
    let (client, one) = session(a, Side::Client).unwrap();
    let (server, two) = session(b, Side::Server).unwrap();
    Pair { client, server, drivers: [tokio::spawn(one), tokio::spawn(two)] }
}

async fn open(pair: &Pair, kind: &str) -> (Stream, Stream) {
    let headers = Headers::new().with("streamType", kind).with("requestID", "0");
    let (ours, theirs) = tokio::join!(pair.client.open_stream(headers), async {
        pair.server.accept().await.unwrap().accept().await
    });
    let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
    assert_eq!(theirs.headers().get("streamtype"), Some(kind));
    (ours, theirs)
}

#[tokio::test]
async fn bytes_go_both_ways_and_each_side_closes_alone() {
    let pair = pair();
    let (mut ours, mut theirs) = open(&pair, "data").await;
    let sent: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
    let copy = sent.clone();
    let writer = tokio::spawn(async move {
        ours.write_all(&copy).await.unwrap();
        ours.shutdown().await.unwrap();
        let mut back = Vec::new();
        ours.read_to_end(&mut back).await.unwrap();
        (back, ours.is_reset())
    });
    let mut got = Vec::new();
    theirs.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, sent);
    theirs.write_all(b"after the half-close").await.unwrap();
    theirs.shutdown().await.unwrap();
    assert_eq!(writer.await.unwrap(), (b"after the half-close".to_vec(), false));
}

#[tokio::test]
async fn streams_are_independent_and_many() {
    let pair = pair();
    let mut held = Vec::new();
    for n in 0..100 {
        let (mut ours, mut theirs) = open(&pair, &n.to_string()).await;
        assert_eq!(ours.id(), 2 * n + 1);
        theirs.write_all(&[n as u8; 10]).await.unwrap();
        theirs.shutdown().await.unwrap();
        let mut got = Vec::new();
        ours.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, [n as u8; 10]);
        held.push((ours, theirs));
    }
}

#[tokio::test]
async fn a_reset_ends_both_directions_after_the_data() {
    let pair = pair();
    let (mut ours, mut theirs) = open(&pair, "data").await;
    theirs.write_all(b"last words").await.unwrap();
    let mut got = [0; 10];
    ours.read_exact(&mut got).await.unwrap();
    theirs.reset();
    assert_eq!(ours.read(&mut got).await.unwrap(), 0);
    assert!(ours.is_reset());
    assert!(ours.write_all(b"x").await.is_err());
}

#[tokio::test]
async fn dropping_an_incoming_stream_refuses_it() {
    let pair = pair();
    let (opened, ()) = tokio::join!(pair.client.open_stream(Headers::new()), async {
        drop(pair.server.accept().await.unwrap());
    });
    assert!(matches!(opened, Err(SpdyError::Refused)));
}

#[tokio::test]
async fn a_slow_reader_stops_the_writer() {
    let pair = pair();
    let (mut ours, theirs) = open(&pair, "data").await;
    let mut written = 0;
    let piece = vec![1; MAX_CHUNK];
    while let Ok(result) = tokio::time::timeout(Duration::from_millis(50), ours.write_all(&piece)).await {
        result.unwrap();
        written += piece.len();
        assert!(written < 4 * (STREAM_BUFFER + WRITE_BUFFER) * MAX_CHUNK, "nothing stops the writer");
    }
    // Nobody will read it: the rest of the connection goes on.
    drop(theirs);
    let (mut ours, mut theirs) = open(&pair, "other").await;
    ours.write_all(b"x").await.unwrap();
    assert_eq!(theirs.read_u8().await.unwrap(), b'x');
}

#[tokio::test]
async fn closing_sends_what_is_queued_and_ends_the_other_side() {
    let Pair { client, server, drivers } = pair();
    let pair = Pair { client, server, drivers };
    let (mut ours, mut theirs) = open(&pair, "data").await;
    ours.write_all(b"queued").await.unwrap();
    pair.client.close();
    let mut got = Vec::new();
    theirs.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"queued");
    assert!(theirs.is_reset());
    assert!(pair.server.accept().await.is_none());
    for driver in pair.drivers {
        driver.await.unwrap().unwrap();
    }
    assert!(matches!(pair.server.open_stream(Headers::new()).await, Err(SpdyError::Closed)));
}

#[tokio::test]
async fn pings_are_answered_and_odd_frames_skipped() {
    let (mut peer, io) = tokio::io::duplex(4096);
    let (_server, driver) = session(io, Side::Server).unwrap();
    tokio::spawn(driver);
    // SETTINGS, WINDOW_UPDATE, then a ping.
    peer.write_all(&[0x80, 3, 0, 4, 0, 0, 0, 4, 0, 0, 0, 0]).await.unwrap();
    peer.write_all(&[0x80, 3, 0, 9, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 9]).await.unwrap();
    peer.write_all(&frame::ping(7)).await.unwrap();
    let mut answer = [0; 12];
    peer.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer.to_vec(), frame::ping(7));
}

/// Feeds bytes to a server and accepts whatever it makes of them; it must end, not hang or panic.
async fn survive(bytes: Vec<u8>) {
    let (mut peer, io): (DuplexStream, DuplexStream) = tokio::io::duplex(1 << 16);
    let (server, driver) = session(io, Side::Server).unwrap();
    let driver = tokio::spawn(driver);
    let acceptor = tokio::spawn(async move {
        while let Some(incoming) = server.accept().await {
            if let Ok(mut stream) = incoming.accept().await {
                tokio::spawn(async move {
                    let mut sink = tokio::io::sink();
                    let _ = tokio::io::copy(&mut stream, &mut sink).await;
                });
            }
        }
    });
    let (mut from, mut to) = tokio::io::split(&mut peer);
    let drain = async {
        let mut sink = tokio::io::sink();
        let _ = tokio::io::copy(&mut from, &mut sink).await;
    };
    let feed = async {
        let _ = to.write_all(&bytes).await;
        let _ = to.shutdown().await;
    };
    tokio::join!(drain, feed);
    drop(peer);
    let _ = driver.await.expect("the driver must not panic");
    acceptor.await.expect("the acceptor must not panic");
}

fn conversation(rng: &mut StdRng) -> Vec<u8> {
    let mut deflater = Deflater::new().unwrap();
    let mut out = Vec::new();
    for n in 0..rng.random_range(1..12u32) {
        let headers = Headers::new().with("streamtype", "data").with("port", n.to_string());
        out.put_slice(&frame::syn_stream(2 * n + 1, &deflater.block(&headers).unwrap()));
        let length = rng.random_range(0..400);
        out.put_slice(&frame::data_head(2 * n + 1, rng.random(), length));
        out.put_bytes(n as u8, length);
        if rng.random() {
            out.put_slice(&frame::ping(n));
        }
        if rng.random() {
            out.put_slice(&frame::reset(2 * n + 1, frame::ResetReason::Cancel));
        }
    }
    out
}

#[tokio::test]
async fn fuzzed_frames_never_panic_or_hang() {
    // As the fuzzer of the API server's decoders has it.
    let seconds = std::env::var("PINTLE_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let begun = std::time::Instant::now();
    let goes_on = |seed| match seconds {
        Some(seconds) => begun.elapsed().as_secs() < seconds,
        None => seed < 400,
    };
    for seed in (0..).take_while(|seed| goes_on(*seed)) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut bytes = conversation(&mut rng);
        match seed % 3 {
            0 => rng.fill_bytes(&mut bytes),
            1 => {
                for _ in 0..rng.random_range(1..10) {
                    let at = rng.random_range(0..bytes.len());
                    bytes[at] = rng.random();
                }
            }
            _ => bytes.truncate(rng.random_range(0..bytes.len())),
        }
        let done = tokio::time::timeout(Duration::from_secs(20), survive(bytes)).await;
        assert!(done.is_ok(), "seed {seed} hangs");
    }
}

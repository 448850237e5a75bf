//! What the machine gives without an API server between: values into etcd, files onto the disk, bytes through TLS.

use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};

const ETCD_PREFIX: &str = "/pintle-bench/";
/// How long each of these is measured.
const SPAN: Duration = Duration::from_secs(3);

/// How to reach an etcd.
#[derive(Debug, Clone)]
pub struct Etcd {
    pub endpoint: String,
    pub ca: Option<PathBuf>,
    pub certificate_and_key: Option<(PathBuf, PathBuf)>,
}

impl Etcd {
    fn options(&self) -> anyhow::Result<etcd_client::ConnectOptions> {
        let read = |path: &Path| std::fs::read(path).with_context(|| format!("reading {}", path.display()));
        let options = etcd_client::ConnectOptions::new();
        let Some(ca) = &self.ca else { return Ok(options) };
        let mut tls =
            etcd_client::TlsOptions::new().ca_certificate(etcd_client::Certificate::from_pem(read(ca)?));
        if let Some((certificate, key)) = &self.certificate_and_key {
            tls = tls.identity(etcd_client::Identity::from_pem(read(certificate)?, read(key)?));
        }
        Ok(options.with_tls(tls))
    }
}

/// Puts per second of values of `bytes`, `concurrency` at a time. The keys are removed again.
///
/// # Errors
/// When etcd cannot be reached or refuses.
pub async fn etcd_puts(etcd: &Etcd, bytes: usize, concurrency: usize) -> anyhow::Result<f64> {
    let endpoint = etcd.endpoint.as_str();
    let client = etcd_client::Client::connect([endpoint], Some(etcd.options()?))
        .await
        .with_context(|| format!("connecting to etcd at {endpoint}"))?;
    let (done, begun) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let writers: Vec<_> = (0..concurrency)
        .map(|writer| {
            let (mut kv, done) = (client.kv_client(), done.clone());
            tokio::spawn(async move {
                let value = vec![b'x'; bytes];
                let mut turn = 0;
                while begun.elapsed() < SPAN {
                    kv.put(format!("{ETCD_PREFIX}{writer}/{turn}"), value.clone(), None).await?;
                    done.fetch_add(1, Ordering::Relaxed);
                    turn += 1;
                }
                Ok::<_, etcd_client::Error>(())
            })
        })
        .collect();
    for writer in writers {
        writer.await??;
    }
    let rate = done.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
    client.kv_client().delete(ETCD_PREFIX, Some(etcd_client::DeleteOptions::new().with_prefix())).await?;
    Ok(rate)
}

/// Writes of `bytes` per second that reached the disk, one after another.
///
/// # Errors
/// When the folder cannot be written.
pub fn fsyncs(folder: &Path, bytes: usize) -> anyhow::Result<f64> {
    let path = folder.join(format!("pintle-bench-{}", std::process::id()));
    let file = std::fs::File::create(&path).with_context(|| format!("writing {}", path.display()))?;
    let (block, begun, mut count) = (vec![b'x'; bytes], Instant::now(), 0u64);
    let written = loop {
        if begun.elapsed() >= SPAN {
            break Ok(());
        }
        // A file of bounded size, as a store's is.
        let at = count % 1024 * bytes as u64;
        if let Err(error) = file.write_all_at(&block, at).and_then(|()| file.sync_data()) {
            break Err(error);
        }
        count += 1;
    };
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    std::fs::remove_file(&path)?;
    written.with_context(|| format!("writing {}", path.display()))?;
    Ok(rate)
}

/// What a sender in TLS does with nothing else to do.
#[derive(Debug, Clone, Copy)]
pub struct Throughput {
    pub bytes_per_second: f64,
    /// CPU time of the sending thread alone.
    pub cpu_per_megabyte: Duration,
}

/// Two threads, one connection over loopback, as many bytes as go through.
///
/// # Errors
/// When the pair cannot be set up.
pub fn tls() -> anyhow::Result<Throughput> {
    let key = rcgen::KeyPair::generate()?;
    let certificate = rcgen::CertificateParams::new(["localhost".to_owned()])?.self_signed(&key)?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.der().clone())?;
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let server = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)?;
    let client = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();

    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let sender = std::thread::spawn(move || -> anyhow::Result<Throughput> {
        let (mut socket, _) = listener.accept()?;
        let mut connection = rustls::ServerConnection::new(Arc::new(server))?;
        let mut stream = rustls::Stream::new(&mut connection, &mut socket);
        let block = vec![b'x'; 128 * 1024];
        // The handshake is not measured.
        stream.write_all(&block)?;
        let (begun, cpu, mut bytes) = (Instant::now(), thread_cpu()?, 0usize);
        while begun.elapsed() < SPAN {
            stream.write_all(&block)?;
            bytes += block.len();
        }
        let (elapsed, cpu) = (begun.elapsed(), thread_cpu()?.saturating_sub(cpu));
        Ok(Throughput {
            bytes_per_second: bytes as f64 / elapsed.as_secs_f64(),
            cpu_per_megabyte: cpu.div_f64(bytes as f64 / 1e6),
        })
    });
    let mut socket = std::net::TcpStream::connect(address)?;
    let mut connection = rustls::ClientConnection::new(Arc::new(client), ServerName::try_from("localhost")?)?;
    let mut stream = rustls::Stream::new(&mut connection, &mut socket);
    let mut sink = vec![0; 256 * 1024];
    // The sender hangs up without a farewell; that is its end.
    while stream.read(&mut sink).is_ok_and(|read| read > 0) {}
    sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))?
}

fn thread_cpu() -> anyhow::Result<Duration> {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(Duration::new(time.tv_sec() as u64, time.tv_nsec() as u32))
}

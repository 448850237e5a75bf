//! OCI images from files: one reproducible layer, a config, a manifest, an index, in a tar archive.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use oci_spec::image::{
    Arch, ConfigBuilder, DescriptorBuilder, ImageConfigurationBuilder, ImageIndexBuilder,
    ImageManifestBuilder, MediaType, Os, RootFsBuilder, Sha256Digest,
};
use sha2::{Digest, Sha256};

/// containerd names an imported image by this annotation.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

#[derive(Args)]
pub struct Options {
    /// The image's name, `localhost/demo:local`.
    #[arg(long = "ref")]
    reference: String,
    /// The archive to write.
    #[arg(long)]
    out: PathBuf,
    /// A file to put in, `SOURCE:/path/inside`; keeps the source's executable bit. Repeatable.
    #[arg(long = "file")]
    files: Vec<String>,
    /// A symbolic link, `/path/inside:target`. Repeatable.
    #[arg(long = "link")]
    links: Vec<String>,
    /// An empty folder. Repeatable.
    #[arg(long = "dir")]
    dirs: Vec<String>,
    /// One word of the entry point. Repeatable.
    #[arg(long = "entrypoint", allow_hyphen_values = true)]
    entrypoint: Vec<String>,
    /// One word of the default arguments. Repeatable.
    #[arg(long = "cmd", allow_hyphen_values = true)]
    cmd: Vec<String>,
    /// `NAME=value`. Repeatable.
    #[arg(long = "env", default_value = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")]
    env: Vec<String>,
    /// `uid[:gid]` to run as.
    #[arg(long)]
    user: Option<String>,
}

struct Blob {
    digest: String,
    bytes: Vec<u8>,
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        Self { digest: hex::encode(Sha256::digest(&bytes)), bytes }
    }

    fn descriptor(&self, kind: MediaType) -> anyhow::Result<DescriptorBuilder> {
        let digest: Sha256Digest = self.digest.parse()?;
        Ok(DescriptorBuilder::default().media_type(kind).size(self.bytes.len() as u64).digest(digest))
    }
}

pub fn run(options: &Options) -> anyhow::Result<()> {
    let layer = Blob::new(layer(options)?);
    let config = Blob::new(config(options, &layer)?);
    let manifest = ImageManifestBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageManifest)
        .config(config.descriptor(MediaType::ImageConfig)?.build()?)
        .layers(vec![layer.descriptor(MediaType::ImageLayer)?.build()?])
        .build()?;
    let manifest = Blob::new(serde_json::to_vec(&manifest)?);
    let names = HashMap::from([(CONTAINERD_NAME.to_owned(), options.reference.clone())]);
    let index = ImageIndexBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageIndex)
        .manifests(vec![manifest.descriptor(MediaType::ImageManifest)?.annotations(names).build()?])
        .build()?;

    let temporary = options.out.with_extension("partial");
    let file = File::create(&temporary).with_context(|| format!("writing {}", temporary.display()))?;
    let mut archive = tar::Builder::new(file);
    put(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
    put(&mut archive, "index.json", &serde_json::to_vec(&index)?, 0o644)?;
    for blob in [&layer, &config, &manifest] {
        put(&mut archive, &format!("blobs/sha256/{}", blob.digest), &blob.bytes, 0o644)?;
    }
    archive.into_inner()?.flush()?;
    fs::rename(&temporary, &options.out).with_context(|| format!("writing {}", options.out.display()))
}

fn config(options: &Options, layer: &Blob) -> anyhow::Result<Vec<u8>> {
    let mut run = ConfigBuilder::default().env(options.env.clone()).working_dir("/");
    if !options.entrypoint.is_empty() {
        run = run.entrypoint(options.entrypoint.clone());
    }
    if !options.cmd.is_empty() {
        run = run.cmd(options.cmd.clone());
    }
    if let Some(user) = &options.user {
        run = run.user(user.clone());
    }
    let root =
        RootFsBuilder::default().typ("layers").diff_ids(vec![format!("sha256:{}", layer.digest)]).build()?;
    let config = ImageConfigurationBuilder::default()
        .architecture(Arch::Amd64)
        .os(Os::Linux)
        .created("1970-01-01T00:00:00Z")
        .config(run.build()?)
        .rootfs(root)
        .build()?;
    Ok(serde_json::to_vec(&config)?)
}

/// The layer's tar: folders first, everything owned by root with time zero, so that equal files give equal
/// digests.
fn layer(options: &Options) -> anyhow::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut made = std::collections::BTreeSet::new();
    for dir in &options.dirs {
        folders(&mut archive, &mut made, Path::new(dir.trim_start_matches('/')))?;
    }
    for spec in &options.files {
        let Some((source, inside)) = spec.rsplit_once(':') else {
            bail!("--file {spec}: expected SOURCE:/path/inside");
        };
        let inside = inside.trim_start_matches('/');
        if let Some(parent) = Path::new(inside).parent() {
            folders(&mut archive, &mut made, parent)?;
        }
        let bytes = fs::read(source).with_context(|| format!("reading {source}"))?;
        let executable = fs::metadata(source)?.permissions().mode() & 0o111 != 0;
        put(&mut archive, inside, &bytes, if executable { 0o755 } else { 0o644 })?;
    }
    for spec in &options.links {
        let Some((inside, target)) = spec.split_once(':') else {
            bail!("--link {spec}: expected /path/inside:target");
        };
        let inside = inside.trim_start_matches('/');
        if let Some(parent) = Path::new(inside).parent() {
            folders(&mut archive, &mut made, parent)?;
        }
        let mut header = header(0, 0o777, tar::EntryType::Symlink);
        archive.append_link(&mut header, inside, target)?;
    }
    Ok(archive.into_inner()?)
}

fn folders(
    archive: &mut tar::Builder<Vec<u8>>,
    made: &mut std::collections::BTreeSet<PathBuf>,
    path: &Path,
) -> anyhow::Result<()> {
    let mut ancestors: Vec<&Path> = path.ancestors().filter(|p| !p.as_os_str().is_empty()).collect();
    ancestors.reverse();
    for folder in ancestors {
        if made.insert(folder.to_owned()) {
            let mode = if folder == Path::new("tmp") { 0o1777 } else { 0o755 };
            let mut header = header(0, mode, tar::EntryType::Directory);
            archive.append_data(&mut header, folder, std::io::empty())?;
        }
    }
    Ok(())
}

fn put<W: Write>(archive: &mut tar::Builder<W>, path: &str, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let mut header = header(bytes.len() as u64, mode, tar::EntryType::Regular);
    archive.append_data(&mut header, path, bytes).with_context(|| format!("packing {path}"))
}

fn header(size: u64, mode: u32, kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(mode);
    header.set_entry_type(kind);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_files_make_equal_archives() {
        let dir = std::env::temp_dir().join(format!("pintle-image-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("temp dir");
        let source = dir.join("a");
        fs::write(&source, b"hello").expect("write");
        let pack = |name: &str| {
            let out = dir.join(name);
            let options = Options {
                reference: "localhost/a:local".into(),
                out: out.clone(),
                files: vec![format!("{}:/bin/a", source.display())],
                links: vec!["/bin/b:a".into()],
                dirs: vec!["/tmp".into()],
                entrypoint: vec!["/bin/a".into()],
                cmd: Vec::new(),
                env: Vec::new(),
                user: None,
            };
            run(&options).expect("packs");
            fs::read(out).expect("read")
        };
        assert_eq!(pack("one.tar"), pack("two.tar"));
        fs::remove_dir_all(dir).expect("cleanup");
    }
}

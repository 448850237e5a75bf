//! Makes the table of descriptions that the OpenAPI documents show (`kubectl explain`).
//!
//! k8s-openapi carries upstream's descriptions in its sources, in the part behind its `schemars` feature.
//! Compiling that feature in would put every schema of every version into the program as code; this reads the
//! texts from the crate's sources instead and leaves one compressed table in `OUT_DIR`:
//! `T<type>\0<text>\0` and, after its type, `F<field>\0<text>\0`.

use std::env;
use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The module of k8s-openapi with the served version's types.
const MODULE: &str = "v1_36";

/// Fewer texts than this mean that the sources no longer look as this script expects.
const TEXTS_MIN: usize = 2500;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let mut files = Vec::new();
    rust_files(&sources()?.join("src").join(MODULE), &mut files)?;
    files.sort();
    let mut table = Vec::new();
    let mut texts = 0;
    for file in files {
        texts += extract(&fs::read_to_string(&file)?, &mut table);
    }
    if texts < TEXTS_MIN {
        return Err(format!("found only {texts} descriptions in the sources of k8s-openapi").into());
    }
    let out = PathBuf::from(env::var("OUT_DIR")?).join("descriptions.gz");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&table)?;
    fs::write(out, gzip.finish()?)?;
    Ok(())
}

/// Where cargo keeps the sources of k8s-openapi.
fn sources() -> Result<PathBuf, Box<dyn Error>> {
    // Offline first: nothing is missing but, on a new machine, packages that this build does not need.
    let output = match metadata(&["--offline"])? {
        known if known.status.success() => known,
        _ => metadata(&[])?,
    };
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let manifest = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == "k8s-openapi")
        .and_then(|package| package["manifest_path"].as_str())
        .ok_or("k8s-openapi is not among the dependencies")?;
    println!("cargo::rerun-if-changed={manifest}");
    Ok(Path::new(manifest).parent().ok_or("a manifest has a directory")?.to_owned())
}

fn metadata(more: &[&str]) -> Result<Output, Box<dyn Error>> {
    let manifest = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("Cargo.toml");
    let mut cargo = Command::new(env::var("CARGO")?);
    cargo.args(["metadata", "--format-version=1", "--locked", "--filter-platform", &env::var("TARGET")?]);
    cargo.arg("--manifest-path").arg(manifest).args(more);
    Ok(cargo.output()?)
}

fn rust_files(directory: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            rust_files(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// Appends the texts of one file's types; returns how many. The generated code is regular: the schema's own
/// keys are indented by 12, its properties by 16, and what a property says of itself by 20.
fn extract(source: &str, table: &mut Vec<u8>) -> usize {
    let mut texts = 0;
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        if !line.contains("fn schema_name()") {
            continue;
        }
        let Some(name) = lines.next().and_then(|l| literal(l.trim_start())) else { continue };
        put(table, b'T', &name, "");
        let mark = table.len() - 1;
        let mut property = String::new();
        for line in lines.by_ref() {
            if line == "}" {
                break;
            }
            let text = line.trim_start();
            let indent = line.len() - text.len();
            match indent {
                12 => {
                    if let Some(value) = text.strip_prefix("\"description\": ").and_then(literal) {
                        table.truncate(mark);
                        table.extend_from_slice(value.as_bytes());
                        table.push(0);
                        texts += 1;
                    }
                }
                16 if text.starts_with('"') => property = literal(text).unwrap_or_default(),
                20 => {
                    let value = text
                        .strip_prefix("\"description\": ")
                        .or_else(|| {
                            text.strip_prefix("schema_obj.ensure_object().insert(\"description\".into(), ")
                        })
                        .and_then(literal);
                    if let Some(value) = value {
                        put(table, b'F', &property, &value);
                        texts += 1;
                    }
                }
                _ => {}
            }
        }
    }
    texts
}

fn put(table: &mut Vec<u8>, tag: u8, name: &str, text: &str) {
    table.push(tag);
    table.extend_from_slice(name.as_bytes());
    table.push(0);
    table.extend_from_slice(text.as_bytes());
    table.push(0);
}

/// The value of the string literal that `text` starts with.
fn literal(text: &str) -> Option<String> {
    let mut chars = text.strip_prefix('"')?.chars();
    let mut out = String::new();
    loop {
        match chars.next()? {
            '"' => return Some(out),
            '\\' => match chars.next()? {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => out.push('\r'),
                'u' => {
                    let digits: String = chars.by_ref().skip(1).take_while(|c| *c != '}').collect();
                    out.push(u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32)?);
                }
                other => out.push(other),
            },
            other => out.push(other),
        }
    }
}

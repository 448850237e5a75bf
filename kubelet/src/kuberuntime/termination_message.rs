//! The last words of a container: its termination message file, or the end of its log.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};

use super::RuntimeContainer;

/// Upstream's limits.
const MESSAGE_BYTES_MAX: usize = 4096;
const LOG_BYTES_MAX: usize = 2048;
const LOG_LINES_MAX: usize = 80;
/// Read from the log's end; lines carry a timestamp of 35 bytes and more.
const LOG_READ_MAX: u64 = 16 * 1024;

impl RuntimeContainer {
    /// What `state.terminated.message` says: the file, else (with `FallbackToLogsOnError` and a failure) the log's
    /// end, else the runtime's own message.
    pub fn termination_message(&self) -> String {
        let path = self
            .mounts
            .iter()
            .find(|m| m.container_path == self.labels.termination_message_path)
            .map(|m| m.host_path.as_str());
        if let Some(text) = path.and_then(|p| read_head(p, MESSAGE_BYTES_MAX)).filter(|t| !t.is_empty()) {
            return text;
        }
        if self.labels.termination_message_policy == "FallbackToLogsOnError" && self.exit_code != 0 {
            return log_tail(&self.log_path);
        }
        self.message.clone()
    }
}

fn read_head(path: &str, limit: usize) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(limit as u64).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn log_tail(path: &str) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_READ_MAX)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let Ok(bytes) = read() else { return String::new() };
    plain_tail(&String::from_utf8_lossy(&bytes))
}

/// The text of CRI log lines (`time stream tag text`), the last of them.
fn plain_tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let mut out = String::new();
    for line in &lines[lines.len().saturating_sub(LOG_LINES_MAX)..] {
        let mut fields = line.splitn(4, ' ');
        if let (Some(_), Some("stdout" | "stderr"), Some(tag), Some(text)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        {
            out.push_str(text);
            if tag == "F" {
                out.push('\n');
            }
        }
    }
    let mut start = out.len().saturating_sub(LOG_BYTES_MAX);
    while !out.is_char_boundary(start) {
        start += 1;
    }
    out.split_off(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_of_a_log() {
        assert_eq!(plain_tail("garbage\nT stdout F a b\nT stderr P c\nT stderr F d\n"), "a b\ncd\n");
        let long = format!("T stdout F {}\n", "é".repeat(3000));
        assert!(plain_tail(&long).len() <= LOG_BYTES_MAX);
    }
}

//! What is printed: one row per shape, then facts and ratios.

use std::time::Duration;

use super::load::Samples;

/// All that one run found, in order.
pub struct Report {
    name: String,
    rows: Vec<Row>,
    facts: Vec<(String, String)>,
}

struct Row {
    shape: String,
    count: usize,
    rate: f64,
    p50: Option<Duration>,
    p99: Option<Duration>,
    max: Option<Duration>,
    bytes_rate: f64,
    /// The server's CPU time for each.
    each: Option<Duration>,
    resident_bytes: Option<u64>,
}

impl Report {
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), rows: Vec::new(), facts: Vec::new() }
    }

    /// A shape of requests; `sent` are bytes that went to the server, for writes.
    pub fn samples(
        &mut self,
        shape: &str,
        mut samples: Samples,
        cpu: Option<Duration>,
        resident_bytes: Option<u64>,
    ) {
        samples.latencies.sort_unstable();
        let count = samples.latencies.len();
        let at = |share: f64| {
            let last = count.checked_sub(1)?;
            samples.latencies.get(((count as f64 * share) as usize).min(last)).copied()
        };
        if samples.errors > 0 {
            let first = samples.error.clone().unwrap_or_default();
            self.fact(&format!("errors in {shape}"), format!("{} (first: {first})", samples.errors));
        }
        self.row(Row {
            shape: shape.to_owned(),
            count,
            rate: samples.rate(),
            p50: at(0.5),
            p99: at(0.99),
            max: at(1.0),
            bytes_rate: samples.bytes as f64 / samples.elapsed.as_secs_f64().max(1e-9),
            each: cpu.map(|cpu| cpu / count.max(1) as u32),
            resident_bytes,
        });
    }

    /// Something counted rather than asked for: events.
    pub fn counted(
        &mut self,
        shape: &str,
        count: usize,
        bytes: usize,
        elapsed: Duration,
        cpu: Option<Duration>,
        resident_bytes: Option<u64>,
    ) {
        let seconds = elapsed.as_secs_f64().max(1e-9);
        self.row(Row {
            shape: shape.to_owned(),
            count,
            rate: count as f64 / seconds,
            p50: None,
            p99: None,
            max: None,
            bytes_rate: bytes as f64 / seconds,
            each: cpu.map(|cpu| cpu / count.max(1) as u32),
            resident_bytes,
        });
    }

    pub fn fact(&mut self, what: &str, value: String) {
        eprintln!("    {what}: {value}");
        self.facts.push((what.to_owned(), value));
    }

    fn row(&mut self, row: Row) {
        eprintln!("    {}", row.text());
        self.rows.push(row);
    }

    /// Per second, of a shape that was measured.
    pub fn rate(&self, shape: &str) -> Option<f64> {
        self.rows.iter().find(|row| row.shape == shape).map(|row| row.rate)
    }

    /// Bytes per second.
    pub fn bytes_rate(&self, shape: &str) -> Option<f64> {
        self.rows.iter().find(|row| row.shape == shape).map(|row| row.bytes_rate)
    }

    pub fn print(&self) {
        println!("\n### {}\n", self.name);
        println!(
            "| shape | n | per second | p50 ms | p99 ms | max ms | MB/s | server CPU each | server RSS |"
        );
        println!("|---|---|---|---|---|---|---|---|---|");
        for row in &self.rows {
            println!("{}", row.text());
        }
        println!();
        for (what, value) in &self.facts {
            println!("- {what}: {value}");
        }
    }
}

impl Row {
    fn text(&self) -> String {
        let ms = |d: Option<Duration>| {
            d.map_or_else(|| "-".to_owned(), |d| format!("{:.2}", d.as_secs_f64() * 1e3))
        };
        let each = self.each.map_or_else(|| "-".to_owned(), cost);
        let resident =
            self.resident_bytes.map_or_else(|| "-".to_owned(), |b| format!("{:.0} MB", b as f64 / 1e6));
        format!(
            "| {} | {} | {:.0} | {} | {} | {} | {:.1} | {each} | {resident} |",
            self.shape,
            self.count,
            self.rate,
            ms(self.p50),
            ms(self.p99),
            ms(self.max),
            self.bytes_rate / 1e6,
        )
    }
}

/// A time of the size at hand.
fn cost(time: Duration) -> String {
    let us = time.as_secs_f64() * 1e6;
    if us < 1000.0 { format!("{us:.1} us") } else { format!("{:.2} ms", us / 1e3) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_answered() {
        let mut report = Report::new("x");
        let samples = Samples {
            elapsed: Duration::from_secs(2),
            latencies: (1..=100).map(Duration::from_millis).collect(),
            bytes: 4_000_000,
            ..Samples::default()
        };
        report.samples("get", samples, Some(Duration::from_millis(10)), Some(50_000_000));
        assert_eq!(
            report.rows[0].text(),
            "| get | 100 | 50 | 51.00 | 100.00 | 100.00 | 2.0 | 100.0 us | 50 MB |"
        );
        assert_eq!(report.rate("get"), Some(50.0));
    }
}

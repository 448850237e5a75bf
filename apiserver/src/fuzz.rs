//! A small fuzzer for whatever reads bytes of clients: seeded, bounded in time, over a corpus that is mutated with
//! what decoders stumble over.
//!
//! In a normal run each target gets a fraction of a second. `PINTLE_FUZZ_SECONDS` gives each target that long, and
//! then a new seed every time; `PINTLE_FUZZ_SEED` repeats one that a failure printed.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

const NORMAL: Duration = Duration::from_millis(250);
const NORMAL_SEED: u64 = 36;
/// No input is longer.
const INPUT_BYTES_MAX: usize = 256 * 1024;
/// No input may take longer, on a machine with better things to do.
const INPUT_TIME_MAX: Duration = Duration::from_secs(10);
/// What breaks decoders.
const TOKENS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "\\",
    "\\u0000",
    "\\ud800",
    "null",
    "true",
    "-0",
    "1e999",
    "1e-999",
    "0x10",
    "9223372036854775808",
    "-9223372036854775809",
    "18446744073709551616",
    "340282366920938463463374607431768211456",
    "&a",
    "*a",
    "<<: *a",
    "!!binary",
    "!!int",
    "|\n",
    ">-\n",
    "---\n",
    "...\n",
    "? ",
    "- ",
    "# ",
    "%YAML 1.2\n",
    "\t",
    "%",
    "%zz",
    "%00",
    "+",
    "&",
    "=",
    "==",
    "!=",
    "!",
    " in (",
    " notin (",
    ")",
    "a/b",
    "/",
    "//",
    "..",
    "\u{feff}",
    "\u{2028}",
    "\u{1f600}",
    "k8s\0",
    "\0",
    "$patch",
    "$retainKeys",
    "$setElementOrder/",
    "metadata",
    "apiVersion",
];

/// Feeds mutations of `corpus` to `target`, which must not panic and says by a panic what else must hold. The
/// second argument is a random number for what the input does not decide.
pub fn run(name: &str, corpus: &[Vec<u8>], mut target: impl FnMut(&[u8], usize)) {
    let env = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = env("PINTLE_FUZZ_SECONDS");
    let seed = env("PINTLE_FUZZ_SEED").unwrap_or_else(|| seconds.map_or(NORMAL_SEED, |_| rand::random()));
    let mut rng = StdRng::seed_from_u64(seed);
    let begun = Instant::now();
    let limit = seconds.map_or(NORMAL, Duration::from_secs);
    let (mut inputs, mut slowest, mut size) = (0_u64, Duration::ZERO, 0);
    for whole in corpus {
        check(name, seed, whole, 0, &mut target);
    }
    while begun.elapsed() < limit {
        let input = mutated(&mut rng, corpus);
        let pick = rng.random_range(0..usize::MAX);
        let took = check(name, seed, &input, pick, &mut target);
        if took > slowest {
            (slowest, size) = (took, input.len());
        }
        inputs += 1;
    }
    println!("fuzz {name}: {inputs} inputs, seed {seed}, slowest {slowest:?} for {size} bytes");
}

fn check(
    name: &str,
    seed: u64,
    input: &[u8],
    pick: usize,
    target: &mut impl FnMut(&[u8], usize),
) -> Duration {
    let begun = Instant::now();
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| target(input, pick)));
    let took = begun.elapsed();
    if let Err(panic) = result {
        eprintln!("{}", describe(name, seed, input, pick));
        std::panic::resume_unwind(panic);
    }
    assert!(took < INPUT_TIME_MAX, "took {took:?}: {}", describe(name, seed, input, pick));
    took
}

fn describe(name: &str, seed: u64, input: &[u8], pick: usize) -> String {
    let path = std::env::temp_dir().join(format!("pintle-fuzz-{}", name.replace(' ', "-")));
    let kept = std::fs::write(&path, input).is_ok();
    format!(
        "fuzz {name}: seed {seed}, pick {pick}, {} bytes{}: {:?}",
        input.len(),
        if kept { format!(", kept as {}", path.display()) } else { String::new() },
        String::from_utf8_lossy(&input[..input.len().min(500)])
    )
}

fn mutated(rng: &mut StdRng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = corpus.choose(rng).cloned().unwrap_or_default();
    for _ in 0..rng.random_range(1..6) {
        mutate(rng, corpus, &mut input);
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

fn mutate(rng: &mut StdRng, corpus: &[Vec<u8>], input: &mut Vec<u8>) {
    let at = rng.random_range(0..=input.len());
    let end = (at + rng.random_range(0..64)).min(input.len());
    match rng.random_range(0..10) {
        0 if !input.is_empty() => {
            let at = rng.random_range(0..input.len());
            input[at] = rng.random();
        }
        1 if !input.is_empty() => {
            let at = rng.random_range(0..input.len());
            input[at] ^= 1 << rng.random_range(0..8);
        }
        2 => {
            input.drain(at..end);
        }
        3 => input.truncate(at),
        4 => {
            let piece = input[at..end].to_vec();
            let times = rng.random_range(1..20);
            input.splice(at..at, piece.repeat(times));
        }
        5 => {
            let token = TOKENS.choose(rng).expect("there are tokens");
            input.splice(at..end, token.bytes());
        }
        6 => {
            // Deep nesting, or much of the same.
            let token = TOKENS.choose(rng).expect("there are tokens");
            let times = 1 << rng.random_range(0..13);
            input.splice(at..at, token.repeat(times).into_bytes());
        }
        7 => {
            let other = corpus.choose(rng).cloned().unwrap_or_default();
            let from = rng.random_range(0..=other.len());
            let to = rng.random_range(from..=other.len());
            input.splice(at..end, other[from..to].iter().copied());
        }
        8 => {
            let token = TOKENS.choose(rng).expect("there are tokens");
            input.splice(at..at, token.bytes());
        }
        _ => {
            let bytes: Vec<u8> = (0..rng.random_range(0..16)).map(|_| rng.random()).collect();
            input.splice(at..at, bytes);
        }
    }
}

mod tests {
    use common::fields::FieldSelector;
    use common::labels::Selector;
    use serde_json::Value;

    use super::run;
    use crate::endpoints::decode::decode;
    use crate::endpoints::negotiation::Encoding;
    use crate::endpoints::typed;
    use crate::filters::{query, request_info};
    use crate::json::Cursor;
    use crate::protobuf::{self, fixtures};
    use crate::resources::schema::Schema;
    use crate::server::pretty;

    /// The nodes of a tree and the bytes of its texts.
    fn weight(value: &Value) -> usize {
        match value {
            Value::Array(items) => 1 + items.iter().map(weight).sum::<usize>(),
            Value::Object(map) => 1 + map.iter().map(|(key, value)| key.len() + weight(value)).sum::<usize>(),
            Value::String(text) => 1 + text.len(),
            _ => 1,
        }
    }

    fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
        texts.iter().map(|text| text.as_bytes().to_vec()).collect()
    }

    fn json_objects() -> Vec<Vec<u8>> {
        fixtures::all().into_iter().map(|fixture| fixture.json.into_bytes()).collect()
    }

    #[test]
    fn fuzzed_json_is_read_or_refused() {
        let schema = Schema::builtin();
        let types = ["Pod", "Service", "ConfigMap", "Secret", "Event"];
        let types = types.map(|kind| schema.id(&format!("io.k8s.api.core.v1.{kind}")).unwrap());
        run("json", &json_objects(), |bytes, pick| {
            let Ok(mut decoded) = decode(bytes, Encoding::Json) else { return };
            assert!(weight(&decoded.tree) <= 2 * bytes.len() + 16);
            assert!(decoded.duplicates.len() <= 100);
            let _ = typed::check(&schema, types[pick % types.len()], &mut decoded.tree);
            let line = decoded.tree.to_string();
            // Against the line: the last digit of a large fraction may be another when it is read again.
            let indented = pretty::indent(line.as_bytes());
            let [line, indented] = [line.as_bytes(), indented.as_ref()].map(serde_json::from_slice::<Value>);
            assert_eq!(line.unwrap(), indented.unwrap());
        });
    }

    #[test]
    fn fuzzed_yaml_is_read_or_refused() {
        let mut corpus: Vec<Vec<u8>> = fixtures::all()
            .into_iter()
            .filter(|fixture| fixture.json.len() < 4096)
            .step_by(5)
            .map(|fixture| serde_saphyr::to_string(&fixture.tree()).unwrap().into_bytes())
            .collect();
        let laughs: String = std::iter::once("a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned())
            .chain((1..12).map(|n| {
                let one = format!("*a{}", n - 1);
                format!("a{n}: &a{n} [{}]\n", vec![one; 9].join(", "))
            }))
            .collect();
        corpus.push(laughs.into_bytes());
        corpus.extend(texts(&[
            "a: &a {b: *a}\n",
            "base: &b {x: 1}\nother:\n  <<: *b\n  y: 2\n",
            "? [complex, key]\n: value\n? {a: b}\n: 1\n",
            "a: !!binary aGVsbG8=\nb: !!float 1\nc: 0o17\nd: .inf\ne: .nan\nf: 1_000\ng: 2026-01-01\n",
            "--- a\n--- b\n",
            "text: |+\n  one\n\n  two\nfolded: >-\n  a\n  b\n",
        ]));
        run("yaml", &corpus, |bytes, _| {
            let Ok(decoded) = decode(bytes, Encoding::Yaml) else { return };
            // Aliases may repeat things, within the reader's budget.
            assert!(weight(&decoded.tree) <= 4 * 1024 * 1024 + 64 * bytes.len());
        });
    }

    #[test]
    fn fuzzed_protobuf_is_read_or_refused() {
        let table = protobuf::Table::builtin();
        let corpus: Vec<Vec<u8>> = fixtures::all().into_iter().map(|fixture| fixture.protobuf).collect();
        run("protobuf", &corpus, |bytes, _| {
            let Ok(tree) = protobuf::decode(&table, bytes, Some(("v1", "Pod"))) else { return };
            // An empty message of a byte or two may stand for a time or a quantity.
            assert!(weight(&tree) <= 64 * bytes.len() + 64);
            if let Ok(again) = protobuf::encode(&table, &tree) {
                assert!(protobuf::decode(&table, &again, None).is_ok());
            }
        });
        run("json parts", &json_objects(), |bytes, _| {
            let serdes = serde_json::from_slice::<Value>(bytes);
            let ours = Cursor::new(bytes).and_then(|mut cursor| {
                let value = cursor.value()?;
                cursor.end().map(|()| value)
            });
            assert_eq!(serdes.ok(), ours.ok());
        });
        run("protobuf from json", &json_objects(), |bytes, _| {
            if let Ok(encoded) = protobuf::transcode(&table, bytes) {
                protobuf::decode(&table, &encoded, None).expect("what was written can be read");
            }
        });
    }

    #[test]
    fn fuzzed_selectors_and_urls_are_read_or_refused() {
        let corpus = texts(&[
            "a=b,c!=d,e in (f,g),h notin (i),j,!k",
            "app.kubernetes.io/name==x,tier notin (a, b ,c)",
            "metadata.name=a,spec.nodeName!=n,status.phase=Running",
            "x=a\\,b\\=c\\\\",
        ]);
        run("selectors", &corpus, |bytes, _| {
            let text = String::from_utf8_lossy(bytes);
            let _ = Selector::parse(&text);
            let _ = FieldSelector::parse(&text);
        });
        let corpus = texts(&[
            "/api/v1/namespaces/a/pods/b/log?container=c&follow=true&tailLines=10",
            "/apis/apps/v1/deployments?watch=1&resourceVersion=7&limit=500&continue=abc&fieldSelector=a%3Db",
            "/api/v1/watch/namespaces/x?labelSelector=a%20in%20%28b%29&timeoutSeconds=5&sendInitialEvents=true",
            "/api/v1/proxy/nodes/n:10250/metrics?timeout=1h30m&dryRun=All&fieldManager=x&pretty=true",
        ]);
        run("urls", &corpus, |bytes, _| {
            let text = String::from_utf8_lossy(bytes);
            let (path, rest) = text.split_once('?').unwrap_or((&text, ""));
            if let Ok(info) = request_info::parse(&http::Method::GET, path, rest) {
                let _ = request_info::is_long_running(&info);
            }
            let _ = query::pairs(rest).count();
            let _ = common::flags::duration(rest);
            let _ = pretty::is_wanted(rest, &text);
        });
    }
}

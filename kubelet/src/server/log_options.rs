//! `PodLogOptions` from a query, and lines of the CRI log format. Pure.

use jiff::Timestamp;

use super::query::Query;

/// What of a log is wanted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogOptions {
    pub follow: bool,
    pub previous: bool,
    pub timestamps: bool,
    pub since: Option<Timestamp>,
    pub tail_lines: Option<u64>,
    pub limit_bytes: Option<u64>,
    /// `Stdout` or `Stderr`; both when None.
    pub stream: Option<&'static str>,
}

/// Status and body of a refusal, as upstream.
type Refusal = (u16, &'static str);
const UNREADABLE: Refusal = (400, r#"{"message": "Unable to decode query."}"#);
const INVALID: Refusal = (422, r#"{"message": "Invalid request."}"#);

impl LogOptions {
    /// # Errors
    /// The refusal for a value that cannot be read or makes no sense.
    pub fn parse(query: &Query, now: Timestamp) -> Result<Self, Refusal> {
        let number = |name: &str| match query.get(name).filter(|v| !v.is_empty()) {
            None => Ok(None),
            Some(text) => text.parse::<i64>().map(Some).map_err(|_| UNREADABLE),
        };
        let mut tail = number("tailLines")?;
        match query.get("tail") {
            Some("all") => tail = None,
            Some(text) if !text.is_empty() => tail = Some(text.parse().map_err(|_| UNREADABLE)?),
            _ => {}
        }
        let (limit, seconds) = (number("limitBytes")?, number("sinceSeconds")?);
        let time = match query.get("sinceTime").filter(|v| !v.is_empty()) {
            None => None,
            Some(text) => Some(text.parse::<Timestamp>().map_err(|_| UNREADABLE)?),
        };
        if tail.is_some_and(|n| n < 0)
            || limit.is_some_and(|n| n < 1)
            || seconds.is_some_and(|n| n < 1)
            || (time.is_some() && seconds.is_some())
        {
            return Err(INVALID);
        }
        let stream = match query.get("stream") {
            None | Some("" | "All") => None,
            Some("Stdout") => Some("stdout"),
            Some("Stderr") => Some("stderr"),
            Some(_) => return Err(INVALID),
        };
        if stream.is_some() && tail.is_some() {
            return Err(INVALID);
        }
        let since =
            seconds.map(|s| now.checked_sub(jiff::SignedDuration::from_secs(s)).unwrap_or(Timestamp::MIN));
        Ok(Self {
            follow: query.flag("follow"),
            previous: query.flag("previous"),
            timestamps: query.flag("timestamps"),
            since: since.or(time),
            tail_lines: tail.map(i64::unsigned_abs),
            limit_bytes: limit.map(i64::unsigned_abs),
            stream,
        })
    }
}

/// One line of a log file, newline included unless it is a partial one.
#[derive(Debug, PartialEq, Eq)]
pub struct Line<'a> {
    pub time: &'a str,
    pub stream: &'a str,
    pub content: &'a [u8],
}

impl<'a> Line<'a> {
    /// `<RFC3339Nano> <stdout|stderr> <P|F[:more]> <content>\n`; None for anything else.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |b| *b == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?;
        let stream = std::str::from_utf8(parts.next()?).ok()?;
        let (tag, mut content) = (parts.next()?, parts.next()?);
        let plausible = time.len() >= 20 && time.as_bytes().get(10) == Some(&b'T');
        if !plausible || !matches!(stream, "stdout" | "stderr") {
            return None;
        }
        let partial = tag.split(|b| *b == b':').next() == Some(b"P");
        if partial {
            content = content.strip_suffix(b"\n").unwrap_or(content);
        }
        Some(Self { time, stream, content })
    }

    pub fn timestamp(&self) -> Option<Timestamp> {
        self.time.parse().ok()
    }

    /// The time with all nine digits, as clients expect it.
    pub fn fixed_time(&self) -> String {
        let (seconds, rest) = self.time.split_at(19.min(self.time.len()));
        let (fraction, zone) = match rest.strip_prefix('.') {
            Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())),
            None => ("", rest),
        };
        format!("{seconds}.{fraction:0<9}{zone}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let line = Line::parse(b"2026-11-20T22:27:29.19269095Z stdout F some text\n").unwrap();
        assert_eq!((line.stream, line.content), ("stdout", &b"some text\n"[..]));
        assert_eq!(line.fixed_time(), "2026-11-20T22:27:29.192690950Z");
        let part = Line::parse(b"2026-11-20T22:27:29+01:00 stderr P half\n").unwrap();
        assert_eq!(part.content, b"half");
        assert_eq!(part.fixed_time(), "2026-11-20T22:27:29.000000000+01:00");
        assert_eq!(Line::parse(b"2026-11-20T22:27:29Z stdout F \n").unwrap().content, b"\n");
        for bad in [&b""[..], b"x", b"a b c d\n", b"2026-11-20T22:27:29Z other F x\n", b"\xff\xff \xff F x\n"]
        {
            assert!(Line::parse(bad).is_none());
        }
    }

    #[test]
    fn options_are_upstreams() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let parse = |query: &str| LogOptions::parse(&Query::parse(query), now);
        let got = parse("follow=true&tailLines=5&limitBytes=10&timestamps=1&sinceSeconds=60").unwrap();
        assert_eq!((got.follow, got.timestamps, got.previous), (true, true, false));
        assert_eq!((got.tail_lines, got.limit_bytes), (Some(5), Some(10)));
        assert_eq!(got.since.unwrap().to_string(), "2026-01-01T00:00:00Z");
        assert_eq!(parse("tailLines=x"), Err(UNREADABLE));
        assert_eq!(parse("tailLines=-1"), Err(INVALID));
        assert_eq!(parse("limitBytes=0"), Err(INVALID));
        assert_eq!(parse("sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z"), Err(INVALID));
        assert_eq!(parse("follow=false").unwrap(), LogOptions::default());
    }
}

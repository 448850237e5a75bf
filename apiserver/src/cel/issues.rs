//! What is wrong with an expression, printed as cel-go prints it: place, line, and a mark below it.

use std::fmt;

/// Errors of one expression; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issues(Vec<Issue>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Issue {
    /// From one; none for what is wrong with all of it.
    line: Option<usize>,
    /// Characters before it in its line.
    column: usize,
    message: String,
    snippet: String,
}

impl Issues {
    /// Of the expression as a whole.
    pub(super) fn nowhere(message: String) -> Self {
        Self(vec![Issue { line: None, column: 0, message, snippet: String::new() }])
    }
}

/// More are counted, not shown.
const SHOWN_MAX: usize = 100;
/// A longer line is not shown.
const SNIPPET_BYTES_MAX: usize = 16_384;

/// Collects errors while an expression is looked at.
#[derive(Debug)]
pub(super) struct Reporter<'s> {
    source: &'s str,
    found: Vec<Issue>,
}

impl<'s> Reporter<'s> {
    pub(super) fn new(source: &'s str) -> Self {
        Self { source, found: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// An error at a place in the text, in bytes from its begin.
    pub(super) fn at_offset(&mut self, offset: usize, message: String) {
        let (mut line, mut column) = (1, 0);
        for c in self.source.get(..offset).unwrap_or(self.source).chars() {
            if c == '\n' {
                (line, column) = (line + 1, 0);
            } else {
                column += 1;
            }
        }
        self.at(line, column, message);
    }

    pub(super) fn at(&mut self, line: usize, column: usize, message: String) {
        let snippet = self.source.split('\n').nth(line.saturating_sub(1)).unwrap_or("").to_owned();
        self.found.push(Issue { line: Some(line), column, message, snippet });
    }

    pub(super) fn finish(mut self) -> Option<Issues> {
        self.found.sort_by_key(|issue| (issue.line, issue.column));
        (!self.found.is_empty()).then_some(Issues(self.found))
    }
}

impl fmt::Display for Issues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, issue) in self.0.iter().take(SHOWN_MAX).enumerate() {
            let gap = if i == 0 { "" } else { "\n" };
            write!(f, "{gap}{issue}")?;
        }
        if let Some(more) = self.0.len().checked_sub(SHOWN_MAX).filter(|n| *n > 0) {
            write!(f, "\n{more} more errors were truncated")?;
        }
        Ok(())
    }
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(line) = self.line else { return write!(f, "ERROR: <input>:-1:0: {}", self.message) };
        write!(f, "ERROR: <input>:{line}:{}: {}", self.column + 1, self.message)?;
        if self.snippet.len() > SNIPPET_BYTES_MAX {
            return Ok(());
        }
        let shown = self.snippet.replace('\t', " ");
        // A wide character has a wide dot below it.
        let mut chars = shown.chars();
        let dots: String =
            chars.by_ref().take(self.column).map(|c| if c.is_ascii() { '.' } else { '\u{ff0e}' }).collect();
        let mark = if chars.next().is_some_and(|c| !c.is_ascii()) { '\u{ff3e}' } else { '^' };
        write!(f, "\n | {shown}\n | {dots}{mark}")
    }
}

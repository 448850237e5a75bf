//! `--token-auth-file`: CSV of `token,user,uid[,"group1,group2"]`, read once at start.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::request::UserInfo;

/// What is wrong with the file.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    #[error("reading {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("token file '{path}' must have at least 3 columns (token, user name, user uid), found {found}")]
    Columns { path: PathBuf, found: usize },
}

/// Tokens and their users.
#[derive(Default)]
pub struct TokenFile {
    users: HashMap<String, UserInfo>,
}

impl TokenFile {
    /// # Errors
    /// When the file cannot be read or a record is too short.
    pub fn load(path: &Path) -> Result<Self, TokenFileError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| TokenFileError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|found| TokenFileError::Columns { path: path.to_owned(), found })
    }

    fn parse(text: &str) -> Result<Self, usize> {
        let mut users = HashMap::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let fields = fields(line);
            let [token, name, uid, rest @ ..] = fields.as_slice() else { return Err(fields.len()) };
            if token.is_empty() {
                continue;
            }
            let groups = rest.first().map(|g| g.split(',').map(str::to_owned).collect());
            let user = UserInfo {
                name: name.clone(),
                uid: uid.clone(),
                groups: groups.unwrap_or_default(),
                ..Default::default()
            };
            users.insert(token.clone(), user);
        }
        Ok(Self { users })
    }

    pub fn user(&self, token: &str) -> Option<&UserInfo> {
        self.users.get(token)
    }
}

/// One CSV record on one line (RFC 4180 without line breaks in fields).
fn fields(line: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let field = out.last_mut().expect("there is always a field");
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => out.push(String::new()),
            _ => field.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_quoted() {
        let file = TokenFile::parse("t1,admin,1,\"system:masters,dev\"\n\nt2,jane,2\n").unwrap();
        assert_eq!(file.user("t1").unwrap().groups, ["system:masters", "dev"]);
        assert_eq!(file.user("t2").unwrap().name, "jane");
        assert!(file.user("t3").is_none());
        assert_eq!(TokenFile::parse("a,b").err(), Some(2));
    }
}

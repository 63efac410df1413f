//! Who may ask.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// The fewest characters of a token that is given.
const SHORTEST: usize = 8;

/// What a request shows: `Authorization: Bearer TOKEN`, or as the password of `Basic`. Its text is never printed.
#[derive(Clone)]
pub struct Token(String);

/// A file that holds no token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It cannot be read.
    #[error("cannot read the token file `{}`", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What it holds is of no use.
    #[error("the token file `{}` holds no token: it has to be one line of {SHORTEST} characters or more, none of them a blank", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
    },
}

impl Token {
    /// A new one.
    pub fn random() -> Self {
        Self(format!("{:032x}", u128::from_be_bytes(remuda_net::random_bytes())))
    }

    /// The one in a file.
    ///
    /// # Errors
    /// Names the file.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let path = || path.to_owned();
        let text = fs::read_to_string(path()).map_err(|source| TokenError::Unreadable { path: path(), source })?;
        let token = text.trim();
        if token.len() < SHORTEST || !token.chars().all(|c| c.is_ascii_graphic()) {
            return Err(TokenError::Invalid { path: path() });
        }
        Ok(Self(token.to_owned()))
    }

    /// Its text, for the file that holds it.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// Whether a request shows it.
    pub(crate) fn is_shown(&self, headers: &HeaderMap) -> bool {
        let Some(shown) = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()) else { return false };
        let Some((scheme, rest)) = shown.split_once(' ') else { return false };
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return self.is(rest.as_bytes());
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return false;
        }
        let Ok(decoded) = STANDARD.decode(rest) else { return false };
        let colon = decoded.iter().position(|byte| *byte == b':');
        colon.is_some_and(|colon| self.is(&decoded[colon + 1..]))
    }

    /// Compares in a time that says nothing of where the two differ: of their digests, every byte is looked at.
    fn is(&self, other: &[u8]) -> bool {
        let (own, other) = (Sha256::digest(self.0.as_bytes()), Sha256::digest(other));
        let differ = own.iter().zip(other.iter()).fold(0, |differ, (one, other)| differ | (one ^ other));
        std::hint::black_box(differ) == 0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(token: &Token, value: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value.parse().unwrap());
        token.is_shown(&headers)
    }

    #[test]
    fn a_token_is_shown_as_bearer_or_as_a_password() {
        let token = Token("secret:token".to_owned());
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        assert!(shown(&token, "Bearer secret:token") && shown(&token, "bearer  secret:token"));
        assert!(shown(&token, &basic("anybody:secret:token")) && shown(&token, &basic(":secret:token")));
        for wrong in ["Bearer", "Bearer ", "Bearer secret", "Basic !", "Digest secret:token", "secret:token"] {
            assert!(!shown(&token, wrong), "{wrong}");
        }
        for wrong in ["secret:token", "anybody", "anybody:secret", ""] {
            assert!(!shown(&token, &basic(wrong)), "{wrong}");
        }
        assert!(!token.is_shown(&HeaderMap::new()));
        assert_eq!(format!("{token:?}"), "Token(..)");
    }

    #[test]
    fn a_file_holds_one_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "long-enough\n").unwrap();
        assert_eq!(Token::read(file.path()).unwrap().text(), "long-enough");
        for wrong in ["", "short", "two words of text", "two\nlines-of-text"] {
            fs::write(file.path(), wrong).unwrap();
            assert!(matches!(Token::read(file.path()), Err(TokenError::Invalid { .. })), "{wrong}");
        }
        assert!(matches!(Token::read(Path::new("/nowhere/token")), Err(TokenError::Unreadable { .. })));
        assert_ne!(Token::random().text(), Token::random().text());
    }
}

//! From text to type, by recursive descent; the depth of types bounds the recursion.
//!
//! ```text
//! type   = atom { "?" }
//! atom   = "int" | "int32" | "int64" | "nativeint" | "uint" | "double" | "string" | "bytes"
//!        | "int32[]" | "custom:" name | "(" type "," ( type | "_" ) ")"
//! name   = 1 to 64 letters, digits, ".", "-", "_"
//! ```

use super::Type;
use super::datatype::{MAX_DEPTH, MAX_NAME_BYTES, MAX_SIGNATURE_BYTES};
use crate::error::{Error, Result};

/// What an atom begins with, if it is no pair.
const BEGINNINGS: [&str; 10] =
    ["int", "int32", "int32[]", "int64", "nativeint", "uint", "double", "string", "bytes", "custom:"];

/// May this byte be part of a custom type's name?
pub(super) fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

/// Parses a whole text. It is canonical already: no text but the type's own signature is accepted.
///
/// The position of an error is the length of the longest beginning of the text that some signature begins with too.
pub(super) fn parse(text: &[u8]) -> Result<Type> {
    if text.len() > MAX_SIGNATURE_BYTES {
        return Err(Error::TooLarge("a signature of more than 504 bytes"));
    }
    let mut parser = Parser { text, position: 0 };
    let found = parser.a_type(MAX_DEPTH)?;
    if parser.position < text.len() {
        return parser.fail("the signature should end here");
    }
    Ok(found)
}

/// How many bytes two words have in common from their beginning.
fn common(one: &str, other: &str) -> usize {
    one.bytes().zip(other.bytes()).take_while(|(one, other)| one == other).count()
}

struct Parser<'a> {
    text: &'a [u8],
    position: usize,
}

impl<'a> Parser<'a> {
    fn fail<T>(&self, reason: &'static str) -> Result<T> {
        Err(Error::Signature { position: self.position, reason })
    }

    fn take(&mut self, byte: u8) -> bool {
        let there = self.text.get(self.position) == Some(&byte);
        self.position += usize::from(there);
        there
    }

    fn word(&mut self, is_part: fn(u8) -> bool) -> &'a str {
        let rest: &'a [u8] = &self.text[self.position..];
        let len = rest.iter().position(|byte| !is_part(*byte)).unwrap_or(rest.len());
        self.position += len;
        // What was taken is ASCII.
        std::str::from_utf8(&rest[..len]).unwrap_or("")
    }

    fn a_type(&mut self, depth: usize) -> Result<Type> {
        let mut found = self.atom(depth)?;
        while self.text.get(self.position) == Some(&b'?') {
            found = Type::option(&found)?;
            self.position += 1;
        }
        Ok(found)
    }

    fn atom(&mut self, depth: usize) -> Result<Type> {
        let begin = self.position;
        if self.take(b'(') {
            return self.pair(depth);
        }
        let found = match self.word(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            "int" => Type::int(),
            "int32" if self.take(b'[') => {
                if !self.take(b']') {
                    return self.fail("']' is missing");
                }
                Type::int32_array()
            }
            "int32" => Type::int32(),
            "int64" => Type::int64(),
            "nativeint" => Type::nativeint(),
            "uint" => Type::uint(),
            "double" => Type::double(),
            "string" => Type::string(),
            "bytes" => Type::bytes(),
            "custom" => {
                if !self.take(b':') {
                    return self.fail("':' is missing after custom");
                }
                let name_at = self.position;
                let name = self.word(is_name_byte).to_owned();
                return Type::custom(&name).or_else(|_| {
                    self.position = name_at + name.len().min(MAX_NAME_BYTES);
                    self.fail("the name of a custom type is 1 to 64 letters, digits, '.', '-' or '_'")
                });
            }
            word => {
                let known = BEGINNINGS.iter().map(|beginning| common(word, beginning)).max();
                self.position = begin + known.unwrap_or(0);
                return self.fail(match word {
                    "" if begin == self.text.len() => "a type is missing",
                    "_" => "'_' may only be the right half of a pair",
                    _ if self.position == self.text.len() => "the word of a type is cut off",
                    _ => "no type has such a word",
                });
            }
        };
        Ok(found)
    }

    /// What follows the parenthesis.
    fn pair(&mut self, depth: usize) -> Result<Type> {
        if depth <= 1 {
            return Err(Error::TooLarge("types are nested more than 32 deep"));
        }
        let left = self.a_type(depth - 1)?;
        if !self.take(b',') {
            return self.fail("',' is missing: a pair has two halves");
        }
        let found =
            if self.take(b'_') { Type::left(&left) } else { Type::pair(&left, &self.a_type(depth - 1)?) };
        if !self.take(b')') {
            return self.fail("')' is missing");
        }
        found
    }
}

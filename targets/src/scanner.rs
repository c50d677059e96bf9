//! Reading assembly, line by line: what the languages of all kinds of machines share.

/// Text that is no program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: expected {expected}, found {found}")]
pub struct AssemblyError {
    /// The line, from 1 on.
    pub line: usize,
    /// The column in characters, from 1 on.
    pub column: usize,
    /// What could stand there.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

pub(crate) type Parsed<T> = Result<T, AssemblyError>;

/// A line that is read from left to right. Blanks do not matter.
pub(crate) struct Scanner<'a> {
    /// The line without its comment.
    pub line: &'a str,
    /// The line's number.
    pub number: usize,
    /// Byte position in the line.
    pub at: usize,
}

impl<'a> Scanner<'a> {
    /// What is not yet read.
    pub fn rest(&self) -> &'a str {
        &self.line[self.at..]
    }

    /// Passes over blanks.
    pub fn blank(&mut self) {
        self.at = self.line.len() - self.rest().trim_start().len();
    }

    /// The error that something else was expected here.
    pub fn error<T>(&self, expected: impl Into<String>) -> Parsed<T> {
        let found = match self.rest().split_whitespace().next() {
            Some(word) => format!("`{}`", word.chars().take(40).collect::<String>()),
            None => "the end of the line".to_owned(),
        };
        let column = self.line[..self.at].chars().count() + 1;
        Err(AssemblyError { line: self.number, column, expected: expected.into(), found })
    }

    /// Takes `token` if it comes next.
    pub fn takes(&mut self, token: &str) -> bool {
        self.blank();
        let taken = self.rest().starts_with(token);
        if taken {
            self.at += token.len();
        }
        taken
    }

    /// Takes `token`, which must come next.
    pub fn expect(&mut self, token: &str) -> Parsed<()> {
        if self.takes(token) { Ok(()) } else { self.error(format!("`{token}`")) }
    }

    /// The name or number that comes next; nothing is taken.
    pub fn word(&mut self) -> &'a str {
        self.blank();
        let rest = self.rest();
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '+' | '-')));
        &rest[..end.unwrap_or(rest.len())]
    }

    /// Takes the word `flag` if it comes next.
    pub fn flag(&mut self, flag: &str) -> bool {
        let set = self.word() == flag;
        if set {
            self.at += flag.len();
        }
        set
    }

    /// Takes a word that `read` understands.
    pub fn read<T>(&mut self, expected: &str, read: impl Fn(&str) -> Option<T>) -> Parsed<T> {
        let word = self.word();
        match read(word) {
            Some(value) => {
                self.at += word.len();
                Ok(value)
            }
            None => self.error(expected),
        }
    }

    /// Takes an integer, decimal or, after `0x`, hexadecimal.
    pub fn integer<T: TryFrom<i128>>(&mut self) -> Parsed<T> {
        let bits = size_of::<T>() * 8;
        self.read(&format!("an integer that fits its {bits} bits"), |word| {
            let (negative, digits) = word.strip_prefix('-').map_or((false, word), |digits| (true, digits));
            let magnitude = match digits.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16),
                None => digits.parse::<u64>(),
            };
            // A plus sign is understood by the standard library but is no part of this language.
            let value = i128::from(magnitude.ok().filter(|_| !digits.contains('+'))?);
            T::try_from(if negative { -value } else { value }).ok()
        })
    }

    /// Fails unless the line is at its end.
    pub fn end(&mut self, expected: &str) -> Parsed<()> {
        self.blank();
        if self.rest().is_empty() { Ok(()) } else { self.error(expected) }
    }
}

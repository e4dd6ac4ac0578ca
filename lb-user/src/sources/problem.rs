//! What is wrong with an input, and where.

use std::{fmt, path::Path, sync::Arc};

/// A place in a text; lines and columns count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: u32,
    /// Column, in characters.
    pub column: u32,
}

/// A place in a file, or a file as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, as the user named it.
    pub file: Arc<Path>,
    /// `None`: the file as a whole.
    pub at: Option<Position>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        match self.at {
            Some(at) => write!(f, ":{}:{}", at.line, at.column),
            None => Ok(()),
        }
    }
}

/// One thing that is wrong. Its `Display` is one line: `file:line:column: what; what to do`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What, and what to do about it.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

/// The input cannot be used. Its `Display` has one line for each problem.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.problems))]
pub struct LoadError {
    /// All that was found, never empty.
    pub problems: Vec<Problem>,
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    lines.join("\n")
}

/// A value that is not what it should be, in the file that is being read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bad {
    pub at: Position,
    pub text: String,
}

impl Bad {
    pub fn new(at: Position, text: impl Into<String>) -> Self {
        Bad { at, text: text.into() }
    }
}

/// Collects the problems of one file.
pub(super) struct Report<'p> {
    pub file: &'p Arc<Path>,
    pub problems: &'p mut Vec<Problem>,
}

impl Report<'_> {
    /// A position of this file.
    pub fn place(&self, at: Position) -> Place {
        Place { file: Arc::clone(self.file), at: Some(at) }
    }

    /// Notes a problem.
    pub fn say(&mut self, at: Position, text: impl Into<String>) {
        let place = self.place(at);
        self.problems.push(Problem { place, text: text.into() });
    }

    /// The value, or `None` with it noted that this part of an object is left out. `what` names the part with its
    /// article, `object` kind and name of the object.
    pub fn part<T>(&mut self, what: &str, object: &str, result: Result<T, Bad>) -> Option<T> {
        self.take(
            result.map_err(|bad| Bad::new(bad.at, format!("{what} of {object} is left out: {}", bad.text))),
        )
    }

    /// The value, or `None` with a problem noted.
    pub fn take<T>(&mut self, result: Result<T, Bad>) -> Option<T> {
        result.map_err(|bad| self.say(bad.at, bad.text)).ok()
    }
}

//! YAML (and so JSON) texts as trees that remember where each node stands.
//!
//! Scalars keep their text: what a field means is decided by who reads it, so that a name `010` stays one and a
//! message can quote what was written. Anchors and aliases are resolved here, merge keys are not.

use std::{borrow::Cow, collections::HashMap};

use saphyr_parser_bw::{Event, Marker, Parser, ScalarStyle, Span};

use super::problem::{Bad, Position};

/// Mappings and lists inside each other; what we read needs less than ten.
const MAX_DEPTH: usize = 64;
/// Values of a config, those that aliases stand for among them. A value takes about 100 bytes of memory.
const MAX_VALUES: usize = 8_000_000;
/// Bytes of memory that anchors and aliases of a config may take together: they repeat texts as well.
const MAX_REPEATED: usize = 64 << 20;

/// A node and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node<'t> {
    pub at: Position,
    pub value: Value<'t>,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub(super) enum Value<'t> {
    Null,
    Scalar(Cow<'t, str>),
    List(Vec<Node<'t>>),
    Map(Vec<(Key<'t>, Node<'t>)>),
}

/// A key of a mapping.
#[derive(Clone, Debug)]
pub(super) struct Key<'t> {
    pub at: Position,
    pub name: Cow<'t, str>,
}

impl<'t> Node<'t> {
    /// The field `name` of a mapping, if it is there and not null.
    pub fn get(&self, name: &str) -> Option<&Node<'t>> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| node).filter(|node| !node.is_null())
    }

    /// Whether a mapping has the field `name`, null or not.
    pub fn has(&self, name: &str) -> bool {
        matches!(&self.value, Value::Map(entries) if entries.iter().any(|(key, _)| key.name == name))
    }

    pub fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// This node and all below it: how many, and the bytes of their texts.
    fn size(&self) -> Size {
        match &self.value {
            Value::Null => Size { values: 1, text: 0 },
            Value::Scalar(text) => Size { values: 1, text: text.len() },
            Value::List(items) => {
                items.iter().fold(Size { values: 1, text: 0 }, |size, item| size + item.size())
            }
            Value::Map(entries) => entries.iter().fold(Size { values: 1, text: 0 }, |size, (key, node)| {
                size + node.size() + Size { values: 1, text: key.name.len() }
            }),
        }
    }
}

/// What nodes take.
#[derive(Clone, Copy)]
struct Size {
    values: usize,
    text: usize,
}

impl std::ops::Add for Size {
    type Output = Size;
    fn add(self, other: Size) -> Size {
        Size { values: self.values + other.values, text: self.text + other.text }
    }
}

impl Size {
    /// Bytes of memory.
    fn bytes(self) -> usize {
        self.values * size_of::<Node<'_>>() + self.text
    }
}

/// What the texts of one config have taken of what they may.
#[derive(Default)]
pub(super) struct Taken {
    values: usize,
    repeated: usize,
}

/// The documents of a text; empty ones are null.
pub(super) fn documents<'t>(text: &'t str, taken: &mut Taken) -> Result<Vec<Node<'t>>, Bad> {
    let mut tree = Tree { documents: Vec::new(), open: Vec::new(), anchors: HashMap::new(), taken };
    for event in Parser::new_from_str(text.trim_start_matches('\u{feff}')) {
        let (event, span) = event.map_err(|error| {
            let what = error.info();
            Bad::new(
                position(error.marker()),
                format!("this is not YAML: {what}; look at indentation and quotes here"),
            )
        })?;
        tree.event(event, span)?;
    }
    Ok(tree.documents)
}

fn position(marker: &Marker) -> Position {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Position { line: count(marker.line()), column: count(marker.col() + 1) }
}

/// The documents so far and the nodes that are still open.
struct Tree<'t, 'b> {
    documents: Vec<Node<'t>>,
    open: Vec<Open<'t>>,
    anchors: HashMap<usize, Node<'t>>,
    taken: &'b mut Taken,
}

/// A list or mapping whose end has not come yet; `anchor` is 0 for none.
struct Open<'t> {
    node: Node<'t>,
    key: Option<Key<'t>>,
    anchor: usize,
}

impl<'t> Tree<'t, '_> {
    fn event(&mut self, event: Event<'t>, span: Span) -> Result<(), Bad> {
        let at = position(&span.start);
        if matches!(event, Event::Scalar(..) | Event::SequenceStart(..) | Event::MappingStart(..)) {
            self.add_values(1, at)?;
        }
        match event {
            Event::Scalar(text, style, anchor, _tag) => {
                let null =
                    style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let value = if null { Value::Null } else { Value::Scalar(text) };
                self.put(Node { at, value }, anchor)
            }
            Event::SequenceStart(anchor, _tag) => self.begin(Node { at, value: Value::List(vec![]) }, anchor),
            Event::MappingStart(anchor, _tag) => self.begin(Node { at, value: Value::Map(vec![]) }, anchor),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(open) => self.put(open.node, open.anchor),
                None => Ok(()),
            },
            Event::Alias(anchor) => {
                let unknown = || Bad::new(at, "an alias stands inside what it repeats; write the value out");
                let size = self.anchors.get(&anchor).ok_or_else(unknown)?.size();
                self.add_values(size.values, at)?;
                self.repeat(size, at)?;
                let node = self.anchors.get(&anchor).ok_or_else(unknown)?.clone();
                self.put(node, 0)
            }
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn add_values(&mut self, values: usize, at: Position) -> Result<(), Bad> {
        self.taken.values += values;
        if self.taken.values > MAX_VALUES {
            let text = format!(
                "more than {MAX_VALUES} values in one config, with those of aliases; leave out what is not used"
            );
            return Err(Bad::new(at, text));
        }
        Ok(())
    }

    /// Before a node of that size is repeated.
    fn repeat(&mut self, size: Size, at: Position) -> Result<(), Bad> {
        self.taken.repeated += size.bytes();
        if self.taken.repeated > MAX_REPEATED {
            let limit = MAX_REPEATED >> 20;
            return Err(Bad::new(
                at,
                format!("anchors and aliases repeat more than {limit} MiB; write the values out"),
            ));
        }
        Ok(())
    }

    fn begin(&mut self, node: Node<'t>, anchor: usize) -> Result<(), Bad> {
        if self.open.len() == MAX_DEPTH {
            let text = format!("lists and mappings are nested more than {MAX_DEPTH} deep; flatten them");
            return Err(Bad::new(node.at, text));
        }
        self.open.push(Open { node, key: None, anchor });
        Ok(())
    }

    /// Adds a finished node to what is open around it.
    fn put(&mut self, node: Node<'t>, anchor: usize) -> Result<(), Bad> {
        if anchor != 0 {
            self.repeat(node.size(), node.at)?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(parent) = self.open.last_mut() else {
            self.documents.push(node);
            return Ok(());
        };
        match &mut parent.node.value {
            Value::List(items) => items.push(node),
            Value::Map(entries) => match parent.key.take() {
                Some(key) => entries.push((key, node)),
                None => parent.key = Some(key(node)?),
            },
            Value::Null | Value::Scalar(_) => {}
        }
        Ok(())
    }
}

fn key(node: Node<'_>) -> Result<Key<'_>, Bad> {
    match node.value {
        Value::Scalar(name) => Ok(Key { at: node.at, name }),
        Value::Null => Ok(Key { at: node.at, name: Cow::Borrowed("") }),
        Value::List(_) | Value::Map(_) => {
            Err(Bad::new(node.at, "a list or mapping cannot be a field's name; write a plain word"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree in one line: scalars in quotes, each node with its place.
    fn show(node: &Node<'_>) -> String {
        let Position { line, column } = node.at;
        let value = match &node.value {
            Value::Null => "null".to_owned(),
            Value::Scalar(text) => format!("'{text}'"),
            Value::List(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" ")),
            Value::Map(entries) => {
                let show = |(key, node): &(Key<'_>, Node<'_>)| format!("{}={}", key.name, show(node));
                format!("{{{}}}", entries.iter().map(show).collect::<Vec<_>>().join(" "))
            }
        };
        format!("{value}@{line}:{column}")
    }

    #[test]
    fn trees_keep_texts_and_places() {
        let cases = [
            ("a: 010\nb: [x, \"null\", ~]\n", "{a='010'@1:4 b=['x'@2:5 'null'@2:8 null@2:16]@2:4}@1:1"),
            ("{\"a\":\n\t[1]}", "{a=['1'@2:3]@2:2}@1:1"),
            ("--- 1\n--- \n--- 2\n", "'1'@1:5 null@3:1 '2'@3:5"),
            ("a: &x {p: 1}\nb: *x\n", "{a={p='1'@1:11}@1:7 b={p='1'@1:11}@1:7}@1:1"),
            ("\u{feff}a: ü\nb: 1", "{a='ü'@1:4 b='1'@2:4}@1:1"),
            ("# nothing\n", ""),
        ];
        for (text, expected) in cases {
            let documents =
                documents(text, &mut Taken::default()).unwrap_or_else(|bad| panic!("{text:?}: {bad:?}"));
            assert_eq!(documents.iter().map(show).collect::<Vec<_>>().join(" "), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_refused() {
        let deep = "[".repeat(65) + &"]".repeat(65);
        let bomb = (1..10).fold("l0: &l0 [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]\n".to_owned(), |text, level| {
            let aliases = vec![format!("*l{}", level - 1); 10].join(", ");
            text + &format!("l{level}: &l{level} [{aliases}]\n")
        });
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), "*a, ".repeat(100));
        let items = format!("[{}]", "x,".repeat(50_000));
        let nested = (0..60).fold(items, |inner, level| format!("&n{level} [{inner}]"));
        let many = "- a\n".repeat(8_000_001);
        let cases = [
            ("a: [1\nb: 2", "this is not YAML"),
            ("a: b: c", "this is not YAML"),
            ("\"open", "this is not YAML"),
            ("a: *unknown", "this is not YAML"),
            ("a: &x [*x]", "an alias stands inside"),
            ("[1]: 2", "a list or mapping cannot be a field's name"),
            (&deep, "nested more than 64 deep"),
            (&bomb, "anchors and aliases repeat more than 64 MiB"),
            (&long, "anchors and aliases repeat more than 64 MiB"),
            (&nested, "anchors and aliases repeat more than 64 MiB"),
            (&many, "more than 8000000 values in one config"),
        ];
        for (text, expected) in cases {
            let bad = documents(text, &mut Taken::default()).expect_err(text);
            assert!(bad.text.contains(expected), "{text:?}: {bad:?}");
        }
    }
}

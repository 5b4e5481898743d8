//! YAML (and JSON) text to [`Node`]s, with limits on everything the text can make grow.

use std::collections::HashMap;

use granit_parser::{Event, Marker, Options, Parser, ScalarStyle, Tag};

use crate::node::{Entry, Node, Scalar, Value};
use crate::problem::{Position, ProblemCode};

/// Deepest nesting; the deepest field of the API is at 14.
const DEEPEST: usize = 100;
/// Most values in a file, repeated ones (aliases) counted each time.
const MOST_NODES: usize = 200_000;
/// Most documents in a file.
const MOST_DOCUMENTS: usize = 1000;
/// Most text in a file, repeated text counted each time.
const MOST_TEXT: usize = 64 << 20;

/// A document, or why it could not be read.
pub(crate) type RawDocument = Result<Node, RawProblem>;

/// Why a document could not be read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RawProblem {
    pub(crate) code: ProblemCode,
    pub(crate) message: String,
    pub(crate) at: Option<Position>,
}

/// The documents of a text; empty ones are left out.
pub(crate) fn documents(text: &str) -> Vec<RawDocument> {
    let documents = yaml_documents(text);
    if !text.trim_start().starts_with(['{', '[']) {
        return documents;
    }
    let Some(yaml_error) = documents.iter().find_map(|document| document.as_ref().err()) else {
        return documents;
    };
    // JSON that is no YAML: tabs, surrogate pairs, documents one after another. Of two errors,
    // the one further on is of the reader that understood more.
    let json = json_documents(text);
    match json.iter().find_map(|document| document.as_ref().err()) {
        Some(json_error) if json_error.at.is_some() && json_error.at < yaml_error.at => documents,
        _ => json,
    }
}

fn json_documents(text: &str) -> Vec<RawDocument> {
    let documents = serde_json::Deserializer::from_str(text).into_iter::<Node>().map(|document| {
        document.map_err(|error| RawProblem {
            code: ProblemCode::Syntax,
            message: format!("Not valid JSON: {}", json_message(&error)),
            at: Some(Position { line: error.line(), column: error.column() }),
        })
    });
    let mut documents: Vec<RawDocument> = documents.take(MOST_DOCUMENTS + 1).collect();
    if documents.len() > MOST_DOCUMENTS {
        documents.truncate(MOST_DOCUMENTS);
        documents.push(Err(too_many_documents(None)));
    }
    documents
}

/// The message of a JSON error without the position, which is told apart.
fn json_message(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(message, _)| message.to_owned())
}

fn too_many_documents(at: Option<Position>) -> RawProblem {
    let message = format!("Too many documents: a file has at most {MOST_DOCUMENTS}");
    RawProblem { code: ProblemCode::TooLarge, message, at }
}

fn yaml_documents(text: &str) -> Vec<RawDocument> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut builder = Builder::default();
    let mut documents = Vec::new();
    while let Some(event) = parser.next_event() {
        let outcome = match event {
            Ok((Event::StreamEnd, _)) => break,
            Ok((event, span)) => builder.take(event, span.start),
            Err(error) => {
                Err(problem(ProblemCode::Syntax, format!("Not valid YAML: {}", error.info()), error.marker()))
            }
        };
        if documents.len() >= MOST_DOCUMENTS && !matches!(outcome, Ok(None)) {
            documents.push(Err(too_many_documents(None)));
            break;
        }
        match outcome {
            Ok(Some(node)) if node.is_null() => {}
            Ok(Some(node)) => documents.push(Ok(node)),
            Ok(None) => {}
            Err(raw) => {
                documents.push(Err(raw));
                builder.start_over();
                if builder.is_spent() || !parser.proceed_next_document().unwrap_or(false) {
                    break;
                }
            }
        }
    }
    documents
}

fn position(mark: &Marker) -> Position {
    Position { line: mark.line(), column: mark.col() + 1 }
}

fn problem(code: ProblemCode, message: impl Into<String>, mark: &Marker) -> RawProblem {
    RawProblem { code, message: message.into(), at: Some(position(mark)) }
}

/// A list or map that is not closed yet.
struct Open {
    value: Value,
    /// Key of a map whose value comes next.
    key: Option<(String, Option<Position>)>,
    anchor: usize,
    at: Position,
}

/// Builds one document after another from events.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    root: Option<Node>,
    nodes: usize,
    text: usize,
}

impl Builder {
    /// Takes an event; returns the document when it ends.
    fn take(&mut self, event: Event<'_>, mark: Marker) -> Result<Option<Node>, RawProblem> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let scalar = scalar(text.into_owned(), style, tag.as_deref(), &mark)?;
                self.add(Node { value: Value::Scalar(scalar), at: Some(position(&mark)) }, anchor, &mark)?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                collection_tag(tag.as_deref(), "seq", &mark)?;
                self.push(Value::List(Vec::new()), anchor, &mark)?;
            }
            Event::MappingStart(_, anchor, tag) => {
                collection_tag(tag.as_deref(), "map", &mark)?;
                self.push(Value::Map(Vec::new()), anchor, &mark)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(Open { value, anchor, at, .. }) = self.open.pop() {
                    self.attach(Node { value, at: Some(at) }, anchor, &mark)?;
                }
            }
            Event::Alias(id) => {
                let node = self.anchors.get(&id).cloned().ok_or_else(|| {
                    problem(ProblemCode::Syntax, "An alias refers to the value it is part of", &mark)
                })?;
                self.add(node, 0, &mark)?;
            }
            Event::DocumentEnd => {
                let root = self.root.take();
                self.start_over();
                return Ok(root);
            }
            _ => {}
        }
        Ok(None)
    }

    /// Forgets the document at hand. What it cost is not given back.
    fn start_over(&mut self) {
        self.open.clear();
        self.anchors.clear();
        self.root = None;
    }

    /// Whether the file has used up what a file may have.
    fn is_spent(&self) -> bool {
        self.nodes > MOST_NODES || self.text > MOST_TEXT
    }

    fn push(&mut self, value: Value, anchor: usize, mark: &Marker) -> Result<(), RawProblem> {
        if self.open.len() >= DEEPEST {
            return Err(problem(ProblemCode::Syntax, format!("Nested more than {DEEPEST} deep"), mark));
        }
        self.charge(1, 0, mark)?;
        self.open.push(Open { value, key: None, anchor, at: position(mark) });
        Ok(())
    }

    /// Adds a whole value, counting what it costs.
    fn add(&mut self, node: Node, anchor: usize, mark: &Marker) -> Result<(), RawProblem> {
        let (nodes, text, depth) = cost(&node);
        if self.open.len() + depth > DEEPEST {
            return Err(problem(ProblemCode::Syntax, format!("Nested more than {DEEPEST} deep"), mark));
        }
        self.charge(nodes, text, mark)?;
        self.attach(node, anchor, mark)
    }

    fn charge(&mut self, nodes: usize, text: usize, mark: &Marker) -> Result<(), RawProblem> {
        self.nodes = self.nodes.saturating_add(nodes);
        self.text = self.text.saturating_add(text);
        if self.is_spent() {
            let message = format!(
                "Too much for a VM spec: more than {MOST_NODES} values or {} MiB of text, aliases written out",
                MOST_TEXT >> 20
            );
            return Err(problem(ProblemCode::TooLarge, message, mark));
        }
        Ok(())
    }

    /// Puts a value where it belongs.
    fn attach(&mut self, node: Node, anchor: usize, mark: &Marker) -> Result<(), RawProblem> {
        if anchor != 0 {
            let (nodes, text, _) = cost(&node);
            self.charge(nodes, text, mark)?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut parent.value {
            Value::List(items) => items.push(node),
            Value::Map(entries) => match parent.key.take() {
                Some((key, at)) => entries.push(Entry { key, at, value: node }),
                None => match node.value {
                    Value::Scalar(scalar) if scalar.text == "<<" => {
                        let message = "A merge key (<<) is not read; write the fields out or use an alias";
                        return Err(problem(ProblemCode::Syntax, message, mark));
                    }
                    Value::Scalar(scalar) => parent.key = Some((scalar.text, node.at)),
                    Value::List(_) | Value::Map(_) => {
                        return Err(problem(ProblemCode::Syntax, "A key must be text", mark));
                    }
                },
            },
            Value::Scalar(_) => {}
        }
        Ok(())
    }
}

/// What a scalar is by its style and tag.
fn scalar(text: String, style: ScalarStyle, tag: Option<&Tag>, mark: &Marker) -> Result<Scalar, RawProblem> {
    match tag {
        None if style == ScalarStyle::Plain => Ok(Scalar::plain(text)),
        None => Ok(Scalar::quoted(text)),
        Some(tag) if tag.is_yaml_core_schema_tag("str") => Ok(Scalar::quoted(text)),
        Some(tag)
            if ["int", "bool", "float", "null"].iter().any(|name| tag.is_yaml_core_schema_tag(name)) =>
        {
            Ok(Scalar::plain(text))
        }
        Some(tag) => Err(unknown_tag(tag, mark)),
    }
}

/// A tag on a list or map may only say what it is anyway.
fn collection_tag(tag: Option<&Tag>, kind: &str, mark: &Marker) -> Result<(), RawProblem> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema_tag(kind) => Err(unknown_tag(tag, mark)),
        _ => Ok(()),
    }
}

fn unknown_tag(tag: &Tag, mark: &Marker) -> RawProblem {
    problem(ProblemCode::Syntax, format!("The tag {} is not read", tag.original()), mark)
}

/// Values, text and depth of a node; bounded, as every node was charged when it was made.
fn cost(node: &Node) -> (usize, usize, usize) {
    let mut total = (1, 0, 1);
    let mut add = |(nodes, text, depth): (usize, usize, usize), key: usize| {
        total.0 += nodes;
        total.1 += text + key;
        total.2 = total.2.max(depth + 1);
    };
    match &node.value {
        Value::Scalar(scalar) => total.1 = scalar.text.len(),
        Value::List(items) => items.iter().for_each(|item| add(cost(item), 0)),
        Value::Map(entries) => entries.iter().for_each(|entry| add(cost(&entry.value), entry.key.len())),
    }
    total
}

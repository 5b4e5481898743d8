//! The document that is read: what was taken of it, and what nobody took.
//!
//! Every part of the importer reads through [`Part`], which remembers what it gave. So what is not carried over is known
//! without a list of everything that libvirt has.

use std::cell::RefCell;
use std::collections::HashSet;

use roxmltree::{Node, NodeId};

use super::reason::reason;
use super::{Fault, Note};

/// Most notes that are kept; how many more there are is kept too.
const MOST_NOTES: usize = 500;
/// Most faults that are kept.
const MOST_FAULTS: usize = 100;
/// Longest piece of the document in a message, characters.
const LONGEST_QUOTE: usize = 120;

/// An element by its number, for the order of the document, and its path.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    number: usize,
    pub(super) path: String,
}

/// What was taken, noted and found wrong.
#[derive(Debug, Default)]
pub(super) struct Record(RefCell<Entries>);

#[derive(Debug, Default)]
struct Entries {
    elements: HashSet<NodeId>,
    /// Elements of which everything is accounted for.
    whole: HashSet<NodeId>,
    attributes: HashSet<(NodeId, &'static str)>,
    /// With the number of the element, for the order of the document.
    notes: Vec<(usize, Note)>,
    more_notes: usize,
    faults: Vec<(usize, Fault)>,
    /// Fields of the spec, and the elements that they come from.
    origins: Vec<(String, Origin)>,
}

impl Record {
    /// Notes in the order of the document.
    pub(super) fn notes(&self) -> Vec<Note> {
        let mut entries = self.0.borrow_mut();
        entries.notes.sort_by_key(|(number, _)| *number);
        let mut notes: Vec<Note> = entries.notes.iter().map(|(_, note)| note.clone()).collect();
        notes.dedup();
        if entries.more_notes > 0 {
            let text = format!("{} more parts of it are not carried over", entries.more_notes);
            notes.push(Note { path: "/domain".to_owned(), text });
        }
        notes
    }

    /// Faults in the order of the document.
    pub(super) fn faults(&self) -> Vec<Fault> {
        let mut entries = self.0.borrow_mut();
        entries.faults.sort_by_key(|(number, _)| *number);
        entries.faults.iter().map(|(_, fault)| fault.clone()).collect()
    }

    /// The element that a field of the spec comes from: that of the longest path above it.
    pub(super) fn origin(&self, field: &str) -> Origin {
        let entries = self.0.borrow();
        let is_above = |prefix: &str| {
            field.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let above = entries.origins.iter().filter(|(prefix, _)| is_above(prefix));
        let nearest = above.max_by_key(|(prefix, _)| prefix.len());
        nearest.map_or_else(|| Origin { number: 0, path: "/domain".to_owned() }, |(_, origin)| origin.clone())
    }

    /// Notes something of the element that a field comes from.
    pub(super) fn note_origin(&self, origin: Origin, text: String) {
        self.0.borrow_mut().note(origin.number, Note { path: origin.path, text });
    }

    /// Notes everything below an element that nobody took.
    pub(super) fn note_the_rest(&self, root: Node<'_, '_>) {
        let mut left = vec![root];
        while let Some(node) = left.pop() {
            let part = Part { node, record: self };
            let (taken, whole) = {
                let entries = self.0.borrow();
                (entries.elements.contains(&node.id()), entries.whole.contains(&node.id()))
            };
            if whole {
                continue;
            }
            if !taken {
                part.note(reason(part.parent_name(), part.name()));
                continue;
            }
            for attribute in node.attributes() {
                let known = self.0.borrow().attributes.contains(&(node.id(), attribute.name()));
                if !known || attribute.namespace().is_some() {
                    let value = quoted(attribute.value());
                    let why = reason(part.name(), attribute.name());
                    part.note_below(&format!("@{}", attribute.name()), format!("{value}: {why}"));
                }
            }
            left.extend(node.children().filter(Node::is_element).rev());
        }
    }
}

impl Entries {
    fn note(&mut self, number: usize, note: Note) {
        if self.notes.len() < MOST_NOTES {
            self.notes.push((number, note));
        } else {
            self.more_notes += 1;
        }
    }
}

/// An element.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    node: Node<'a, 'a>,
    record: &'a Record,
}

impl<'a> Part<'a> {
    /// The root of a document: taken.
    pub(super) fn root(node: Node<'a, 'a>, record: &'a Record) -> Self {
        let part = Self { node, record };
        part.take();
        part
    }

    pub(super) fn name(&self) -> &'a str {
        self.node.tag_name().name()
    }

    fn parent_name(&self) -> &'a str {
        self.node.parent_element().map_or("", |parent| parent.tag_name().name())
    }

    fn take(&self) {
        self.record.0.borrow_mut().elements.insert(self.node.id());
    }

    /// The elements in it, taken or not.
    fn elements(self) -> impl Iterator<Item = Self> {
        let own = |node: &Node<'_, '_>| node.is_element() && node.tag_name().namespace().is_none();
        self.node.children().filter(own).map(move |node| Self { node, record: self.record })
    }

    /// Takes the first element of that name.
    pub(super) fn child(self, name: &str) -> Option<Self> {
        self.elements().find(|part| part.name() == name).inspect(Self::take)
    }

    /// Takes all elements of that name.
    pub(super) fn children(self, name: &str) -> impl Iterator<Item = Self> {
        self.elements().filter(move |part| part.name() == name).inspect(Self::take)
    }

    /// Takes the first element of that name, and says whether it is there.
    pub(super) fn has(self, name: &str) -> bool {
        self.child(name).is_some()
    }

    /// Takes the first element of that name with all that is in it: it needs nothing more.
    pub(super) fn skip(self, name: &str) {
        self.child(name).inspect(Self::whole);
    }

    /// Takes where libvirt has put it and what it calls it: both are made anew.
    pub(super) fn skip_place(self) {
        self.skip("address");
        self.skip("alias");
    }

    /// All that is in it is accounted for.
    pub(super) fn whole(&self) {
        self.take();
        self.record.0.borrow_mut().whole.insert(self.node.id());
    }

    /// Takes an attribute.
    pub(super) fn attribute(&self, name: &'static str) -> Option<&'a str> {
        self.record.0.borrow_mut().attributes.insert((self.node.id(), name));
        self.node.attribute(name)
    }

    /// An attribute of the first element of that name; both are taken.
    pub(super) fn below(self, child: &str, attribute: &'static str) -> Option<&'a str> {
        self.child(child)?.attribute(attribute)
    }

    /// Its text, trimmed.
    pub(super) fn text(&self) -> &'a str {
        self.node.text().unwrap_or_default().trim()
    }

    /// Where it is: `/domain/devices/disk[2]/target`.
    pub(super) fn path(&self) -> String {
        let mut steps: Vec<String> = self.node.ancestors().filter(Node::is_element).map(step).collect();
        steps.reverse();
        steps.concat()
    }

    /// Notes something of it.
    pub(super) fn note(&self, text: impl Into<String>) {
        self.note_below("", text);
    }

    /// Notes something of an attribute.
    pub(super) fn note_attribute(&self, name: &str, text: impl Into<String>) {
        self.note_below(&format!("@{name}"), text);
    }

    fn note_below(&self, below: &str, text: impl Into<String>) {
        if self.record.0.borrow().notes.len() >= MOST_NOTES {
            self.record.0.borrow_mut().more_notes += 1;
            return;
        }
        let slash = if below.is_empty() { "" } else { "/" };
        let path = format!("{}{slash}{}", self.path(), shorten(below));
        let note = Note { path, text: text.into() };
        self.record.0.borrow_mut().note(self.node.id().get_usize(), note);
    }

    /// Notes that nothing of it is carried over.
    pub(super) fn leave(&self, text: impl Into<String>) {
        self.whole();
        self.note(text);
    }

    /// Something of it is wrong.
    pub(super) fn fault(&self, fault: impl FnOnce(String) -> Fault) {
        if self.record.0.borrow().faults.len() < MOST_FAULTS {
            let fault = fault(self.path());
            self.record.0.borrow_mut().faults.push((self.node.id().get_usize(), fault));
        }
    }

    /// It gives a field of the spec, and all that is below.
    pub(super) fn gives(&self, field: impl Into<String>) {
        let origin = Origin { number: self.node.id().get_usize(), path: self.path() };
        self.record.0.borrow_mut().origins.push((field.into(), origin));
    }
}

/// A step of a path; a number only where there are several of that name.
fn step(node: Node<'_, '_>) -> String {
    let name = node.tag_name();
    let same = |other: &Node<'_, '_>| other.is_element() && other.tag_name() == name;
    let before = node.prev_siblings().skip(1).filter(same).count();
    let several = before > 0 || node.next_siblings().skip(1).any(|other| same(&other));
    let number = if several { format!("[{}]", before + 1) } else { String::new() };
    format!("/{}{number}", shorten(name.name()))
}

/// A piece of the document as it is put into a message.
pub(super) fn quoted(text: &str) -> String {
    format!("{:?}", shorten(text))
}

/// At most so many characters.
pub(super) fn shorten(text: &str) -> String {
    match text.char_indices().nth(LONGEST_QUOTE) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

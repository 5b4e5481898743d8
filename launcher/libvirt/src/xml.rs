//! A tree of XML elements, written by `quick-xml`, which escapes what is in them.

use std::fmt::Display;

use quick_xml::Writer;
use quick_xml::events::{BytesEnd, BytesStart, BytesText, Event};

/// An element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    name: &'static str,
    attributes: Vec<(&'static str, String)>,
    children: Vec<Element>,
    text: Option<String>,
}

impl Element {
    /// An empty element.
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, attributes: Vec::new(), children: Vec::new(), text: None }
    }

    /// An element with text in it.
    pub(crate) fn text(name: &'static str, text: impl Display) -> Self {
        Self { text: Some(text.to_string()), ..Self::new(name) }
    }

    /// With an attribute.
    pub(crate) fn with(mut self, name: &'static str, value: impl Display) -> Self {
        self.attributes.push((name, value.to_string()));
        self
    }

    /// With an attribute, where there is a value.
    pub(crate) fn with_some(self, name: &'static str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// With an element in it.
    pub(crate) fn and(mut self, child: Self) -> Self {
        self.children.push(child);
        self
    }

    /// With elements in it.
    pub(crate) fn and_all(mut self, children: impl IntoIterator<Item = Self>) -> Self {
        self.children.extend(children);
        self
    }

    /// Whether nothing is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.children.is_empty() && self.text.is_none()
    }

    /// The document, indented by two spaces.
    pub(crate) fn document(&self) -> String {
        let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
        // Writing into memory does not fail.
        let _ = self.write(&mut writer);
        String::from_utf8_lossy(&writer.into_inner()).into_owned() + "\n"
    }

    fn write(&self, writer: &mut Writer<Vec<u8>>) -> std::io::Result<()> {
        let mut start = BytesStart::new(self.name);
        for (name, value) in &self.attributes {
            start.push_attribute((*name, value.as_str()));
        }
        if self.is_empty() {
            return writer.write_event(Event::Empty(start));
        }
        writer.write_event(Event::Start(start))?;
        if let Some(text) = &self.text {
            writer.write_event(Event::Text(BytesText::new(text)))?;
        }
        for child in &self.children {
            child.write(writer)?;
        }
        writer.write_event(Event::End(BytesEnd::new(self.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_a_spec_cannot_leave_its_place() {
        let element = Element::new("a").with("b", "'\"><x/>").and(Element::text("c", "</c>&"));
        let document = element.document();
        assert!(!document.contains("<x/>") && !document.contains("</c>&"), "{document}");
        assert_eq!(document.lines().count(), 3, "{document}");
    }
}

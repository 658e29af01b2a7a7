//! A definition as a tree that can be changed and written back.

use xot::{Node, Xot};

use super::EditError;

/// The tree of a definition.
pub(super) struct Tree {
    xot: Xot,
    document: Node,
    pub(super) root: Node,
}

fn broken(error: impl std::fmt::Display) -> EditError {
    EditError::Definition(error.to_string())
}

impl Tree {
    /// Parses `xml`, which has to be something that the strict reader can read: it refuses document types.
    pub(super) fn parse(xml: &str) -> Result<Tree, EditError> {
        roxmltree::Document::parse(xml).map_err(broken)?;
        let mut xot = Xot::new();
        let document = xot.parse(xml).map_err(broken)?;
        let root = xot.document_element(document).map_err(broken)?;
        Ok(Tree { xot, document, root })
    }

    pub(super) fn write(&self) -> Result<String, EditError> {
        self.xot.to_string(self.document).map_err(broken)
    }

    /// An element by itself, as text.
    pub(super) fn write_element(&mut self, node: Node) -> Result<String, EditError> {
        let copy = self.xot.clone_with_prefixes(node);
        self.xot.to_string(copy).map_err(broken)
    }

    pub(super) fn children(&self, parent: Node, name: &str) -> Vec<Node> {
        let Some(name) = self.xot.name(name) else {
            return Vec::new();
        };
        self.xot
            .children(parent)
            .filter(|node| self.xot.node_name(*node) == Some(name))
            .collect()
    }

    pub(super) fn child(&self, parent: Node, name: &str) -> Option<Node> {
        self.children(parent, name).into_iter().next()
    }

    pub(super) fn attribute(&self, node: Node, name: &str) -> Option<&str> {
        self.xot.get_attribute(node, self.xot.name(name)?)
    }

    pub(super) fn set_attribute(&mut self, node: Node, name: &str, value: &str) {
        let name = self.xot.add_name(name);
        self.xot.set_attribute(node, name, value);
    }

    pub(super) fn remove_attribute(&mut self, node: Node, name: &str) {
        if let Some(name) = self.xot.name(name) {
            self.xot.remove_attribute(node, name);
        }
    }

    /// Replaces all that an element holds by text.
    pub(super) fn set_text(&mut self, node: Node, text: &str) -> Result<(), EditError> {
        let held: Vec<Node> = self.xot.children(node).collect();
        for part in held {
            self.xot.remove(part).map_err(broken)?;
        }
        self.xot.append_text(node, text).map_err(broken)
    }

    /// A new element with attributes, which is nowhere yet.
    pub(super) fn element(&mut self, name: &str, attributes: &[(&str, &str)]) -> Node {
        let name = self.xot.add_name(name);
        let node = self.xot.new_element(name);
        for (name, value) in attributes {
            self.set_attribute(node, name, value);
        }
        node
    }

    /// A copy of an element, which is nowhere yet.
    pub(super) fn copy(&mut self, node: Node) -> Node {
        self.xot.clone_node(node)
    }

    /// Puts `child` into an element that has no layout of its own.
    pub(super) fn append(&mut self, parent: Node, child: Node) -> Result<(), EditError> {
        self.xot.append(parent, child).map_err(broken)
    }

    pub(super) fn child_or_new(&mut self, parent: Node, name: &str) -> Result<Node, EditError> {
        if let Some(child) = self.child(parent, name) {
            return Ok(child);
        }
        let child = self.element(name, &[]);
        self.insert(parent, child)?;
        Ok(child)
    }

    /// Puts `child` behind the last element of its kind in `parent`, or last, indented as its neighbours are.
    pub(super) fn insert(&mut self, parent: Node, child: Node) -> Result<(), EditError> {
        let kind = self.xot.node_name(child);
        let elements: Vec<Node> = self
            .xot
            .children(parent)
            .filter(|node| self.xot.is_element(*node))
            .collect();
        let neighbour = elements
            .iter()
            .rev()
            .find(|node| self.xot.node_name(**node) == kind)
            .or(elements.last())
            .copied();
        let Some(neighbour) = neighbour else {
            return self.append(parent, child);
        };
        let indent = self
            .xot
            .previous_sibling(neighbour)
            .and_then(|before| self.xot.text_str(before))
            .filter(|text| text.trim().is_empty())
            .map(|text| {
                text.rfind('\n')
                    .map_or(text, |at| text.get(at..).unwrap_or(text))
                    .to_owned()
            });
        self.xot.insert_after(neighbour, child).map_err(broken)?;
        if let Some(indent) = indent {
            let text = self.xot.new_text(&indent);
            self.xot.insert_before(child, text).map_err(broken)?;
        }
        Ok(())
    }

    /// Takes an element out, together with the white space before it.
    pub(super) fn remove(&mut self, node: Node) -> Result<(), EditError> {
        if let Some(before) = self.xot.previous_sibling(node)
            && self
                .xot
                .text_str(before)
                .is_some_and(|text| text.trim().is_empty())
        {
            self.xot.remove(before).map_err(broken)?;
        }
        self.xot.remove(node).map_err(broken)
    }
}

//! Finding elements, and saying where one is wrong.

use roxmltree::Node;

use super::error::InvalidGuestXml;

pub(super) fn elements<'a, 'input>(node: Node<'a, 'input>) -> impl Iterator<Item = Node<'a, 'input>> {
    node.children().filter(Node::is_element)
}

pub(super) fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    elements(node).find(|child| child.has_tag_name(name))
}

pub(super) fn each<'a, 'input: 'a>(
    parent: Option<Node<'a, 'input>>,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'input>> {
    parent
        .into_iter()
        .flat_map(elements)
        .filter(move |child| child.has_tag_name(name))
}

pub(super) fn text(node: Node<'_, '_>) -> String {
    node.text().unwrap_or_default().trim().to_owned()
}

pub(super) fn attribute(node: Node<'_, '_>, name: &str) -> String {
    node.attribute(name).unwrap_or_default().to_owned()
}

/// The line of an element, counted from 1.
pub(super) fn line(node: Node<'_, '_>) -> u32 {
    node.document().text_pos_at(node.range().start).row
}

/// `element` is not where it should be: in `parent`.
pub(super) fn missing(parent: Node<'_, '_>, element: impl Into<String>) -> InvalidGuestXml {
    InvalidGuestXml::Missing {
        line: line(parent),
        element: element.into(),
    }
}

/// `node`, or an attribute of it, has a value that it may not have.
pub(super) fn invalid(
    node: Node<'_, '_>,
    element: impl Into<String>,
    value: impl Into<String>,
    reason: impl Into<String>,
) -> InvalidGuestXml {
    InvalidGuestXml::Invalid {
        line: line(node),
        element: element.into(),
        value: value.into(),
        reason: reason.into(),
    }
}

pub(super) fn required_text(root: Node<'_, '_>, name: &str) -> Result<String, InvalidGuestXml> {
    child(root, name)
        .map(text)
        .filter(|text| !text.is_empty())
        .ok_or_else(|| missing(root, format!("<domain><{name}>")))
}

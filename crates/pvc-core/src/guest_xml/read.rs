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

pub(super) fn missing(element: impl Into<String>) -> InvalidGuestXml {
    InvalidGuestXml::Missing {
        element: element.into(),
    }
}

pub(super) fn invalid(
    element: impl Into<String>,
    value: impl Into<String>,
    reason: impl Into<String>,
) -> InvalidGuestXml {
    InvalidGuestXml::Invalid {
        element: element.into(),
        value: value.into(),
        reason: reason.into(),
    }
}

pub(super) fn required_text(root: Node<'_, '_>, name: &str) -> Result<String, InvalidGuestXml> {
    child(root, name)
        .map(text)
        .filter(|text| !text.is_empty())
        .ok_or_else(|| missing(format!("<domain><{name}>")))
}

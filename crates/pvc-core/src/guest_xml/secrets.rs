//! Secrets in a definition: the passwords of its consoles, and whatever else lets somebody in who knows it.
//!
//! A definition is shown with [`MASK`] in their places. Whoever edits what he was shown and sends it back sends the masks
//! back as well: [`unmask`] puts the present secrets in again, so a mask never becomes a password.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use roxmltree::{Document, Node};

use super::error::InvalidGuestXml;
use super::read::invalid;

/// What is shown in the place of a secret.
pub const MASK: &str = "********";

/// Attributes that hold secrets, on any element: those of `<graphics>` do.
const ATTRIBUTES: [&str; 2] = ["passwd", "password"];
/// Elements whose text is a secret: cookies of disks on web servers, and what others may put there. A `<secret>` of a disk
/// names a secret and holds none; it has no text.
const ELEMENTS: [&str; 4] = ["cookie", "secret", "passwd", "password"];

/// A secret in a definition.
struct Secret<'a, 'input> {
    /// Elements from the root on with their types, for example `domain/devices/graphics[vnc]@passwd`.
    place: String,
    /// Where it stands in the text.
    range: Range<usize>,
    value: &'a str,
    element: Node<'a, 'input>,
}

/// The definition without its secrets. One that is not well-formed and may hold any is not shown at all.
pub fn mask(xml: &str) -> Cow<'_, str> {
    if !may_hold_secrets(xml) {
        return Cow::Borrowed(xml);
    }
    let Ok(document) = Document::parse(xml) else {
        return Cow::Borrowed("");
    };
    let edits: Vec<_> = secrets(&document)
        .into_iter()
        .map(|secret| (secret.range, MASK.to_owned()))
        .collect();
    Cow::Owned(replaced(xml, edits))
}

/// `new` with the secrets of `present` in the place of masks; `present` is `None` where nothing is defined yet.
///
/// # Errors
/// [`InvalidGuestXml`] for a mask whose secret is not to be found, or when `new` is not well-formed.
pub fn unmask<'a>(new: &'a str, present: Option<&str>) -> Result<Cow<'a, str>, InvalidGuestXml> {
    fill(new, present, None)
}

/// As [`unmask`], with `otherwise` for every mask whose secret is not to be found. What is not well-formed stays as it is.
pub fn unmask_or<'a>(new: &'a str, present: Option<&str>, otherwise: &str) -> Cow<'a, str> {
    fill(new, present, Some(otherwise)).unwrap_or(Cow::Borrowed(new))
}

fn fill<'a>(
    new: &'a str,
    present: Option<&str>,
    otherwise: Option<&str>,
) -> Result<Cow<'a, str>, InvalidGuestXml> {
    if !new.contains(MASK) {
        return Ok(Cow::Borrowed(new));
    }
    let document = Document::parse(new).map_err(|error| InvalidGuestXml::Syntax(error.to_string()))?;
    let known = present
        .and_then(|present| Document::parse(present).ok())
        .map(|present| values(&present))
        .unwrap_or_default();
    let mut places: BTreeMap<String, Vec<Secret<'_, '_>>> = BTreeMap::new();
    for secret in secrets(&document) {
        places.entry(secret.place.clone()).or_default().push(secret);
    }
    let mut edits = Vec::new();
    for (place, new) in places {
        let present = known.get(&place).map(Vec::as_slice).unwrap_or_default();
        let alike = present.windows(2).all(|pair| pair.first() == pair.last());
        let paired = present.len() == new.len();
        for (index, secret) in new
            .into_iter()
            .enumerate()
            .filter(|(_, secret)| secret.value == MASK)
        {
            let found = match present.first() {
                Some(_) if paired => present.get(index).map(String::as_str),
                Some(first) if alike => Some(first.as_str()),
                Some(_) | None => otherwise,
            };
            let Some(found) = found else {
                return Err(invalid(
                    secret.element,
                    place,
                    MASK,
                    "that stands for a secret which is not shown, and the present definition does not tell which one: \
                     give the secret itself",
                ));
            };
            edits.push((secret.range, escaped(found)));
        }
    }
    Ok(Cow::Owned(replaced(new, edits)))
}

/// A quick look that is right about every definition without any.
fn may_hold_secrets(xml: &str) -> bool {
    xml.contains("passw")
        || xml.contains("cookie")
        // `<secret .../>` of a disk on Ceph is in nearly every definition.
        || xml.split("<secret").skip(1).any(|rest| {
            let tag = rest.split('>').next().unwrap_or_default();
            !tag.ends_with('/')
        })
}

fn secrets<'a, 'input>(document: &'a Document<'input>) -> Vec<Secret<'a, 'input>> {
    let mut found = Vec::new();
    for element in document.descendants().filter(Node::is_element) {
        let name = element.tag_name().name();
        for attribute in element.attributes() {
            if ATTRIBUTES.contains(&attribute.name()) {
                found.push(Secret {
                    place: format!("{}@{}", place(element), attribute.name()),
                    range: attribute.range_value(),
                    value: attribute.value(),
                    element,
                });
            }
        }
        if ELEMENTS.contains(&name) {
            for text in element.children().filter(Node::is_text) {
                let value = text.text().unwrap_or_default();
                if !value.trim().is_empty() {
                    found.push(Secret {
                        place: place(element),
                        range: text.range(),
                        value,
                        element,
                    });
                }
            }
        }
    }
    found
}

fn values(document: &Document<'_>) -> BTreeMap<String, Vec<String>> {
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for secret in secrets(document) {
        values
            .entry(secret.place)
            .or_default()
            .push(secret.value.to_owned());
    }
    values
}

fn place(element: Node<'_, '_>) -> String {
    let mut parts: Vec<String> = element
        .ancestors()
        .filter(Node::is_element)
        .map(|node| match node.attribute("type") {
            Some(kind) => format!("{}[{kind}]", node.tag_name().name()),
            None => node.tag_name().name().to_owned(),
        })
        .collect();
    parts.reverse();
    parts.join("/")
}

/// `text` with each range replaced. Ranges do not overlap.
fn replaced(text: &str, mut edits: Vec<(Range<usize>, String)>) -> String {
    edits.sort_by_key(|(range, _)| range.start);
    let mut result = String::with_capacity(text.len());
    let mut at = 0;
    for (range, new) in edits {
        result.push_str(text.get(at..range.start).unwrap_or_default());
        result.push_str(&new);
        at = range.end;
    }
    result.push_str(text.get(at..).unwrap_or_default());
    result
}

/// A value as it may stand in an attribute, between either quotes, and in a text.
fn escaped(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for letter in value.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\n' => escaped.push_str("&#10;"),
            '\r' => escaped.push_str("&#13;"),
            '\t' => escaped.push_str("&#9;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn guest(devices: &str) -> String {
        format!("<domain type='kvm'><name>a</name><devices>{devices}</devices></domain>")
    }

    const VNC: &str =
        "<graphics type='vnc' port='-1' passwd='it&apos;s \"x\"' passwdValidTo='2030-01-01T00:00:00'/>";
    const SPICE: &str = "<graphics type=\"spice\" passwd=\"other\"/>";

    #[test]
    fn nothing_that_lets_somebody_in_is_shown() {
        let disk = "<disk type='network'><auth username='libvirt'><secret type='ceph' uuid='u'/></auth>\
                    <source protocol='http'><cookies><cookie name='a'>hunter2</cookie></cookies></source></disk>";
        let xml = guest(&format!("{VNC}{SPICE}{disk}<secret><x/>hunter3</secret>"));
        let masked = mask(&xml);
        for secret in ["it&apos;s", "other", "hunter2", "hunter3"] {
            assert!(!masked.contains(secret), "{masked}");
        }
        assert_eq!(masked.matches(MASK).count(), 4, "{masked}");
        // All else is as it was.
        assert!(
            masked.contains("<secret type='ceph' uuid='u'/>") && masked.contains("port='-1' passwd='***")
        );
        assert_eq!(
            unmask(&masked, Some(&xml)).unwrap(),
            xml.replace("\"x\"", "&quot;x&quot;")
        );
        // What can't be read could hold anything.
        assert_eq!(mask("<domain><graphics passwd='x'"), "");
        let plain = guest("<auth><secret type='ceph' uuid='u'/></auth>");
        assert!(matches!(mask(&plain), Cow::Borrowed(same) if same == plain));
    }

    // A mask that became a password would let in whoever has seen a definition.
    #[test]
    fn a_mask_is_the_secret_of_the_same_place_or_refused() {
        let mask_of = |kind: &str| format!("<graphics type='{kind}' passwd='{MASK}'/>");
        let both = guest(&format!("{VNC}{SPICE}"));
        // In another order, and one of them gone.
        let turned = guest(&format!("{}{}", mask_of("spice"), mask_of("vnc")));
        let back = unmask(&turned, Some(&both)).unwrap();
        assert!(
            back.contains("<graphics type='spice' passwd='other'/><graphics type='vnc' passwd='it&apos;s &quot;x&quot;'/>"),
            "{back}"
        );
        let one = guest(&mask_of("spice"));
        assert!(unmask(&one, Some(&both)).unwrap().contains("passwd='other'"));
        // A new one beside it.
        let new = guest(&format!(
            "{}<graphics type='vnc' passwd='mine'/>",
            mask_of("spice")
        ));
        let new = unmask(&new, Some(&both)).unwrap();
        assert!(new.contains("'mine'") && new.contains("'other'"), "{new}");
        for (wrong, present) in [
            (&one, None),
            (&one, Some(guest(VNC))),
            (&one, Some("<broken".to_owned())),
            // Which of two it was can not be told.
            (
                &one,
                Some(guest(
                    "<graphics type='spice' passwd='a'/><graphics type='spice' passwd='b'/>",
                )),
            ),
        ] {
            let error = unmask(wrong, present.as_deref()).unwrap_err();
            assert!(error.to_string().contains("graphics[spice]@passwd"), "{error}");
            let filled = unmask_or(wrong, present.as_deref(), "random");
            assert!(filled.contains("passwd='random'"), "{filled}");
        }
        // Elsewhere it is text like any other.
        let title = format!("<domain><title>{MASK}</title></domain>");
        assert_eq!(unmask(&title, None).unwrap(), title);
    }

    proptest! {
        #[test]
        fn what_was_shown_and_is_sent_back_changes_nothing(
            passwords in prop::collection::vec("[ -~\u{e9}]{1,12}", 0..4),
        ) {
            let devices: String = passwords
                .iter()
                .map(|password| format!("<graphics type='vnc' passwd='{}'/>", escaped(password)))
                .collect();
            let xml = guest(&devices);
            let masked = mask(&xml).into_owned();
            prop_assert_eq!(masked.matches(MASK).count(), passwords.len());
            prop_assert_eq!(unmask(&masked, Some(&xml)).unwrap(), xml);
        }
    }
}

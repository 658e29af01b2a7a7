//! The `limit` of lists: a regular expression over names.

use regex::bytes::{Regex, RegexBuilder};

use crate::error::ApiError;

/// Bytes that a compiled expression may take: enough for a list of hundreds of names, and little enough that ten thousand names
/// are compared with it in some milliseconds. It is compiled anew for each request.
const SIZE_LIMIT: usize = 64 * 1024;

/// How long an expression may be, in bytes: as long as one that still fits compiled.
const LENGTH_LIMIT: usize = 4096;

/// A filter over names, as PVC 1.0.3 reads it: `.*` is put before and after unless the expression says `^` or `$`
/// there; then the whole name has to match.
#[derive(Debug, Clone)]
pub(crate) struct NameFilter(Regex);

impl NameFilter {
    /// The filter that a client asked for in parameter `limit`; nothing or an empty text is no filter.
    pub(crate) fn parse(limit: Option<&str>) -> Result<Option<NameFilter>, ApiError> {
        let Some(limit) = limit.filter(|limit| !limit.is_empty()) else {
            return Ok(None);
        };
        if limit.len() > LENGTH_LIMIT {
            return Err(ApiError::invalid(
                "limit",
                format!("it is longer than {LENGTH_LIMIT} bytes"),
            ));
        }
        let before = if limit.starts_with('^') { "" } else { ".*" };
        let after = if limit.ends_with('$') { "" } else { ".*" };
        RegexBuilder::new(&format!("^(?:{before}(?:{limit}){after})$"))
            // Names are ASCII. A `\w` of all scripts takes fifty kilobytes and one of ASCII a hundred bytes.
            .unicode(!limit.is_ascii())
            .size_limit(SIZE_LIMIT)
            .build()
            .map(|regex| Some(NameFilter(regex)))
            .map_err(|error| refused(limit, &error))
    }

    /// Whether `name` matches.
    pub(crate) fn matches(&self, name: &str) -> bool {
        self.0.is_match(name.as_bytes())
    }
}

fn refused(limit: &str, error: &regex::Error) -> ApiError {
    if let regex::Error::CompiledTooBig(_) = error {
        return ApiError::invalid(
            "limit",
            format!(
                "{limit:?} is too large: compiled it takes more than {} KiB. Repeat less often in it, or name fewer",
                SIZE_LIMIT / 1024
            ),
        );
    }
    // A syntax error quotes the expression over several lines; the last one says what is wrong.
    let text = error.to_string();
    let reason = text.lines().last().unwrap_or_default().trim();
    ApiError::invalid(
        "limit",
        format!("{limit:?} is not a regular expression: {reason}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(limit: &str, name: &str) -> bool {
        NameFilter::parse(Some(limit)).unwrap().unwrap().matches(name)
    }

    #[test]
    fn a_limit_matches_anywhere_unless_it_is_anchored() {
        assert!(check("eb", "web1"));
        assert!(check("^web", "web1"));
        assert!(!check("^eb", "web1"));
        assert!(check("eb1$", "web1") && !check("eb1$", "web12"));
        assert!(check("^web1$", "web1") && !check("^web1$", "web12"));
        assert!(check("a|b", "xbx"));
        assert!(NameFilter::parse(None).unwrap().is_none());
        assert!(NameFilter::parse(Some("")).unwrap().is_none());
    }

    // A few requests with an expression that takes a second would keep a server of two threads from everything else.
    #[test]
    fn an_expression_that_would_take_long_is_refused_and_what_people_write_is_not() {
        let large = NameFilter::parse(Some("a{9999}")).unwrap_err();
        assert!(large.message.contains("more than 64 KiB"), "{large}");
        let long = NameFilter::parse(Some(&"a".repeat(LENGTH_LIMIT + 1))).unwrap_err();
        assert!(long.message.contains("longer than"), "{long}");
        let names: Vec<String> = (0..200).map(|number| format!("vm{number:03}")).collect();
        for (good, name) in [
            (names.join("|").as_str(), "vm117"),
            (r"^\w{1,20}-\d{4}$", "web-0001"),
            (r"(?i)WEB-[a-z]+", "web-a"),
            (r"^[^-]+-[^-]+-[^-]+$", "a-b-c"),
            ("zürich|wien", "zürich1"),
        ] {
            assert!(check(good, name), "{good}");
        }
    }

    #[test]
    fn a_bad_expression_is_refused_by_parameter() {
        for bad in ["(", "a{9999999}", "*"] {
            let error = NameFilter::parse(Some(bad));
            if let Err(error) = error {
                assert!(error.message.contains("'limit'"), "{error}");
                assert!(!error.message.contains('\n'), "{error}");
            } else {
                assert_eq!(
                    bad, "*",
                    "`.**` is a repetition of a repetition, which this engine takes"
                );
            }
        }
    }
}

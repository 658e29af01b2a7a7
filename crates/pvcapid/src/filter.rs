//! The `limit` of lists: a regular expression over names.

use regex::{Regex, RegexBuilder};

use crate::error::ApiError;

/// Bytes that a compiled expression may take: enough for a list of hundreds of names.
const SIZE_LIMIT: usize = 1024 * 1024;

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
        let before = if limit.starts_with('^') { "" } else { ".*" };
        let after = if limit.ends_with('$') { "" } else { ".*" };
        RegexBuilder::new(&format!("^(?:{before}(?:{limit}){after})$"))
            .size_limit(SIZE_LIMIT)
            .build()
            .map(|regex| Some(NameFilter(regex)))
            .map_err(|error| {
                // A syntax error quotes the expression over several lines; the last one says what is wrong.
                let text = error.to_string();
                let reason = text.lines().last().unwrap_or_default().trim();
                ApiError::invalid(
                    "limit",
                    format!("{limit:?} is not a regular expression: {reason}"),
                )
            })
    }

    /// Whether `name` matches.
    pub(crate) fn matches(&self, name: &str) -> bool {
        self.0.is_match(name)
    }
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

//! The difference between two texts, line by line.

/// A line of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line<'a> {
    /// In both.
    Same(&'a str),
    /// Only in the old text.
    Removed(&'a str),
    /// Only in the new text.
    Added(&'a str),
}

/// How much is compared: lines of the one times lines of the other, between what is the same at the beginning and at the end.
/// Guests' definitions have some hundred lines of which a few differ. It takes four bytes each.
const MOST_CELLS: usize = 1_000_000;

/// How `new` differs from `old`: the longest common subsequence of lines stays. Where texts differ from each other in so much that
/// to find it would take long, all between their common ends is removed and added.
pub fn lines<'a>(old: &'a str, new: &'a str) -> Vec<Line<'a>> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let equal = |pair: &(&&str, &&str)| pair.0 == pair.1;
    let before = old.iter().zip(&new).take_while(equal).count();
    let (same, old) = old.split_at(before);
    let new = new.get(before..).unwrap_or_default();
    let after = old.iter().rev().zip(new.iter().rev()).take_while(equal).count();
    let (old, rest) = old.split_at(old.len() - after);
    let new = new.get(..new.len() - after).unwrap_or_default();
    let mut found: Vec<Line<'a>> = same.iter().map(|line| Line::Same(line)).collect();
    between(old, new, &mut found);
    found.extend(rest.iter().map(|line| Line::Same(line)));
    found
}

fn between<'a>(mut old: &[&'a str], mut new: &[&'a str], found: &mut Vec<Line<'a>>) {
    let width = new.len() + 1;
    let cells = (old.len() + 1).saturating_mul(width);
    if cells <= MOST_CELLS {
        // At i * width + j: length of the longest common subsequence of old[i..] and new[j..].
        let mut common = vec![0_u32; cells];
        let at = |common: &[u32], i: usize, j: usize| common.get(i * width + j).copied().unwrap_or(0);
        for (i, one) in old.iter().enumerate().rev() {
            for (j, other) in new.iter().enumerate().rev() {
                let length = if one == other {
                    at(&common, i + 1, j + 1) + 1
                } else {
                    at(&common, i + 1, j).max(at(&common, i, j + 1))
                };
                if let Some(cell) = common.get_mut(i * width + j) {
                    *cell = length;
                }
            }
        }
        let (mut i, mut j) = (0, 0);
        while let (Some((one, old_rest)), Some((other, new_rest))) = (old.split_first(), new.split_first()) {
            if one == other {
                found.push(Line::Same(one));
                (old, i) = (old_rest, i + 1);
                (new, j) = (new_rest, j + 1);
            } else if at(&common, i + 1, j) >= at(&common, i, j + 1) {
                found.push(Line::Removed(one));
                (old, i) = (old_rest, i + 1);
            } else {
                found.push(Line::Added(other));
                (new, j) = (new_rest, j + 1);
            }
        }
    }
    found.extend(old.iter().map(|line| Line::Removed(line)));
    found.extend(new.iter().map(|line| Line::Added(line)));
}

/// The unified difference of two texts with `context` unchanged lines around what has changed, as `diff -U` and Python's
/// `difflib` write it; nothing if nothing differs. The two names stand in its head.
pub fn unified(old: (&str, &str), new: (&str, &str), context: usize) -> Vec<String> {
    let ((old_name, old), (new_name, new)) = (old, new);
    if old == new {
        return Vec::new();
    }
    let all = lines(old, new);
    let changed: Vec<usize> = (0..all.len())
        .filter(|place| !matches!(all.get(*place), Some(Line::Same(_))))
        .collect();
    let mut hunks: Vec<(usize, usize)> = Vec::new();
    for place in changed {
        let (from, to) = (
            place.saturating_sub(context),
            (place + context + 1).min(all.len()),
        );
        match hunks.last_mut() {
            Some((_, end)) if from <= *end => *end = to,
            Some(_) | None => hunks.push((from, to)),
        }
    }
    if hunks.is_empty() {
        return Vec::new();
    }
    let mut text = vec![format!("--- {old_name}"), format!("+++ {new_name}")];
    for (from, to) in hunks {
        let (before, hunk) = (
            all.get(..from).unwrap_or_default(),
            all.get(from..to).unwrap_or_default(),
        );
        text.push(format!(
            "@@ -{} +{} @@",
            range(count(before, is_old), count(hunk, is_old)),
            range(count(before, is_new), count(hunk, is_new)),
        ));
        text.extend(hunk.iter().map(|line| match line {
            Line::Same(line) => format!(" {line}"),
            Line::Removed(line) => format!("-{line}"),
            Line::Added(line) => format!("+{line}"),
        }));
    }
    text
}

fn count(lines: &[Line<'_>], of: fn(&Line<'_>) -> bool) -> usize {
    lines.iter().filter(|line| of(line)).count()
}

fn is_old(line: &Line<'_>) -> bool {
    matches!(line, Line::Same(_) | Line::Removed(_))
}

fn is_new(line: &Line<'_>) -> bool {
    matches!(line, Line::Same(_) | Line::Added(_))
}

/// Where a hunk stands: its first line, counted from 1, and how many it has. An empty one stands after a line.
fn range(before: usize, count: usize) -> String {
    match count {
        0 => format!("{before},0"),
        1 => format!("{}", before + 1),
        _ => format!("{},{count}", before + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_shows_what_was_removed_and_added() {
        let found = lines("a\nb\nc\nd", "a\nx\nc\nd\ne");
        assert_eq!(
            found,
            [
                Line::Same("a"),
                Line::Removed("b"),
                Line::Added("x"),
                Line::Same("c"),
                Line::Same("d"),
                Line::Added("e")
            ]
        );
        let same = lines("a\nb", "a\nb");
        assert_eq!(same, [Line::Same("a"), Line::Same("b")]);
        assert_eq!(lines("a", "a\na"), [Line::Same("a"), Line::Added("a")]);
        assert_eq!(lines("", "a"), [Line::Added("a")]);
    }

    // A snapshot of a wholly different definition must not keep the daemon busy whenever the guest is looked at.
    #[test]
    fn texts_that_have_nothing_in_common_are_not_compared_for_long() {
        let text = |word: &str| -> String { (0..5000).map(|number| format!("{word}{number}\n")).collect() };
        let (old, new) = (text("a"), text("b"));
        let found = lines(&old, &new);
        assert_eq!(found.len(), 10_000);
        assert_eq!(found.first(), Some(&Line::Removed("a0")));
        assert_eq!(found.last(), Some(&Line::Added("b4999")));
    }

    // As `difflib.unified_diff(..., n=1, lineterm="")` of Python writes it.
    #[test]
    fn a_unified_difference_is_as_other_programs_write_it() {
        let unified = |old: &str, new: &str| super::unified(("old", old), ("new", new), 1);
        assert_eq!(
            unified("a\nb\nc\nd\ne\nf\ng", "a\nx\nc\nd\ne\nf\ng\nh"),
            [
                "--- old",
                "+++ new",
                "@@ -1,3 +1,3 @@",
                " a",
                "-b",
                "+x",
                " c",
                "@@ -7 +7,2 @@",
                " g",
                "+h"
            ]
        );
        // Between two changes stand no more lines than are shown around each: one hunk.
        assert_eq!(
            unified("a\nb\nc\nd", "x\nb\nc\ny"),
            [
                "--- old",
                "+++ new",
                "@@ -1,4 +1,4 @@",
                "-a",
                "+x",
                " b",
                " c",
                "-d",
                "+y"
            ]
        );
        assert_eq!(
            unified("", "a\nb"),
            ["--- old", "+++ new", "@@ -0,0 +1,2 @@", "+a", "+b"]
        );
        assert!(unified("a\nb", "a\nb").is_empty());
        assert!(unified("a\n", "a").is_empty(), "it is about lines");
    }
}

//! The difference between two texts, line by line.

/// A line of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// In both.
    Same(&'a str),
    /// Only in the old text.
    Removed(&'a str),
    /// Only in the new text.
    Added(&'a str),
}

/// How `new` differs from `old`: the longest common subsequence of lines stays. A definition has some hundred lines,
/// so the square of that is nothing.
pub(crate) fn lines<'a>(old: &'a str, new: &'a str) -> Vec<Line<'a>> {
    let old: Vec<&str> = old.lines().collect();
    let new: Vec<&str> = new.lines().collect();
    let width = new.len() + 1;
    // common[i * width + j]: length of the longest common subsequence of old[i..] and new[j..].
    let mut common = vec![0_u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i * width + j] = if old[i] == new[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut found = Vec::new();
    while i < old.len() && j < new.len() {
        if old[i] == new[j] {
            found.push(Line::Same(old[i]));
            i += 1;
            j += 1;
        } else if common[(i + 1) * width + j] >= common[i * width + j + 1] {
            found.push(Line::Removed(old[i]));
            i += 1;
        } else {
            found.push(Line::Added(new[j]));
            j += 1;
        }
    }
    found.extend(old[i..].iter().map(|line| Line::Removed(line)));
    found.extend(new[j..].iter().map(|line| Line::Added(line)));
    found
}

/// Whether nothing differs.
pub(crate) fn is_same(changes: &[Line<'_>]) -> bool {
    changes.iter().all(|line| matches!(line, Line::Same(_)))
}

/// The changed lines with `context` unchanged ones around them, coloured; `...` stands for what is left out.
pub(crate) fn render(lines: &[Line<'_>], context: usize) -> String {
    let near = |index: usize| {
        let from = index.saturating_sub(context);
        let to = (index + context + 1).min(lines.len());
        lines[from..to].iter().any(|line| !matches!(line, Line::Same(_)))
    };
    let mut text = String::new();
    let mut skipping = false;
    for (index, line) in lines.iter().enumerate() {
        if !near(index) {
            if !skipping {
                text.push_str("...\n");
            }
            skipping = true;
            continue;
        }
        skipping = false;
        match line {
            Line::Same(same) => text.push_str(&format!("  {same}\n")),
            Line::Removed(removed) => text.push_str(&format!("\x1b[31m- {removed}\x1b[0m\n")),
            Line::Added(added) => text.push_str(&format!("\x1b[32m+ {added}\x1b[0m\n")),
        }
    }
    text
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
        assert!(
            lines("a\nb", "a\nb")
                .iter()
                .all(|line| matches!(line, Line::Same(_)))
        );
        assert!(render(&lines("1\n2\n3\n4\n5\n6\nx", "1\n2\n3\n4\n5\n6\ny"), 1).starts_with("...\n  6\n"));
    }
}

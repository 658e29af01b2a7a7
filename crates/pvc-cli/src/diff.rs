//! The difference between two texts, as it is shown.

pub(crate) use pvc_core::diff::{Line, lines};

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
    fn what_is_far_from_any_change_is_left_out() {
        assert!(render(&lines("1\n2\n3\n4\n5\n6\nx", "1\n2\n3\n4\n5\n6\ny"), 1).starts_with("...\n  6\n"));
    }
}

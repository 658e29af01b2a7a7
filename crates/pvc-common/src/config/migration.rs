//! How guests are moved between nodes.

use pvc_core::states::NodeSelector;

use super::section::Section;

/// Reads the `migration` section: by what a node is chosen for a guest that names no rule of its own.
pub(super) fn read(section: &mut Section<'_>) -> NodeSelector {
    section.or("target_selector", NodeSelector::Mem)
}

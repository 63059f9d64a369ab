//! Small tables for people: columns aligned, no frame, cut to the terminal.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::on_terminal;

/// A terminal narrower than this cannot show a table, so its width is no reason to break lines.
const NARROWEST: u16 = 40;

/// Rows of text under a header; `numeric` columns are aligned to the right.
pub(super) fn table(header: &[&str], numeric: &[usize], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    // In a pipe, lines are as long as they need to be.
    let arrangement = if on_terminal() { ContentArrangement::Dynamic } else { ContentArrangement::Disabled };
    table.set_content_arrangement(arrangement);
    // Some pseudo-terminals say that they have no columns at all.
    if table.width().is_some_and(|columns| columns < NARROWEST) {
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    for row in rows {
        table.add_row(row);
    }
    for &column in numeric {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

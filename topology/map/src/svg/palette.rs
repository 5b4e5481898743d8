//! Colours, readable on their own light ground whatever the page around is.

use super::piece::Font;
use crate::view::Role;

pub(super) const INK: &str = "#1f2937";
pub(super) const MUTED: &str = "#6b7280";
pub(super) const PAGE: (&str, &str) = ("#f8fafc", "#cbd5e1");
pub(super) const PACKAGE: (&str, &str) = ("#eef2f7", "#cbd5e1");
pub(super) const NODE: (&str, &str) = ("#ffffff", "#b6c2d1");
pub(super) const CACHE: (&str, &str) = ("#f1f5f9", "#e2e8f0");
pub(super) const CORE: (&str, &str) = ("#e2e8f0", "none");

pub(super) const TITLE: Font = Font { size: 20, fill: INK, class: "b" };
pub(super) const HEADING: Font = Font { size: 14, fill: INK, class: "b" };
pub(super) const TEXT: Font = Font { size: 12, fill: INK, class: "t" };
pub(super) const NOTE: Font = Font { size: 12, fill: MUTED, class: "t" };

/// Fill and text colour of guests; told apart in grey and by the colour-blind by their letters.
const GUESTS: [(&str, &str); 8] = [
    ("#2563eb", "#ffffff"),
    ("#d97706", "#ffffff"),
    ("#059669", "#ffffff"),
    ("#c026d3", "#ffffff"),
    ("#dc2626", "#ffffff"),
    ("#0891b2", "#ffffff"),
    ("#7c3aed", "#ffffff"),
    ("#65a30d", "#ffffff"),
];

/// Fill and text colour of a guest.
pub(super) fn guest(guest: usize) -> (&'static str, &'static str) {
    GUESTS.get(guest % GUESTS.len()).copied().unwrap_or((MUTED, "#ffffff"))
}

/// Fill, border and text colour of a CPU.
pub(super) fn role(role: Role) -> (&'static str, &'static str, &'static str) {
    match role {
        Role::Housekeeping => ("#cbd5e1", "#94a3b8", "#334155"),
        Role::Dedicated(of) => (guest(of).0, guest(of).0, guest(of).1),
        Role::Io(of) => ("#ffffff", guest(of).0, guest(of).0),
        Role::Idle(of) => ("#f8fafc", guest(of).0, MUTED),
        Role::Shared(of) => ("#fef9c3", of.map_or("#ca8a04", |of| guest(of).0), "#854d0e"),
        Role::Isolated => ("#ecfeff", "#67c5d3", "#0e7490"),
        Role::Free => ("#ffffff", "#cbd5e1", "#94a3b8"),
    }
}

//! Versions, newest first. Source: UAPI Group's version format specification.

use std::cmp::Ordering;

/// Compares two versions: numbers by their value, letters by theirs; `~` is before all, even the end.
///
/// 1. What is neither letter, digit nor one of `~ - ^ .` is left out.
/// 2. `~` makes older, then the end of a version, then `-`, `^` and `.`.
/// 3. Numbers are newer than letters.
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (Rest(a.as_bytes()), Rest(b.as_bytes()));
    loop {
        a.skip_other();
        b.skip_other();
        for mark in [b'~', b'\0', b'-', b'^', b'.'] {
            match (a.is_at(mark), b.is_at(mark)) {
                (true, true) if mark == 0 => return Ordering::Equal,
                (true, true) => {
                    a.step();
                    b.step();
                    break;
                }
                (true, false) => return Ordering::Less,
                (false, true) => return Ordering::Greater,
                (false, false) => {}
            }
        }
        let is_number = a.is_digit() || b.is_digit();
        let ordering = if is_number { number(&mut a, &mut b) } else { letters(&mut a, &mut b) };
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn first(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn step(&mut self) {
        self.0 = self.0.get(1..).unwrap_or_default();
    }

    fn is_at(&self, mark: u8) -> bool {
        if mark == 0 { self.0.is_empty() } else { self.first() == Some(mark) }
    }

    fn is_digit(&self) -> bool {
        self.first().is_some_and(|b| b.is_ascii_digit())
    }

    fn skip_other(&mut self) {
        while self.first().is_some_and(|b| !b.is_ascii_alphanumeric() && !b"~-^.".contains(&b)) {
            self.step();
        }
    }

    fn take(&mut self, of: impl Fn(&u8) -> bool) -> &'a [u8] {
        let end = self.0.iter().position(|b| !of(b)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }
}

fn number(a: &mut Rest<'_>, b: &mut Rest<'_>) -> Ordering {
    // The one without a number has letters: older.
    match (a.is_digit(), b.is_digit()) {
        (true, false) => return Ordering::Greater,
        (false, true) => return Ordering::Less,
        _ => {}
    }
    let digits = |rest: &mut Rest<'_>| {
        let _ = rest.take(|b| *b == b'0');
        rest.take(u8::is_ascii_digit).to_vec()
    };
    let (a, b) = (digits(a), digits(b));
    a.len().cmp(&b.len()).then_with(|| a.cmp(&b))
}

fn letters(a: &mut Rest<'_>, b: &mut Rest<'_>) -> Ordering {
    a.take(u8::is_ascii_alphabetic).cmp(b.take(u8::is_ascii_alphabetic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_the_order_of_the_specification() {
        for pair in [("122~rc1", "122"), ("123-1", "123.1"), ("6.1.0-9", "6.1.0-10"), ("5.10.2", "6.1.0")] {
            assert_eq!(compare(pair.0, pair.1), Ordering::Less, "{pair:?}");
            assert_eq!(compare(pair.1, pair.0), Ordering::Greater, "{pair:?}");
        }
        assert_eq!(compare("6.1.0", "6.1.0"), Ordering::Equal);
        assert_eq!(compare("06.1", "6.1"), Ordering::Equal);
    }

    #[test]
    fn every_comparison_ends() {
        for text in ["", "~", "~~", "...", "---", "é", "_", "a~", "1a2b", "\0"] {
            for other in ["", "~", ".", "-", "^", "é1", "a", "1"] {
                assert_eq!(compare(text, other), compare(other, text).reverse(), "{text:?} {other:?}");
            }
        }
    }
}

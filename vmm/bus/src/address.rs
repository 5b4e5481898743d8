//! Address newtypes: swapping two must not compile.

use std::fmt;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident($inner:ty), $format:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl $name {
            /// This address moved up by `offset`; `None` on overflow.
            #[must_use]
            pub const fn checked_add(self, offset: $inner) -> Option<Self> {
                match self.0.checked_add(offset) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
    };
}

address!(
    /// Guest physical address.
    Gpa(u64), "{:#x}"
);
address!(
    /// Host virtual address, of this process.
    Hva(u64), "{:#x}"
);
address!(
    /// x86 I/O port.
    Port(u16), "{:#x}"
);
address!(
    /// Global system interrupt: KVM's number of an interrupt route.
    Gsi(u32), "{}"
);
address!(
    /// KVM memory slot.
    MemSlot(u32), "{}"
);

//! The macros that write a type and its schema from one definition.
//!
//! `object!` makes a struct and `choice!` an enum; each line is one field or word: its Rust
//! name, its name in YAML, its type, how far it is, and what it means. Nothing else in the
//! crate lists fields.

/// Defines objects of the API.
macro_rules! object {
    ($(
        $odoc:literal
        $name:ident {
            $( $field:ident $json:literal : $ty:ty, $status:expr, $doc:literal; )*
        }
    )*) => {$(
        #[doc = $odoc]
        #[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $(
                #[doc = $doc]
                #[serde(rename = $json, skip_serializing_if = "crate::schema::Schema::is_absent")]
                pub $field: $ty,
            )*
        }

        impl crate::schema::Schema for $name {
            const TYPE: crate::schema::Type = crate::schema::Type::Object(&crate::schema::Object {
                name: stringify!($name),
                doc: $odoc,
                fields: &[$(
                    crate::schema::Field {
                        name: $json,
                        doc: $doc,
                        ty: <$ty as crate::schema::Schema>::TYPE,
                        required: <$ty as crate::schema::Schema>::REQUIRED,
                        status: $status,
                    },
                )*],
            });
            const REQUIRED: bool = true;
        }
    )*};
}

/// Defines sets of words. The first word is the default of the type.
macro_rules! choice {
    ($(
        $odoc:literal
        $name:ident {
            $first:ident $ftext:literal, $fstatus:expr, $fdoc:literal;
            $( $word:ident $text:literal, $status:expr, $doc:literal; )*
        }
    )*) => {$(
        #[doc = $odoc]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            #[doc = $fdoc]
            #[default]
            #[serde(rename = $ftext)]
            $first,
            $(
                #[doc = $doc]
                #[serde(rename = $text)]
                $word,
            )*
        }

        impl crate::schema::Schema for $name {
            const TYPE: crate::schema::Type = crate::schema::Type::Choice(&crate::schema::Choice {
                name: stringify!($name),
                doc: $odoc,
                values: &[
                    crate::schema::Word { text: $ftext, status: $fstatus },
                    $( crate::schema::Word { text: $text, status: $status }, )*
                ],
            });
            const REQUIRED: bool = true;
        }
    )*};
}

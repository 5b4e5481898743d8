//! The schema tree: what every field of an object is called, what it holds and how far it is.
//!
//! Written by the `object!` and `choice!` macros next to the types themselves, so that
//! types, checks, documentation and (later) CRDs cannot drift apart. Constant data; read by
//! the reader, the documentation and the tests.

use std::collections::BTreeMap;

use crate::Quantity;

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub enum Type {
    /// `true` or `false`.
    Bool,
    /// Text.
    String,
    /// A 32-bit integer.
    Int32,
    /// A 64-bit integer.
    Int64,
    /// A 32-bit integer that is not negative.
    Uint32,
    /// A 64-bit integer that is not negative.
    Uint64,
    /// A Kubernetes quantity: text or a number.
    Quantity,
    /// An integer or text (ports).
    IntOrString,
    /// One of a fixed set of words.
    Choice(&'static Choice),
    /// Anything; kept as it is.
    Any,
    /// A list of one type.
    List(&'static Type),
    /// A map from text to one type.
    Map(&'static Type),
    /// An object with known fields.
    Object(&'static Object),
}

/// An object: its fields in the order of the documentation.
#[derive(Debug)]
pub struct Object {
    /// Name of the Rust type.
    pub name: &'static str,
    /// What it is.
    pub doc: &'static str,
    /// Its fields.
    pub fields: &'static [Field],
}

/// A field of an object.
#[derive(Debug)]
pub struct Field {
    /// Its name in YAML and JSON.
    pub name: &'static str,
    /// What it means.
    pub doc: &'static str,
    /// What it holds.
    pub ty: Type,
    /// Whether its object is incomplete without it.
    pub required: bool,
    /// How far it is.
    pub status: Status,
}

/// A fixed set of words.
#[derive(Debug)]
pub struct Choice {
    /// Name of the Rust type.
    pub name: &'static str,
    /// What it chooses.
    pub doc: &'static str,
    /// The words.
    pub values: &'static [Word],
}

/// A word of a [`Choice`].
#[derive(Debug)]
pub struct Word {
    /// As written.
    pub text: &'static str,
    /// How far it is.
    pub status: Status,
}

/// Where a guest is to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Place {
    /// On this host, by `pinion run`.
    #[default]
    Host,
    /// On some node of a cluster, in a pod.
    Cluster,
}

/// How far a field, or a word of a choice, is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It does what it says; the text adds what is particular here, and may be empty.
    Works(&'static str),
    /// A boolean of which one value works; why.
    Only(bool, &'static str),
    /// Only QEMU has it, through libvirt: what the native virtual machine monitor has instead.
    Libvirt(&'static str),
    /// A boolean of which the native virtual machine monitor has one value, and QEMU both; why.
    NativeOnly(bool, &'static str),
    /// It does what it says in a cluster: what to do on one host.
    Cluster(&'static str),
    /// A boolean of which one host has one value, and a cluster both; why.
    ClusterBoth(bool, &'static str),
    /// It does what it says on one host: what to do in a cluster.
    Host(&'static str),
    /// It will not be done; why, and what to use instead.
    Refused(&'static str),
    /// It is not done yet; what to do until then.
    Planned(&'static str),
    /// Part of an object that is refused or planned as a whole.
    Part,
    /// Written by the system; accepted in a dump and not read.
    System(&'static str),
}

impl Status {
    /// What it comes to at a place: there it works, or is missing.
    #[must_use]
    pub const fn at(self, place: Place) -> Self {
        match (self, place) {
            (Self::ClusterBoth(value, why), Place::Host) => Self::Only(value, why),
            (Self::Cluster(_) | Self::ClusterBoth(..), Place::Cluster) | (Self::Host(_), Place::Host) => {
                Self::Works("")
            }
            _ => self,
        }
    }
}

impl Object {
    /// The field of that name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// A Rust type that stands for a field of the API.
pub trait Schema {
    /// What it holds.
    const TYPE: Type;
    /// Whether a field of this type must be given.
    const REQUIRED: bool = false;

    /// Whether it is left out when written.
    fn is_absent(&self) -> bool {
        false
    }
}

macro_rules! scalar {
    ($($rust:ty => $variant:ident),* $(,)?) => {
        $(impl Schema for $rust {
            const TYPE: Type = Type::$variant;
            const REQUIRED: bool = true;
        })*
    };
}

scalar! {
    bool => Bool,
    String => String,
    i32 => Int32,
    i64 => Int64,
    u32 => Uint32,
    u64 => Uint64,
    Quantity => Quantity,
    serde_json::Value => Any,
}

/// An integer or text: a port by number or name.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum IntOrString {
    /// A number.
    Int(i64),
    /// A name.
    Text(String),
}

impl Default for IntOrString {
    fn default() -> Self {
        Self::Int(0)
    }
}

impl Schema for IntOrString {
    const TYPE: Type = Type::IntOrString;
    const REQUIRED: bool = true;
}

impl<T: Schema> Schema for Option<T> {
    const TYPE: Type = T::TYPE;

    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

impl<T: Schema> Schema for Box<T> {
    const TYPE: Type = T::TYPE;
    const REQUIRED: bool = T::REQUIRED;
}

impl<T: Schema> Schema for Vec<T> {
    const TYPE: Type = Type::List(&T::TYPE);

    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

impl<T: Schema> Schema for BTreeMap<String, T> {
    const TYPE: Type = Type::Map(&T::TYPE);

    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

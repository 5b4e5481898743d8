//! Documents that are made from the schema itself: one that has a field, wherever that is.

use pinion_api::FieldPath;
use pinion_api::schema::Type;
use serde_json::{Value, json};

/// A value of a type that asks for something.
pub(crate) fn some(ty: &Type) -> Value {
    match *ty {
        Type::Bool => json!(true),
        Type::String => json!("x"),
        Type::Int32 | Type::Int64 | Type::Uint32 | Type::Uint64 | Type::IntOrString => json!(1),
        Type::Quantity => json!("1Gi"),
        Type::Choice(choice) => json!(choice.values[0].text),
        Type::Any => json!({"x": 1}),
        Type::List(item) => json!([some(item)]),
        Type::Map(item) => json!({"x": some(item)}),
        Type::Object(object) => {
            let required = object.fields.iter().filter(|field| field.required);
            required.map(|field| (field.name.to_owned(), some(&field.ty))).collect()
        }
    }
}

/// Puts a value at a path such as `spec.volumes[].hostDisk`; returns where it is.
pub(crate) fn put(document: &mut Value, root: &Type, path: &str, value: Value) -> FieldPath {
    let mut place = FieldPath::root();
    let (mut at, mut ty) = (document, *root);
    let steps: Vec<&str> = path.split('.').collect();
    for (number, step) in steps.iter().enumerate() {
        let name = step.trim_end_matches("[]");
        let field_type = match ty {
            Type::Object(object) => object.field(name).expect(path).ty,
            Type::Map(item) => *item,
            _ => panic!("{path} leads through a scalar"),
        };
        let key = if name == "*" { "x" } else { name };
        place = place.key(key);
        let map = at.as_object_mut().expect(path);
        if number + 1 == steps.len() {
            map.insert(key.to_owned(), value);
            return place;
        }
        at = map.entry(key).or_insert_with(|| some(&field_type));
        ty = field_type;
        while let (true, Type::List(item)) = (at.is_array(), ty) {
            let items = at.as_array_mut().unwrap();
            if items.is_empty() {
                items.push(some(item));
            }
            at = &mut items[0];
            place = place.index(0);
            ty = *item;
        }
    }
    unreachable!("a path has at least one step")
}

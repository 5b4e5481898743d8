//! Prints `docs/kubevirt-compatibility.md`.

fn main() {
    print!("{}", pinion_api::compatibility_markdown());
}

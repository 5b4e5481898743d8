//! Prints `docs/metrics.md`.

fn main() {
    print!("{}", pinion_launcher::metrics::markdown_page());
}

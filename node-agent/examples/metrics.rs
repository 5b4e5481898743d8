//! Prints `docs/node-metrics.md`.

fn main() {
    print!("{}", pinion_node_agent::metrics_page());
}

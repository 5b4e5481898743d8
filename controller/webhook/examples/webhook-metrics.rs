//! Prints `docs/webhook-metrics.md`.

fn main() {
    print!("{}", pinion_webhook::metrics_page());
}

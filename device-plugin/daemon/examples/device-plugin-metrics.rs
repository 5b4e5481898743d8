//! Prints `docs/device-plugin-metrics.md`.

fn main() {
    print!("{}", pinion_device_plugin_daemon::metrics_page());
}

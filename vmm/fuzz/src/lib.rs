//! What the fuzz targets share: steps of a hostile driver, disk images.

pub mod image;
pub mod queue;

use vmm_event_loop::EventLoop;

/// Serves a loop for a bounded number of rounds: a hostile driver may keep it busy for ever.
pub fn serve(event_loop: &EventLoop) {
    for _ in 0..16 {
        if event_loop.serve_ready().unwrap_or(0) == 0 {
            return;
        }
    }
}

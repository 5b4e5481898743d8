//! The pod that a guest lives in: how it is written, and what it says of itself.

mod render;
mod resources;
mod view;
mod volumes;

pub(crate) use render::USER;
pub use render::{CONTAINER, Launcher, LauncherImages, SPEC_ANNOTATION, launcher_pod, pod_name};
pub use resources::overhead_bytes;
pub use view::{PodPhase, PodTrouble, PodView};

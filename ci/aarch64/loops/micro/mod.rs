//! The daemon's own file, and what it takes from the module above it there.

pub const TILE_MAX: usize = 48 * 8;
pub type Tile = [f32; TILE_MAX];
pub type WideTile = [f64; TILE_MAX];

#[path = "../../../../qera-daemon/src/host/kernels/micro/neon.rs"]
pub mod neon;

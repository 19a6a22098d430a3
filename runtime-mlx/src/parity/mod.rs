//! This engine against mlx-lm on the same weights, and against itself: whatever the batch, the chunks and the cache,
//! a sequence's tokens are its own. The goldens and the scripts that make them: `tests/golden/README.md`.

mod driver;
mod families;
mod files;
mod golden;

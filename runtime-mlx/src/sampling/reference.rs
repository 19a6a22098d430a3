//! The same choices made on the host, plainly and in f64; must not know MLX.

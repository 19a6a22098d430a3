//! The few MLX calls that `mlx-rs` does not offer as one operation; must not know models or caches.
//!
//! The crate's only `unsafe` lies here. Shapes in comments are `[dim, dim]`; every function adds one node to
//! the graph and computes nothing.
#![allow(unsafe_code)]

use std::sync::Once;

use mlx_rs::{Array, Dtype, Stream, error::Exception};

use crate::quantization::Packing;

/// What MLX's operations return.
pub(crate) type Result<T> = std::result::Result<T, Exception>;

/// Runs one MLX call that writes an array to its first argument.
fn op(name: &str, call: impl FnOnce(*mut mlx_sys::mlx_array) -> i32) -> Result<Array> {
    // MLX's own error handler ends the process; any mlx-rs operation replaces it by one that returns.
    static HANDLER: Once = Once::new();
    HANDLER.call_once(|| drop(mlx_rs::ops::zeros_dtype(&[1], Dtype::Float32)));
    // SAFETY: creates an empty handle that owns nothing.
    let mut out = unsafe { mlx_sys::mlx_array_new() };
    let status = call(&mut out);
    // SAFETY: `out` is a handle that this function owns: filled by the call, or still empty if it failed;
    // `Array` frees it exactly once.
    let array = unsafe { Array::from_ptr(out) };
    if status == 0 { Ok(array) } else { Err(Exception::custom(format!("MLX refused the operation {name}"))) }
}

fn stream() -> Stream {
    Stream::thread_local_or_default()
}

/// `a[start..stop]`, one bound per axis.
pub(crate) fn slice(a: &Array, start: &[i32], stop: &[i32]) -> Result<Array> {
    let ones = vec![1; start.len()];
    let s = stream();
    // SAFETY: all pointers are to live arrays of the lengths passed beside them; handles outlive the call.
    op("slice", |out| unsafe {
        mlx_sys::mlx_slice(
            out,
            a.as_ptr(),
            start.as_ptr(),
            start.len(),
            stop.as_ptr(),
            stop.len(),
            ones.as_ptr(),
            ones.len(),
            s.as_ptr(),
        )
    })
}

/// `a` with `a[start..stop] = update`. In place if nobody else holds `a` by the time it is computed.
pub(crate) fn slice_update(a: &Array, update: &Array, start: &[i32], stop: &[i32]) -> Result<Array> {
    let ones = vec![1; start.len()];
    let s = stream();
    // SAFETY: as in `slice`.
    op("slice_update", |out| unsafe {
        mlx_sys::mlx_slice_update(
            out,
            a.as_ptr(),
            update.as_ptr(),
            start.as_ptr(),
            start.len(),
            stop.as_ptr(),
            stop.len(),
            ones.as_ptr(),
            ones.len(),
            s.as_ptr(),
        )
    })
}

/// `a` `[S, H, T, D]` with `a[rows[i], :, columns[i], :] = updates[i]`; `updates` is `[n, 1, H, 1, D]`.
/// In place under the same condition as [`slice_update`].
pub(crate) fn scatter_rows(a: &Array, rows: &Array, columns: &Array, updates: &Array) -> Result<Array> {
    let axes = [0, 2];
    let handles = [rows.as_ptr(), columns.as_ptr()];
    let s = stream();
    // SAFETY: `handles` are live; the vector copies them (counted) and is freed before this function ends.
    op("scatter", |out| unsafe {
        let indices = mlx_sys::mlx_vector_array_new_data(handles.as_ptr(), handles.len());
        let status =
            mlx_sys::mlx_scatter(out, a.as_ptr(), indices, updates.as_ptr(), axes.as_ptr(), axes.len(), s.as_ptr());
        mlx_sys::mlx_vector_array_free(indices);
        status
    })
}

/// Two integer arrays of one type, broadcast: `a >> b`.
pub(crate) fn right_shift(a: &Array, b: &Array) -> Result<Array> {
    let s = stream();
    // SAFETY: handles outlive the call.
    op("right_shift", |out| unsafe { mlx_sys::mlx_right_shift(out, a.as_ptr(), b.as_ptr(), s.as_ptr()) })
}

/// Two integer arrays of one type, broadcast: `a & b`.
pub(crate) fn bitwise_and(a: &Array, b: &Array) -> Result<Array> {
    let s = stream();
    // SAFETY: as in `right_shift`.
    op("bitwise_and", |out| unsafe { mlx_sys::mlx_bitwise_and(out, a.as_ptr(), b.as_ptr(), s.as_ptr()) })
}

/// A matrix in MLX's packed form.
pub(crate) struct Packed {
    /// Values, 32 bits of them in each number.
    pub(crate) values: Array,
    pub(crate) scales: Array,
    pub(crate) biases: Option<Array>,
    pub(crate) packing: Packing,
}

/// Handles that only one call needs: MLX copies what it keeps.
fn optional(array: Option<&Array>) -> mlx_sys::mlx_array {
    // SAFETY: an empty handle owns nothing, so nothing is lost where nobody frees it.
    array.map_or_else(|| unsafe { mlx_sys::mlx_array_new() }, Array::as_ptr)
}

fn some(value: i32) -> mlx_sys::mlx_optional_int {
    mlx_sys::mlx_optional_int { value, has_value: true }
}

/// `x · W`, or `x · Wᵀ` if `transpose`; leading axes are broadcast.
pub(crate) fn quantized_matmul(x: &Array, w: &Packed, transpose: bool) -> Result<Array> {
    let s = stream();
    let Packing { mode, group_size, bits } = w.packing;
    // SAFETY: handles and the mode's name outlive the call.
    op("quantized_matmul", |out| unsafe {
        mlx_sys::mlx_quantized_matmul(
            out,
            x.as_ptr(),
            w.values.as_ptr(),
            w.scales.as_ptr(),
            optional(w.biases.as_ref()),
            transpose,
            some(group_size),
            some(bits),
            mode.name().as_ptr(),
            s.as_ptr(),
        )
    })
}

/// `x[i] · W[experts[i]]ᵀ` over the leading axes.
pub(crate) fn gather_qmm(x: &Array, w: &Packed, experts: &Array, sorted: bool) -> Result<Array> {
    let s = stream();
    let Packing { mode, group_size, bits } = w.packing;
    // SAFETY: as in `quantized_matmul`.
    op("gather_qmm", |out| unsafe {
        mlx_sys::mlx_gather_qmm(
            out,
            x.as_ptr(),
            w.values.as_ptr(),
            w.scales.as_ptr(),
            optional(w.biases.as_ref()),
            optional(None),
            experts.as_ptr(),
            true,
            some(group_size),
            some(bits),
            mode.name().as_ptr(),
            sorted,
            s.as_ptr(),
        )
    })
}

/// The numbers for which a packed matrix stands: in the dtype of its scales if these are floats, else in bf16, which
/// holds such numbers exactly.
pub(crate) fn dequantize(w: &Packed) -> Result<Array> {
    let s = stream();
    let Packing { mode, group_size, bits } = w.packing;
    let unsaid = mlx_sys::mlx_optional_dtype { value: mlx_sys::mlx_dtype__MLX_FLOAT32, has_value: false };
    // SAFETY: as in `quantized_matmul`.
    op("dequantize", |out| unsafe {
        mlx_sys::mlx_dequantize(
            out,
            w.values.as_ptr(),
            w.scales.as_ptr(),
            optional(w.biases.as_ref()),
            some(group_size),
            some(bits),
            mode.name().as_ptr(),
            optional(None),
            unsaid,
            s.as_ptr(),
        )
    })
}

/// Waits until this thread's stream has computed all that was issued.
pub(crate) fn synchronize() -> Result<()> {
    // SAFETY: the stream's handle lives through the call.
    let status = unsafe { mlx_sys::mlx_synchronize(stream().as_ptr()) };
    if status == 0 { Ok(()) } else { Err(Exception::custom("MLX could not wait for its stream")) }
}

/// Whether MLX computes on a GPU in this process.
pub(crate) fn on_gpu() -> bool {
    mlx_rs::Device::try_default()
        .and_then(|device| device.get_type())
        .is_ok_and(|kind| matches!(kind, mlx_rs::DeviceType::Gpu))
}

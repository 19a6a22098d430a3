// Half-precision accessors over the bits: mlx-c has them for Arm only, mlx-rs needs them everywhere.
#include <cstdint>
#include <cstring>
#include <exception>

#include "mlx/c/array.h"
#include "mlx/c/error.h"
#include "mlx/c/private/mlx.h"

namespace {

template <typename Half>
int item_bits(std::uint16_t* res, mlx_array arr) {
  static_assert(sizeof(Half) == sizeof(std::uint16_t));
  try {
    const Half value = mlx_array_get_(arr).item<Half>();
    std::memcpy(res, &value, sizeof(value));
    return 0;
  } catch (const std::exception& e) {
    mlx_error(e.what());
    return 1;
  }
}

template <typename Half>
const std::uint16_t* data_bits(mlx_array arr) {
  try {
    return reinterpret_cast<const std::uint16_t*>(mlx_array_get_(arr).data<Half>());
  } catch (const std::exception& e) {
    mlx_error(e.what());
    return nullptr;
  }
}

} // namespace

extern "C" {

int mlx_array_item_float16(std::uint16_t* res, mlx_array arr) {
  return item_bits<mlx::core::float16_t>(res, arr);
}

int mlx_array_item_bfloat16(std::uint16_t* res, mlx_array arr) {
  return item_bits<mlx::core::bfloat16_t>(res, arr);
}

const std::uint16_t* mlx_array_data_float16(mlx_array arr) {
  return data_bits<mlx::core::float16_t>(arr);
}

const std::uint16_t* mlx_array_data_bfloat16(mlx_array arr) {
  return data_bits<mlx::core::bfloat16_t>(arr);
}

} // extern "C"

/* Stands in for mlx-c's half.h, which knows half-precision types on Arm only and leans on a compiler's header there.
 * The four functions that use them pass pointers, so the bits are all that the bindings have to know. */
#define MLX_HALF_H
#define HAS_FLOAT16
#define HAS_BFLOAT16
typedef unsigned short float16_t;
typedef unsigned short bfloat16_t;

// QuantizeLinear: y = clip(rint(x / y_scale) + y_zero);  DequantizeLinear: y = f32(x - x_zero) * x_scale.
#pragma once
#include "kernels/image.h"

namespace tritkit {

// The float tensors are dense NCHW; rows are those of the image.
struct QuantizeKernels {
  const char* isa;
  // Returns the image of the first NaN, -1 if there is none.
  int64_t (*quantize)(const Image& shape, float scale, const float* x, uint8_t* y, Rows rows);
  void (*dequantize)(const Image& shape, float scale, const uint8_t* x, float* y, Rows rows);
};

// The widest that this CPU has and `isa_limit` admits (null: no limit); "scalar" is the truth.
const QuantizeKernels& quantize_kernels(const char* isa_limit);

}  // namespace tritkit

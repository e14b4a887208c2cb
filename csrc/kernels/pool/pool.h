// MaxPool on codes (padding is ignored), and QAveragePool:
//   acc = sum over the window of (x - x_zero);  y = clip(rint(f32(acc) * m) + y_zero),  m = (x_scale / y_scale) / count
#pragma once
#include "kernels/image.h"

namespace tritkit {

struct MaxPoolArgs {
  Image x, y;
  int64_t kernel_h = 1, kernel_w = 1, stride_h = 1, stride_w = 1, dilation_h = 1, dilation_w = 1, top = 0, left = 0;
};

struct PoolRun {
  int64_t begin, end;
};

struct AveragePoolArgs {
  Image x, y;
  const PoolRun* rows = nullptr;      // [y.height] rows of x
  const PoolRun* cols = nullptr;      // [y.width]
  const float* multiplier = nullptr;  // [y.height, y.width]
};

// Rows are those of y.
struct PoolKernels {
  const char* isa;
  void (*max_pool)(const MaxPoolArgs& args, const uint8_t* x, uint8_t* y, Rows rows);
  void (*average_pool)(const AveragePoolArgs& args, const uint8_t* x, uint8_t* y, Rows rows);
};

// The widest that this CPU has and `isa_limit` admits (null: no limit); "scalar" is the truth.
const PoolKernels& pool_kernels(const char* isa_limit);

}  // namespace tritkit

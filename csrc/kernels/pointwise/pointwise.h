// One code from one code, or from two:
//   QAdd      y = clip(rint(f32(a - a_zero) * (a_scale / y_scale) + f32(b - b_zero) * (b_scale / y_scale)) + y_zero)
//   QRescale  y = clip(rint(f32(x - x_zero) * (x_scale / y_scale)) + y_zero)
//   Clip      y = min(max(x, low), high)
#pragma once
#include "kernels/image.h"

namespace tritkit {

struct AddArgs {
  Image a, b, y;
  float a_ratio = 0, b_ratio = 0;  // a_scale / y_scale, b_scale / y_scale
};

struct RescaleArgs {
  Image x, y;
  float ratio = 0;  // x_scale / y_scale
};

struct ClipArgs {
  Image x, y;
  uint8_t low = 0, high = 255;
};

// Operands and result are of one shape; y is other memory than they. Rows are those of y.
struct PointwiseKernels {
  const char* isa;
  void (*add)(const AddArgs&, const uint8_t* a, const uint8_t* b, uint8_t* y, Rows rows);
  void (*rescale)(const RescaleArgs&, const uint8_t* x, uint8_t* y, Rows rows);
  void (*clip)(const ClipArgs&, const uint8_t* x, uint8_t* y, Rows rows);
};

// The widest that this CPU has and `isa_limit` admits (null: no limit); "scalar" is the truth.
const PointwiseKernels& pointwise_kernels(const char* isa_limit);

}  // namespace tritkit

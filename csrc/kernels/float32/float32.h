// Layers kept in float32 by policy: plain loops over dense NCHW, vectorised by the compiler for each instruction set. Not bit-exact
// between engines (order of additions).
#pragma once
#include <cstdint>

namespace tritkit {

// A Gemm is the same on images of one pixel.
struct FloatConvArgs {
  int64_t groups = 1, in_channels = 1, in_h = 1, in_w = 1, out_channels = 1, out_h = 1, out_w = 1;
  int64_t kernel_h = 1, kernel_w = 1, stride_h = 1, stride_w = 1, dilation_h = 1, dilation_w = 1, top = 0, left = 0;
  const float* weights = nullptr;  // [out_channels, in_channels / groups, kernel_h, kernel_w]
  const float* bias = nullptr;     // [out_channels]
};

struct FloatKernels {
  const char* isa;
  // Planes [begin, end) of images * out_channels flattened. A plane does not depend on the others of the call.
  void (*conv)(const FloatConvArgs& args, const float* x, float* y, int64_t begin, int64_t end);
  // y = min(max(x, low), high); elements [begin, end). A NaN stays one.
  void (*clip)(float low, float high, const float* x, float* y, int64_t begin, int64_t end);
};

// The widest that this CPU has and `isa_limit` admits (null: no limit).
const FloatKernels& float_kernels(const char* isa_limit);

}  // namespace tritkit

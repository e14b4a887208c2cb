// Quantized convolution on NHWC u8 images, the one hot operation of the engine. A linear layer is a 1x1 convolution of
// 1x1 images, so it runs here too.
//
//   acc[p, o] = bias[o] + sum over taps (ky, kx) and channels c of x[pixel(p) + tap, c] * w[o, ky, kx, c]      int32
//   requantize:      y = clip(rint(f32(acc) * multiplier[o]) + y_zero)                                          u8
//   requantize_add:  v as y above with v_zero, then  y = clip(rint(f32(v - v_zero) * v_scale + f32(r - r_zero) * r_scale) + y_zero)
//   to_float:        y = f32(acc) * multiplier[o]                                                               f32
//
// The zero point of x is folded into bias by the caller: bias'[o] = bias[o] - x_zero * sum(w[o]); the halo around each
// image holds x_zero, so taps beyond the border need no branch. Float operations are single, in the order written, ties to even.
#pragma once
#include <cstddef>
#include <cstdint>

namespace tritkit {

struct ConvShape {
  int64_t in_channels = 0, out_channels = 0;  // of the whole convolution, all groups
  int64_t groups = 1;
  int64_t kernel_h = 1, kernel_w = 1, stride_h = 1, stride_w = 1, dilation_h = 1, dilation_w = 1;
  int64_t out_h = 1, out_w = 1;  // output pixels of one image
};

// Weights before packing, borrowed: values w[o][ky][kx][c] (c < in_channels / groups).
struct ConvWeights {
  const int8_t* codes = nullptr;  // ternary: -1, 0, 1;  int8: the weights themselves (|w| <= 64)
  const int8_t* plus = nullptr;   // ternary: [out_channels] value of code +1 (p); null for int8
  const int8_t* minus = nullptr;  // ternary: [out_channels] value of code -1 (-n, so usually negative); null for int8
};

enum class ConvOutput { requantize, requantize_add, to_float };

struct ConvArgs {
  const uint8_t* x = nullptr;  // the pixel that tap (0, 0) of output (0, 0) of image 0 reads (in the halo if padded)
  int64_t x_image = 0, x_row = 0, x_pixel = 0;  // strides in bytes; x_pixel a multiple of 4; channels beyond in_channels hold anything
  void* y = nullptr;                            // u8, or f32 for to_float; output (0, 0) of image 0
  int64_t y_image = 0, y_row = 0, y_pixel = 0;  // strides in bytes; only out_channels elements a pixel are written
  const void* packed = nullptr;                 // made by pack() of the same kernel
  const int32_t* bias = nullptr;                // [padded_outputs(out_channels)], zeros beyond out_channels
  const float* multiplier = nullptr;            // [padded_outputs(out_channels)]
  ConvOutput output = ConvOutput::requantize;
  int32_t y_zero = 0;
  const uint8_t* r = nullptr;  // residual, requantize_add only; may be the same memory as y at the same strides
  int64_t r_image = 0, r_row = 0, r_pixel = 0;
  int32_t v_zero = 0, r_zero = 0;
  float v_scale = 0, r_scale = 0;
  uint8_t* scratch = nullptr;  // scratch_bytes() of the same kernel, for this call alone, 64-byte aligned
  ConvShape shape;
};

// Part of the work: output pixels [pixel_begin, pixel_end) of images*out_h*out_w flattened, output channels of the panels
// [panel_begin, panel_end); a panel is 64 output channels (of one group at most where groups > 1: see panels()).
struct ConvRange {
  int64_t pixel_begin, pixel_end, panel_begin, panel_end;
};

inline int64_t padded_outputs(int64_t outputs) { return (outputs + 63) / 64 * 64; }

// A kernel reads no byte outside: x rows of taps within [pixel start, pixel start + round_up(in_channels, 4)); bias and
// multiplier within padded_outputs; it writes y only as said. The arena may end right there (tests put guard pages around).
struct ConvKernel {
  const char* name;                                             // "avx512vnni_6x64"
  const char* isa;                                              // "avx512vnni"; "scalar" for the reference
  bool (*fits)(const ConvShape&, bool ternary);                 // shapes it runs (all must be correct, not all fast)
  size_t (*packed_bytes)(const ConvShape&, bool ternary);
  void (*pack)(const ConvShape&, const ConvWeights&, void* packed);  // packed is 64-byte aligned
  void (*run)(const ConvArgs&, const ConvRange&);               // no allocation, thread-safe
  int64_t (*panels)(const ConvShape&);
  size_t (*scratch_bytes)(const ConvShape&);
};

inline size_t no_scratch(const ConvShape&) { return 0; }

// All kernels compiled in whose instruction set this CPU has and `isa_limit` admits (null: no limit), preferred first; the scalar
// reference is last and always there. isa_limit is one of isa_names(): "scalar" < "avx2" < "avxvnni" < "avx512vnni" < "amx".
size_t conv_kernels(const char* isa_limit, const ConvKernel** out, size_t capacity);

}  // namespace tritkit

// QuantizeLinear: y = clip(rint(x / y_scale) + y_zero);  DequantizeLinear: y = f32(x - x_zero) * x_scale.
#pragma once
#include "kernels/image.h"

namespace tritkit {

// x dense NCHW; rows are those of the image. Returns the image of the first NaN, -1 if there is none.
int64_t quantize(const Image& shape, float scale, const float* x, uint8_t* y, Rows rows);

// y dense NCHW.
void dequantize(const Image& shape, float scale, const uint8_t* x, float* y, Rows rows);

}  // namespace tritkit

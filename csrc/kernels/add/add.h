// QAdd: y = clip(rint(f32(a - a_zero) * (a_scale / y_scale) + f32(b - b_zero) * (b_scale / y_scale)) + y_zero).
#pragma once
#include "kernels/image.h"

namespace tritkit {

struct AddArgs {
  Image a, b, y;
  float a_ratio = 0, b_ratio = 0;  // a_scale / y_scale, b_scale / y_scale
};
void add(const AddArgs& args, const uint8_t* a, const uint8_t* b, uint8_t* y, Rows rows);

}  // namespace tritkit

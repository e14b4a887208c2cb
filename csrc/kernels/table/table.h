// QRescale and Clip: a function of one code is a table of 256. y = table[x].
#pragma once
#include <array>

#include "kernels/image.h"

namespace tritkit {

using CodeTable = std::array<uint8_t, 256>;

CodeTable rescale_table(float ratio, int32_t x_zero, int32_t y_zero);  // clip(rint(f32(x - x_zero) * ratio) + y_zero)
CodeTable clip_table(uint8_t low, uint8_t high);

void look_up(const CodeTable& table, const Image& x_shape, const uint8_t* x, const Image& y_shape, uint8_t* y, Rows rows);

}  // namespace tritkit

#include "kernels/table/table.h"

#include <algorithm>

#include "base/round.h"

namespace tritkit {

CodeTable rescale_table(float ratio, int32_t x_zero, int32_t y_zero) {
  CodeTable table;
  for (int32_t x = 0; x < 256; ++x) table[x] = round_to_u8(static_cast<float>(x - x_zero) * ratio, y_zero);
  return table;
}

CodeTable clip_table(uint8_t low, uint8_t high) {
  CodeTable table;
  for (int x = 0; x < 256; ++x) table[x] = std::clamp(static_cast<uint8_t>(x), low, high);
  return table;
}

void look_up(const CodeTable& table, const Image& x_shape, const uint8_t* x, const Image& y_shape, uint8_t* y, Rows rows) {
  const int64_t bytes = y_shape.width * y_shape.pixel;
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t n = row / y_shape.height, i = row % y_shape.height;
    const uint8_t* from = x + x_shape.at(n, i, 0);
    uint8_t* to = y + y_shape.at(n, i, 0);
    for (int64_t k = 0; k < bytes; ++k) to[k] = table[from[k]];
  }
}

}  // namespace tritkit

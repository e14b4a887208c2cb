#include "kernels/add/add.h"

#include "base/round.h"

namespace tritkit {

void add(const AddArgs& args, const uint8_t* a, const uint8_t* b, uint8_t* y, Rows rows) {
  const int32_t a_zero = args.a.zero, b_zero = args.b.zero, y_zero = args.y.zero;
  const float a_ratio = args.a_ratio, b_ratio = args.b_ratio;
  const int64_t bytes = args.y.width * args.y.pixel;
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t n = row / args.y.height, i = row % args.y.height;
    const uint8_t* a_row = a + args.a.at(n, i, 0);
    const uint8_t* b_row = b + args.b.at(n, i, 0);
    uint8_t* y_row = y + args.y.at(n, i, 0);
    for (int64_t k = 0; k < bytes; ++k) {
      const float left = static_cast<float>(a_row[k] - a_zero) * a_ratio;
      const float right = static_cast<float>(b_row[k] - b_zero) * b_ratio;
      y_row[k] = round_to_u8(left + right, y_zero);
    }
  }
}

}  // namespace tritkit

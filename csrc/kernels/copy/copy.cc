#include "kernels/copy/copy.h"

#include <cstring>

namespace tritkit {

void fill_halo(const Image& shape, uint8_t* y, Rows rows) {
  const int64_t left = shape.left * shape.pixel, right = shape.right * shape.pixel;
  const int64_t above = shape.top * shape.row, below = shape.bottom * shape.row;
  if (left + right + above + below == 0) return;
  int64_t n = rows.begin / shape.height, i = rows.begin % shape.height;
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    uint8_t* const first = y + shape.at(n, i, 0);
    if (i == 0 || row == rows.begin) {
      const int64_t before = left + (i == 0 ? above : 0);
      std::memset(first - before, shape.zero, before);
    }
    const bool last = ++i == shape.height, joined = !last && row + 1 < rows.end;  // then the left of the next row follows
    std::memset(first + shape.width * shape.pixel, shape.zero, right + (last ? below : joined ? left : 0));
    if (last) i = 0, ++n;
  }
}

void slice(const SliceArgs& args, const uint8_t* x, uint8_t* y, Rows rows) {
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t n = row / args.y.height, i = row % args.y.height;
    for (int64_t j = 0; j < args.y.width; ++j) {
      const uint8_t* from = x + args.x.at(n, args.start_h + i * args.step_h, args.start_w + j * args.step_w) + args.start_c;
      uint8_t* to = y + args.y.at(n, i, j);
      if (args.step_c == 1) std::memcpy(to, from, args.y.channels);
      else for (int64_t c = 0; c < args.y.channels; ++c) to[c] = from[c * args.step_c];
    }
  }
}

void paste(const PasteArgs& args, const uint8_t* x, uint8_t* y, Rows rows) {
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t n = row / args.x.height, i = row % args.x.height;
    for (int64_t j = 0; j < args.x.width; ++j) {
      std::memcpy(y + args.y.at(n, args.top + i, args.left + j) + args.channel, x + args.x.at(n, i, j), args.x.channels);
    }
  }
}

void fill_zero(const Image& shape, uint8_t* y, Rows rows) {
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    std::memset(y + shape.at(row / shape.height, row % shape.height, 0), shape.zero, shape.width * shape.pixel);
  }
}

namespace {

// Steps through an image in (channel, row, column) order.
struct Cursor {
  const Image& shape;
  int64_t n, c = 0, i = 0, j = 0;
  int64_t offset() const { return shape.at(n, i, j) + c; }
  void step() {
    if (++j < shape.width) return;
    j = 0;
    if (++i < shape.height) return;
    i = 0;
    ++c;
  }
};

}  // namespace

void reshape(const Image& x_shape, const uint8_t* x, const Image& y_shape, uint8_t* y, int64_t begin, int64_t end) {
  const int64_t elements = x_shape.channels * x_shape.height * x_shape.width;
  for (int64_t n = begin; n < end; ++n) {
    Cursor from{x_shape, n}, to{y_shape, n};
    for (int64_t e = 0; e < elements; ++e, from.step(), to.step()) y[to.offset()] = x[from.offset()];
  }
}

}  // namespace tritkit

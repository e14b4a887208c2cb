// Images for the tests of kernels without weights: any shape, with and without a halo, in memory of exactly their size.
#pragma once
#include <functional>
#include <memory>
#include <vector>

#include "base/threads.h"
#include "kernels/image.h"
#include "tests/kernel_cases.h"

namespace tritkit_test {

using tritkit::Image;
using tritkit::Rows;

inline Image random_image(int64_t channels, int64_t height, int64_t width) {
  Image image;
  image.channels = channels, image.height = height, image.width = width;
  if (chance(50)) image.top = pick(0, 2), image.left = pick(0, 2), image.bottom = pick(0, 2), image.right = pick(0, 2);
  image.pixel = (channels + 3) / 4 * 4;
  image.row = (image.left + width + image.right) * image.pixel;
  image.image = (image.top + height + image.bottom) * image.row;
  image.zero = static_cast<uint8_t>(one_of<int64_t>({0, 1, 128, 255, pick(0, 255)}));
  return image;
}

// Random codes in `images` images.
struct Codes {
  Image image;
  Guarded memory;
  Codes(const Image& shape, int64_t images)
      : image(shape), memory(images * shape.image, one_of({Edge::begin, Edge::end}), 1, chance(30) ? pick(1, 3) : 0) {}
  uint8_t* pixels() { return memory.as() + image.top * image.row + image.left * image.pixel; }
  uint8_t code(int64_t n, int64_t c, int64_t i, int64_t j) { return pixels()[image.at(n, i, j) + c]; }
};

// Whether two memories of one shape are equal but for the bytes of pixels beyond their channels.
inline bool same_codes(const Image& shape, const uint8_t* a, const uint8_t* b, int64_t images) {
  for (int64_t k = 0; k < images * shape.image; ++k) {
    if (k % shape.pixel < shape.channels && a[k] != b[k]) return false;
  }
  return true;
}

// run(rows) for all rows in one go, in uneven pieces, or by two threads.
inline void run_in_parts(int64_t rows, const std::function<void(Rows)>& run) {
  static tritkit::ThreadPool two(2, 0);
  if (chance(30)) return run({0, rows});
  struct Call {
    const std::function<void(Rows)>& run;
    int64_t rows, cut;
  } call = {run, rows, pick(0, rows)};
  const auto half = [](void* ctx, int64_t, int part, int parts) {
    const Call& c = *static_cast<Call*>(ctx);
    c.run(part == 0 ? Rows{0, parts == 1 ? c.rows : c.cut} : Rows{c.cut, c.rows});
  };
  two.run(1, half, &call);
}

}  // namespace tritkit_test

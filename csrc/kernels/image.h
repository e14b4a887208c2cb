// How the engine holds u8 activations: NHWC with pixels of round_up(C, 4) bytes, and a halo of zero points around each image
// that the producer fills. A [N, K] tensor is N images of one pixel. Bytes of a pixel beyond its channels hold anything.
// Float32 tensors are dense NCHW.
#pragma once
#include <cstdint>

namespace tritkit {

struct Image {
  int64_t channels = 1, height = 1, width = 1;
  int64_t pixel = 4, row = 4, image = 4;                 // strides in bytes
  int64_t top = 0, left = 0, bottom = 0, right = 0;      // halo, in pixels
  uint8_t zero = 0;
  // Offset of pixel (y, x) of image n from pixel (0, 0) of image 0.
  int64_t at(int64_t n, int64_t y, int64_t x) const { return n * image + y * row + x * pixel; }
};

// Part of a batch: image rows [begin, end) of images * height flattened.
struct Rows {
  int64_t begin, end;
};

}  // namespace tritkit

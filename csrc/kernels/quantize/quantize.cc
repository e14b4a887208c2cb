#include "kernels/quantize/quantize.h"

#include <algorithm>

#include "base/round.h"
#include "kernels/pick.h"

namespace tritkit {
namespace {

constexpr int64_t block = 512;  // pixels of one channel at a time: the division vectorises, the interleaving stays in cache

// Returns whether any of x is NaN.
bool quantize_block(const float* x, int64_t count, float scale, int32_t zero, uint8_t* codes) {
  int32_t nan = 0;
  for (int64_t i = 0; i < count; ++i) {
    codes[i] = round_to_u8(x[i] / scale, zero);
    nan |= x[i] != x[i];
  }
  return nan != 0;
}

int64_t quantize(const Image& shape, float scale, const float* x, uint8_t* y, Rows rows) {
  uint8_t codes[block];
  int64_t nan_image = -1;
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t n = row / shape.height, i = row % shape.height;
    for (int64_t c = 0; c < shape.channels; ++c) {
      const float* line = x + ((n * shape.channels + c) * shape.height + i) * shape.width;
      for (int64_t j = 0; j < shape.width; j += block) {
        const int64_t count = std::min(block, shape.width - j);
        if (quantize_block(line + j, count, scale, shape.zero, codes) && nan_image < 0) nan_image = n;
        uint8_t* to = y + shape.at(n, i, j) + c;
        for (int64_t k = 0; k < count; ++k) to[k * shape.pixel] = codes[k];
      }
    }
  }
  return nan_image;
}

void dequantize(const Image& shape, float scale, const uint8_t* x, float* y, Rows rows) {
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t n = row / shape.height, i = row % shape.height;
    for (int64_t c = 0; c < shape.channels; ++c) {
      float* line = y + ((n * shape.channels + c) * shape.height + i) * shape.width;
      const uint8_t* from = x + shape.at(n, i, 0) + c;
      for (int64_t j = 0; j < shape.width; ++j) {
        line[j] = static_cast<float>(static_cast<int32_t>(from[j * shape.pixel]) - shape.zero) * scale;
      }
    }
  }
}

}  // namespace

extern const QuantizeKernels quantize_scalar;
const QuantizeKernels quantize_scalar = {"scalar", quantize, dequantize};

#if defined(__x86_64__)
extern const QuantizeKernels quantize_avx2, quantize_avx512vnni;
const QuantizeKernels& quantize_kernels(const char* isa_limit) {
  return pick_kernels({&quantize_avx512vnni, &quantize_avx2, &quantize_scalar}, isa_limit);
}
#else
const QuantizeKernels& quantize_kernels(const char*) { return quantize_scalar; }
#endif

}  // namespace tritkit

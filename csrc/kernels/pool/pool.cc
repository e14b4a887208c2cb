#include "kernels/pool/pool.h"

#include <algorithm>
#include <cstring>

#include "base/round.h"
#include "kernels/pick.h"

namespace tritkit {
namespace {

// Taps [first, last) of a window at `start` that lie inside [0, size).
struct Taps {
  int64_t first, last;
};

Taps taps_inside(int64_t start, int64_t kernel, int64_t dilation, int64_t size) {
  const int64_t first = start >= 0 ? 0 : (-start + dilation - 1) / dilation;
  const int64_t last = start >= size ? 0 : std::min(kernel, (size - 1 - start) / dilation + 1);
  return {first, last};
}

void max_into(uint8_t* y, const uint8_t* x, int64_t channels) {
  for (int64_t c = 0; c < channels; ++c) y[c] = x[c] > y[c] ? x[c] : y[c];
}

void max_pixel(const MaxPoolArgs& args, const uint8_t* x, uint8_t* y, int64_t n, int64_t i, int64_t j) {
  const int64_t from_h = i * args.stride_h - args.top, from_w = j * args.stride_w - args.left;
  const Taps rows = taps_inside(from_h, args.kernel_h, args.dilation_h, args.x.height);
  const Taps cols = taps_inside(from_w, args.kernel_w, args.dilation_w, args.x.width);
  std::memset(y, 0, args.y.channels);
  for (int64_t ky = rows.first; ky < rows.last; ++ky) {
    for (int64_t kx = cols.first; kx < cols.last; ++kx) {
      max_into(y, x + args.x.at(n, from_h + ky * args.dilation_h, from_w + kx * args.dilation_w), args.y.channels);
    }
  }
}

constexpr int64_t channel_block = 256;

void average_pixel(const AveragePoolArgs& args, const uint8_t* x, uint8_t* y, int64_t n, int64_t i, int64_t j) {
  const PoolRun rows = args.rows[i], cols = args.cols[j];
  const int32_t offset = static_cast<int32_t>((rows.end - rows.begin) * (cols.end - cols.begin)) * args.x.zero;
  const float multiplier = args.multiplier[i * args.y.width + j];
  int32_t sums[channel_block];
  for (int64_t base = 0; base < args.y.channels; base += channel_block) {
    const int64_t count = std::min(channel_block, args.y.channels - base);
    std::fill_n(sums, count, -offset);
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      for (int64_t col = cols.begin; col < cols.end; ++col) {
        const uint8_t* from = x + args.x.at(n, row, col) + base;
        for (int64_t c = 0; c < count; ++c) sums[c] += from[c];
      }
    }
    for (int64_t c = 0; c < count; ++c) y[base + c] = round_to_u8(static_cast<float>(sums[c]) * multiplier, args.y.zero);
  }
}

void max_pool(const MaxPoolArgs& args, const uint8_t* x, uint8_t* y, Rows rows) {
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t n = row / args.y.height, i = row % args.y.height;
    for (int64_t j = 0; j < args.y.width; ++j) max_pixel(args, x, y + args.y.at(n, i, j), n, i, j);
  }
}

void average_pool(const AveragePoolArgs& args, const uint8_t* x, uint8_t* y, Rows rows) {
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t n = row / args.y.height, i = row % args.y.height;
    for (int64_t j = 0; j < args.y.width; ++j) average_pixel(args, x, y + args.y.at(n, i, j), n, i, j);
  }
}

}  // namespace

extern const PoolKernels pool_scalar;
const PoolKernels pool_scalar = {"scalar", max_pool, average_pool};

#if defined(__x86_64__)
extern const PoolKernels pool_avx2, pool_avx512vnni;
const PoolKernels& pool_kernels(const char* isa_limit) {
  return pick_kernels({&pool_avx512vnni, &pool_avx2, &pool_scalar}, isa_limit);
}
#else
const PoolKernels& pool_kernels(const char*) { return pool_scalar; }
#endif

}  // namespace tritkit

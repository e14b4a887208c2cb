// Random convolutions for the tests of ways to run them: arguments, data between pages that may not be touched, and what the
// reference kernel makes of it.
#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "kernels/baked/geometry.h"
#include "kernels/conv/conv.h"

namespace tritkit {
namespace {

std::mt19937_64 rng(7);

int64_t pick(int64_t low, int64_t high) { return low + static_cast<int64_t>(rng() % static_cast<uint64_t>(high - low + 1)); }
bool chance(int percent) { return pick(1, 100) <= percent; }

class Guarded {
 public:
  Guarded(size_t size, bool at_end) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE)), inner = (size + page - 1) / page * page;
    mapped_ = inner + 2 * page;
    base_ = static_cast<uint8_t*>(mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (base_ == MAP_FAILED || mprotect(base_ + page, inner, PROT_READ | PROT_WRITE) != 0) std::abort();
    data = base_ + page + (at_end ? inner - size : 0);
  }
  ~Guarded() { munmap(base_, mapped_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  uint8_t* data;

 private:
  uint8_t* base_;
  size_t mapped_;
};

struct Case {
  ConvShape s;
  BakedPads pads;
  int64_t height, width, batch;
  int density;
  bool symmetric, extreme, at_end;
  ConvOutput output;
};

void print(const Case& c) {
  const ConvShape& s = c.s;
  std::printf("%ld->%ld groups %ld kernel %ldx%ld stride %ldx%ld dilation %ldx%ld out %ldx%ld pads %ld %ld %ld %ld batch %ld density %d %s output %d\n",
              (long)s.in_channels, (long)s.out_channels, (long)s.groups, (long)s.kernel_h, (long)s.kernel_w, (long)s.stride_h, (long)s.stride_w,
              (long)s.dilation_h, (long)s.dilation_w, (long)s.out_h, (long)s.out_w, (long)c.pads.top, (long)c.pads.left, (long)c.pads.bottom,
              (long)c.pads.right, (long)c.batch, c.density, c.symmetric ? "symmetric" : "two scales", static_cast<int>(c.output));
}

inline const ConvKernel& reference() {
  const ConvKernel* kernels[1];
  conv_kernels("scalar", kernels, 1);
  return *kernels[0];
}

struct Data {
  ConvArgs a;
  std::vector<int8_t> codes, plus, minus;
  std::vector<int32_t> bias;
  std::vector<float> multiplier;
  std::vector<uint8_t> residual;
  Guarded x;
  size_t y_bytes;

  explicit Data(const Case& c) : x(static_cast<size_t>(strides(c)), c.at_end) {
    const ConvShape& s = c.s;
    const int64_t inputs = s.in_channels / s.groups * s.kernel_h * s.kernel_w;
    for (int64_t i = 0; i < s.out_channels * inputs; ++i) codes.push_back(chance(c.density) ? (c.extreme || chance(50) ? 1 : -1) : 0);
    for (int64_t o = 0; o < s.out_channels; ++o) {
      plus.push_back(static_cast<int8_t>(pick(1, 64)));
      minus.push_back(static_cast<int8_t>(c.symmetric ? -plus.back() : -pick(1, 64)));
    }
    bias.resize(static_cast<size_t>(padded_outputs(s.out_channels))), multiplier.resize(bias.size());
    for (int64_t o = 0; o < s.out_channels; ++o) {
      bias[static_cast<size_t>(o)] = static_cast<int32_t>(pick(-100000, 100000));
      multiplier[static_cast<size_t>(o)] = 1.0f / static_cast<float>(pick(100, 4000));
    }
    fill(c);
    residual.resize(y_bytes);
    for (uint8_t& r : residual) r = static_cast<uint8_t>(rng());
    a.bias = bias.data(), a.multiplier = multiplier.data(), a.r = residual.data();
    a.v_zero = static_cast<int32_t>(pick(0, 255)), a.r_zero = static_cast<int32_t>(pick(0, 255)), a.y_zero = static_cast<int32_t>(pick(0, 255));
    a.v_scale = 0.37f, a.r_scale = 1.31f;
  }
  ConvWeights weights() const { return {codes.data(), plus.data(), minus.data()}; }

 private:
  int64_t strides(const Case& c) {
    const ConvShape& s = c.s;
    a.shape = s, a.output = c.output;
    a.x_pixel = (s.in_channels + 3) / 4 * 4;
    a.x_row = (c.width + c.pads.left + c.pads.right) * a.x_pixel;
    a.x_image = (c.height + c.pads.top + c.pads.bottom) * a.x_row;
    const int64_t size = c.output == ConvOutput::to_float ? 4 : 1;
    a.r_pixel = s.out_channels, a.r_row = s.out_w * a.r_pixel, a.r_image = s.out_h * a.r_row;
    a.y_pixel = s.out_channels * size, a.y_row = s.out_w * a.y_pixel, a.y_image = s.out_h * a.y_row;
    y_bytes = static_cast<size_t>(c.batch * a.y_image);
    return c.batch * a.x_image;
  }
  void fill(const Case& c) {
    a.x = x.data;
    const uint8_t zero = static_cast<uint8_t>(rng());
    for (int64_t n = 0; n < c.batch; ++n) {
      for (int64_t y = 0; y < c.height + c.pads.top + c.pads.bottom; ++y) {
        for (int64_t v = 0; v < c.width + c.pads.left + c.pads.right; ++v) {
          const bool inside = y >= c.pads.top && y < c.pads.top + c.height && v >= c.pads.left && v < c.pads.left + c.width;
          uint8_t* pixel = x.data + n * a.x_image + y * a.x_row + v * a.x_pixel;
          for (int64_t k = 0; k < a.x_pixel; ++k) pixel[k] = !inside && k < c.s.in_channels ? zero : c.extreme ? 255 : static_cast<uint8_t>(rng());
        }
      }
    }
  }
};

bool same(const Case& c, const char* name, const std::vector<uint8_t>& expected, const std::vector<uint8_t>& given) {
  if (expected == given) return true;
  size_t wrong = 0, first = expected.size();
  for (size_t i = 0; i < expected.size(); ++i) {
    if (expected[i] != given[i]) wrong++, first = std::min(first, i);
  }
  std::printf("%s: %zu of %zu bytes differ, first at %zu (%d, not %d): ", name, wrong, expected.size(), first, given[first], expected[first]);
  print(c);
  return false;
}

// The reference's outputs.
inline std::vector<uint8_t> expect(const Case& c, Data& data) {
  const ConvKernel& slow = reference();
  std::vector<uint8_t> packed(slow.packed_bytes(c.s, true) + 64), expected(data.y_bytes);
  slow.pack(c.s, data.weights(), packed.data());
  data.a.packed = packed.data(), data.a.y = expected.data();
  slow.run(data.a, {0, c.batch * c.s.out_h * c.s.out_w, 0, slow.panels(c.s)});
  data.a.packed = nullptr;
  return expected;
}

}  // namespace
}  // namespace tritkit

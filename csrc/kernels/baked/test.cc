// The zero-skipping convolutions (machine code, and gathering) against the reference kernel, bit for bit, on random shapes, batches,
// parts and densities. The input ends, or begins, at a page that may not be touched.
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "base/cpu.h"
#include "kernels/baked/baked.h"
#include "kernels/gather/gather.h"

using namespace tritkit;

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

Case random_case(int i) {
  Case c;
  ConvShape& s = c.s;
  const bool large = i % 10 == 0;
  s.groups = chance(15) ? pick(2, 3) : 1;
  s.in_channels = s.groups * (s.groups > 1 ? 4 * pick(1, 6) : pick(1, large ? 300 : 40));
  s.out_channels = s.groups * pick(1, large ? 130 : 70);
  s.kernel_h = pick(1, chance(20) ? 7 : 3), s.kernel_w = chance(80) ? s.kernel_h : pick(1, 5);
  s.stride_h = chance(60) ? 1 : pick(1, 4), s.stride_w = chance(85) ? s.stride_h : pick(1, 3);
  s.dilation_h = chance(85) ? 1 : pick(1, 3), s.dilation_w = chance(85) ? s.dilation_h : pick(1, 3);
  const int64_t reach_h = (s.kernel_h - 1) * s.dilation_h, reach_w = (s.kernel_w - 1) * s.dilation_w;
  c.pads = {pick(0, reach_h), pick(0, reach_w), pick(0, reach_h), pick(0, reach_w)};
  c.height = pick(1, large ? 60 : 20) + reach_h, c.width = pick(1, large ? 60 : 40) + reach_w;
  s.out_h = (c.height + c.pads.top + c.pads.bottom - reach_h - 1) / s.stride_h + 1;
  s.out_w = (c.width + c.pads.left + c.pads.right - reach_w - 1) / s.stride_w + 1;
  c.batch = chance(60) ? 1 : pick(2, large ? 3 : 9);
  c.density = static_cast<int>(pick(0, 100)), c.symmetric = chance(50), c.extreme = chance(15), c.at_end = chance(50);
  c.output = static_cast<ConvOutput>(pick(0, 2));
  return c;
}

// Layers of several chunks of code, whose sums fit 16 bits at the first densities and not at the others.
Case long_case(int i) {
  Case c = random_case(1);
  c.s = ConvShape{};
  c.s.in_channels = 72, c.s.out_channels = 64, c.s.kernel_h = c.s.kernel_w = 3, c.s.out_h = 9, c.s.out_w = 13;
  c.pads = {1, 1, 1, 1}, c.height = 9, c.width = 13, c.batch = 1 + i % 3;
  c.density = i < 8 ? 28 : 60, c.symmetric = i % 2 == 0, c.extreme = false;
  c.output = static_cast<ConvOutput>(i / 2 % 3);
  return c;
}

void print(const Case& c) {
  const ConvShape& s = c.s;
  std::printf("%ld->%ld groups %ld kernel %ldx%ld stride %ldx%ld dilation %ldx%ld out %ldx%ld pads %ld %ld %ld %ld batch %ld density %d %s output %d\n",
              (long)s.in_channels, (long)s.out_channels, (long)s.groups, (long)s.kernel_h, (long)s.kernel_w, (long)s.stride_h, (long)s.stride_w,
              (long)s.dilation_h, (long)s.dilation_w, (long)s.out_h, (long)s.out_w, (long)c.pads.top, (long)c.pads.left, (long)c.pads.bottom,
              (long)c.pads.right, (long)c.batch, c.density, c.symmetric ? "symmetric" : "two scales", static_cast<int>(c.output));
}

const ConvKernel& reference() {
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

int gather_ran = 0;
std::map<std::string, int> baked_ran;  // by kernel

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

bool check_baked(const Case& c, Data& data, const ConvWeights& weights, const std::vector<uint8_t>& expected, const BakedKernel& kernel) {
  const std::unique_ptr<BakedConv> baked = BakedConv::make(c.s, c.pads, weights, kernel.isa, size_t{64} << 20, INFINITY);
  if (!baked) return true;
  ++baked_ran[kernel.name];
  std::vector<uint8_t> scratch(baked->scratch_bytes() + 64), given(data.y_bytes);
  uint8_t* const aligned = scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64) % 64;
  data.a.packed = nullptr, data.a.y = given.data();
  const int64_t parts = pick(1, 4);
  for (int64_t part = 0; part < parts; ++part) baked->run(data.a, c.batch, part, parts, aligned);
  return same(c, baked->name(), expected, given);
}

bool check_gather(const Case& c, Data& data, const ConvWeights& weights, const std::vector<uint8_t>& expected, int64_t panels) {
  const std::unique_ptr<GatherConv> gather = GatherConv::make(data.a, weights, nullptr, true);
  if (!gather) return true;
  ++gather_ran;
  std::vector<uint8_t> given(data.y_bytes);
  data.a.packed = nullptr, data.a.y = given.data();
  const int64_t pixels = c.batch * c.s.out_h * c.s.out_w, cut = pick(0, pixels), panel = pick(0, panels);
  gather->run(data.a, {0, cut, 0, panels});
  gather->run(data.a, {cut, pixels, 0, panel});
  gather->run(data.a, {cut, pixels, panel, panels});
  return same(c, GatherConv::name(), expected, given);
}

bool check(const Case& c) {
  Data data(c);
  const ConvWeights weights{data.codes.data(), data.plus.data(), data.minus.data()};
  const ConvKernel& slow = reference();
  std::vector<uint8_t> packed(slow.packed_bytes(c.s, true) + 64), expected(data.y_bytes);
  slow.pack(c.s, weights, packed.data());
  data.a.packed = packed.data(), data.a.y = expected.data();
  slow.run(data.a, {0, c.batch * c.s.out_h * c.s.out_w, 0, slow.panels(c.s)});
  bool right = check_gather(c, data, weights, expected, slow.panels(c.s));
  const BakedKernel* kernels[2];
  for (size_t i = baked_kernels(nullptr, kernels); i > 0; --i) right &= check_baked(c, data, weights, expected, *kernels[i - 1]);
  return right;
}

}  // namespace

int main() {
  const BakedKernel* kernels[2];
  const size_t count = baked_kernels(nullptr, kernels);
  if (count == 0) {
    std::printf("no AVX2 here: nothing to check\n");
    return 0;
  }
  int wrong = 0;
  for (int i = 0; i < 600 && wrong < 5; ++i) wrong += !check(random_case(i));
  for (int i = 0; i < 16 && wrong < 5; ++i) wrong += !check(long_case(i));
  bool all = gather_ran >= 500 || !GatherConv::available(nullptr);
  std::printf("of 616 cases %s ran %d", GatherConv::name(), gather_ran);
  for (size_t i = 0; i < count; ++i) {
    std::printf(", %s %d", kernels[i]->name, baked_ran[kernels[i]->name]);
    all &= baked_ran[kernels[i]->name] >= 500;
  }
  std::printf("; %d differ\n", wrong);
  return wrong != 0 || !all;
}

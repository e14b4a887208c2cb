// The zero-skipping convolutions (machine code, and gathering) against the reference kernel, bit for bit, on random shapes, batches,
// parts and densities.
#include <cmath>
#include <map>
#include <string>

#include "base/cpu.h"
#include "kernels/baked/baked.h"
#include "kernels/gather/gather.h"
#include "tests/conv_cases.h"

using namespace tritkit;

namespace {

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

int gather_ran = 0;
std::map<std::string, int> baked_ran;  // by kernel

bool check_baked(const Case& c, Data& data, const ConvWeights& weights, const std::vector<uint8_t>& expected, const BakedKernel& kernel) {
  const std::unique_ptr<BakedConv> baked = BakedConv::make(c.s, c.pads, weights, kernel.isa, size_t{64} << 20, INFINITY);
  if (!baked) return true;
  ++baked_ran[kernel.name];
  std::vector<uint8_t> scratch(baked->scratch_bytes() + 64), given(data.y_bytes);
  uint8_t* const aligned = scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64) % 64;
  data.a.y = given.data();
  const int64_t parts = pick(1, 4);
  for (int64_t part = 0; part < parts; ++part) baked->run(data.a, c.batch, part, parts, aligned);
  return same(c, baked->name(), expected, given);
}

bool check_gather(const Case& c, Data& data, const ConvWeights& weights, const std::vector<uint8_t>& expected, int64_t panels) {
  const std::unique_ptr<GatherConv> gather = GatherConv::make(data.a, weights, nullptr, true);
  if (!gather) return true;
  ++gather_ran;
  std::vector<uint8_t> given(data.y_bytes);
  data.a.y = given.data();
  const int64_t pixels = c.batch * c.s.out_h * c.s.out_w, cut = pick(0, pixels), panel = pick(0, panels);
  gather->run(data.a, {0, cut, 0, panels});
  gather->run(data.a, {cut, pixels, 0, panel});
  gather->run(data.a, {cut, pixels, panel, panels});
  return same(c, GatherConv::name(), expected, given);
}

bool check(const Case& c) {
  Data data(c);
  const ConvWeights weights = data.weights();
  const std::vector<uint8_t> expected = expect(c, data);
  bool right = check_gather(c, data, weights, expected, reference().panels(c.s));
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

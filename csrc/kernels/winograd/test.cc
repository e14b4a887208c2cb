// Winograd convolutions against the reference kernel, bit for bit, on random shapes, batches, parts and densities, and on sums as large
// as they can be.
#include <limits>

#include "base/cpu.h"
#include "kernels/winograd/winograd.h"
#include "tests/conv_cases.h"

using namespace tritkit;

namespace {

constexpr double kAlways = std::numeric_limits<double>::infinity();
int ran = 0;

Case random_case(int i) {
  Case c;
  ConvShape& s = c.s;
  const bool large = i % 10 == 0;
  s.in_channels = pick(1, large ? 200 : 70), s.out_channels = pick(1, large ? 200 : 70), s.kernel_h = s.kernel_w = 3;
  c.pads = {pick(0, 2), pick(0, 2), pick(0, 2), pick(0, 2)};
  c.height = pick(1, large ? 30 : 12) + 2, c.width = pick(1, large ? 30 : 16) + 2;
  s.out_h = c.height + c.pads.top + c.pads.bottom - 2, s.out_w = c.width + c.pads.left + c.pads.right - 2;
  c.batch = chance(60) ? 1 : pick(2, 5);
  c.density = static_cast<int>(pick(0, 100)), c.symmetric = chance(95), c.extreme = chance(15), c.at_end = chance(50);
  c.output = static_cast<ConvOutput>(pick(0, 2));
  return c;
}

// Every weight 1 and every input 255, or weights of both signs.
Case largest_case(bool extreme) {
  Case c = random_case(1);
  c.s.in_channels = 1624, c.s.out_channels = 17, c.s.out_h = c.s.out_w = 6;
  c.pads = {0, 0, 0, 0}, c.height = c.width = 8, c.batch = 1, c.density = 100, c.symmetric = true, c.extreme = extreme;
  c.output = ConvOutput::to_float;
  return c;
}

bool check(const Case& c) {
  Data data(c);
  const std::vector<uint8_t> expected = expect(c, data);
  const std::unique_ptr<WinogradConv> conv = WinogradConv::make(c.s, data.weights(), nullptr, kAlways);
  if (!conv) return true;
  ++ran;
  std::vector<uint8_t> scratch(WinogradConv::scratch_bytes(c.s) + 64), given(data.y_bytes);
  data.a.scratch = scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64) % 64;
  data.a.y = given.data();
  const int64_t pixels = c.batch * c.s.out_h * c.s.out_w, panels = reference().panels(c.s), cut = pick(0, pixels), panel = pick(0, panels);
  conv->run(data.a, {0, cut, 0, panels});
  conv->run(data.a, {cut, pixels, 0, panel});
  conv->run(data.a, {cut, pixels, panel, panels});
  return same(c, WinogradConv::name(), expected, given);
}

bool made(int64_t channels, int64_t stride, int8_t plus, int8_t minus, bool ternary) {
  ConvShape s;
  s.in_channels = channels, s.out_channels = 1, s.kernel_h = s.kernel_w = 3, s.stride_h = s.stride_w = stride, s.out_h = s.out_w = 8;
  const std::vector<int8_t> codes(static_cast<size_t>(9 * channels), 1);
  return WinogradConv::make(s, {codes.data(), ternary ? &plus : nullptr, ternary ? &minus : nullptr}, nullptr, kAlways) != nullptr;
}

// Only what is exact is taken, and what it is for.
bool refuses() {
  const bool right = made(1624, 1, 1, -1, true) && made(1624, 1, 64, -64, true) && !made(1625, 1, 1, -1, true) && !made(8, 1, 2, -1, true) &&
                     !made(8, 2, 1, -1, true) && !made(8, 1, 1, -1, false);
  if (!right) std::printf("what is taken is not what is exact\n");
  return right;
}

}  // namespace

int main() {
  if (!WinogradConv::available(nullptr)) {
    std::printf("no AVX-512 VNNI here: nothing to check\n");
    return 0;
  }
  int wrong = !refuses() + !check(largest_case(true)) + !check(largest_case(false));
  for (int i = 0; i < 400 && wrong < 5; ++i) wrong += !check(random_case(i));
  std::printf("of 402 cases %s ran %d; %d differ\n", WinogradConv::name(), ran, wrong);
  return wrong != 0 || ran < 360;
}

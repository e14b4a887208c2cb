// The pointwise kernels of every instruction set against the formula, bit for bit.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/pointwise/pointwise.h"
#include "tests/image_cases.h"

using namespace tritkit;
using namespace tritkit_test;

namespace {

Coverage coverage;

struct Case {
  const char* op;
  int64_t images, channels, height, width;
  AddArgs add;
  RescaleArgs rescale;
  ClipArgs clip;
};

// The result the formula gives; a NaN (infinity minus infinity) gives 0.
uint8_t rounded(float value, int32_t zero) {
  if (std::isnan(value)) return 0;
  return static_cast<uint8_t>(std::min(255.0f, std::max(0.0f, std::nearbyint(value) + static_cast<float>(zero))));
}

float real(int32_t code, int32_t zero, float ratio) { return static_cast<float>(code - zero) * ratio; }

uint8_t expected(const Case& c, uint8_t a, uint8_t b) {
  if (c.op[0] == 'c') return std::min(std::max(a, c.clip.low), c.clip.high);
  if (c.op[0] == 'r') return rounded(real(a, c.rescale.x.zero, c.rescale.ratio), c.rescale.y.zero);
  const float left = real(a, c.add.a.zero, c.add.a_ratio), right = real(b, c.add.b.zero, c.add.b_ratio);
  return rounded(left + right, c.add.y.zero);
}

void run(const PointwiseKernels& kernels, const Case& c, Codes& a, Codes& b, Codes& y) {
  run_in_parts(c.images * c.height, [&](Rows rows) {
    if (c.op[0] == 'a') kernels.add(c.add, a.pixels(), b.pixels(), y.pixels(), rows);
    if (c.op[0] == 'r') kernels.rescale(c.rescale, a.pixels(), y.pixels(), rows);
    if (c.op[0] == 'c') kernels.clip(c.clip, a.pixels(), y.pixels(), rows);
  });
}

void check(Case c) {
  const auto image = [&] { return random_image(c.channels, c.height, c.width); };
  Codes a(image(), c.images), b(image(), c.images), y(image(), c.images);
  const auto ratio = [] { return one_of({0.5f, 1.0f, 1.5f, static_cast<float>(pick(1, 3000)) / 1000.0f, 1e-40f, 3e38f}); };
  c.add = {a.image, b.image, y.image, ratio(), ratio()};
  c.rescale = {a.image, y.image, ratio()};
  const uint8_t low = static_cast<uint8_t>(pick(0, 255));
  c.clip = {a.image, y.image, low, static_cast<uint8_t>(pick(low, 255))};
  const std::vector<uint8_t> before(y.memory.as(), y.memory.as() + y.memory.size());
  std::vector<uint8_t> want = before;
  uint8_t* const pixels = want.data() + (y.pixels() - y.memory.as());
  for (int64_t n = 0; n < c.images; ++n)
    for (int64_t i = 0; i < c.height; ++i)
      for (int64_t j = 0; j < c.width; ++j)
        for (int64_t k = 0; k < c.channels; ++k) pixels[y.image.at(n, i, j) + k] = expected(c, a.code(n, k, i, j), b.code(n, k, i, j));
  for (const char* isa : {"scalar", "avx2", "avx512vnni"}) {
    const PointwiseKernels& kernels = pointwise_kernels(isa);
    if (!cpu_has_isa(isa)) continue;
    if (std::string(kernels.isa) != isa) coverage.fail("the limit %s gives %s", isa, kernels.isa);
    std::copy(before.begin(), before.end(), y.memory.as());
    run(kernels, c, a, b, y);
    coverage.ran(std::string(kernels.isa) + " " + c.op, kernels.isa);
    if (same_codes(y.image, y.memory.as(), want.data(), c.images)) continue;
    coverage.fail("%s %s: %ld images of %ldx%ldx%ld", kernels.isa, c.op, (long)c.images, (long)c.channels, (long)c.height, (long)c.width);
  }
}

}  // namespace

int main() {
  for (int i = 0; i < 1500; ++i) {
    Case c = {};
    c.op = one_of<const char*>({"add", "rescale", "clip"});
    c.images = chance(90) ? pick(1, 4) : 128;
    c.channels = chance(50) ? pick(1, 130) : one_of<int64_t>({1, 3, 16, 32, 64, 128});
    c.height = c.images == 128 ? 1 : one_of<int64_t>({1, 7, pick(1, 9)}), c.width = c.images == 128 ? 1 : one_of<int64_t>({1, 7, pick(1, 20)});
    check(c);
  }
#if defined(__x86_64__)
  return coverage.report({"scalar", "avx2", "avx512vnni"});
#else
  return coverage.report({"scalar"});
#endif
}

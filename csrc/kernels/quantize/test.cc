// The quantize and dequantize kernels of every instruction set against the formula, bit for bit.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/quantize/quantize.h"
#include "tests/image_cases.h"

using namespace tritkit;
using namespace tritkit_test;

namespace {

Coverage coverage;

struct Case {
  int64_t images, channels, height, width;
  float scale;
  bool nan;
  size_t at(int64_t n, int64_t c, int64_t i, int64_t j) const {
    return static_cast<size_t>(((n * channels + c) * height + i) * width + j);
  }
};

// In and around the range of codes, ties between two codes, and the ends of the float range.
float random_value(const Case& c) {
  if (chance(40)) return static_cast<float>(pick(-600, 600)) * 0.5f * c.scale;
  if (chance(90)) return static_cast<float>(pick(-300000, 300000)) * 1e-3f * c.scale;
  constexpr float inf = std::numeric_limits<float>::infinity();
  return one_of({0.0f, -0.0f, 1e-45f, -1e-40f, 3.4e38f, -3.4e38f, inf, -inf});
}

uint8_t rounded(float value, int32_t zero) {
  return static_cast<uint8_t>(std::min(255.0f, std::max(0.0f, std::nearbyint(value) + static_cast<float>(zero))));
}

// Images with a NaN in them; the first one is -1 if there is none.
int64_t put_nans(const Case& c, float* x) {
  int64_t first = -1;
  for (int times = 0; c.nan && times < 2; ++times) {
    const int64_t n = pick(0, c.images - 1);
    x[c.at(n, pick(0, c.channels - 1), pick(0, c.height - 1), pick(0, c.width - 1))] = std::nanf("");
    first = first < 0 ? n : std::min(first, n);
  }
  return first;
}

int64_t run_quantize(const QuantizeKernels& kernels, const Case& c, const float* x, Codes& y) {
  std::atomic<int64_t> first{INT64_MAX};
  run_in_parts(c.images * c.height, [&](Rows rows) {
    const int64_t image = kernels.quantize(y.image, c.scale, x, y.pixels(), rows);
    int64_t seen = first.load();
    while (image >= 0 && image < seen && !first.compare_exchange_weak(seen, image)) {
    }
  });
  return first == INT64_MAX ? -1 : first.load();
}

void check_quantize(const Case& c) {
  Guarded memory(4 * c.images * c.channels * c.height * c.width, one_of({Edge::begin, Edge::end}), 4);
  float* const x = memory.as<float>();
  for (int64_t k = 0; k < memory.size() / 4; ++k) x[k] = random_value(c);
  const int64_t first_nan = put_nans(c, x);
  Codes y(random_image(c.channels, c.height, c.width), c.images);
  const std::vector<uint8_t> before(y.memory.as(), y.memory.as() + y.memory.size());
  std::vector<uint8_t> want = before;
  uint8_t* const pixels = want.data() + (y.pixels() - y.memory.as());
  for (int64_t n = 0; n < c.images; ++n)
    for (int64_t k = 0; k < c.channels; ++k)
      for (int64_t i = 0; i < c.height; ++i)
        for (int64_t j = 0; j < c.width; ++j) pixels[y.image.at(n, i, j) + k] = rounded(x[c.at(n, k, i, j)] / c.scale, y.image.zero);
  for (const char* isa : {"scalar", "avx2", "avx512vnni"}) {
    if (!cpu_has_isa(isa)) continue;
    const QuantizeKernels& kernels = quantize_kernels(isa);
    if (std::string(kernels.isa) != isa) coverage.fail("the limit %s gives %s", isa, kernels.isa);
    std::copy(before.begin(), before.end(), y.memory.as());
    const int64_t nan = run_quantize(kernels, c, x, y);
    coverage.ran(std::string(isa) + " quantize", isa);
    if (nan != first_nan) coverage.fail("%s quantize: first NaN in image %ld, not %ld", isa, (long)nan, (long)first_nan);
    if (first_nan >= 0 || same_codes(y.image, y.memory.as(), want.data(), c.images)) continue;
    coverage.fail("%s quantize: %ld images of %ldx%ldx%ld", isa, (long)c.images, (long)c.channels, (long)c.height, (long)c.width);
  }
}

void check_dequantize(const Case& c) {
  Codes x(random_image(c.channels, c.height, c.width), c.images);
  Guarded y(4 * c.images * c.channels * c.height * c.width, one_of({Edge::begin, Edge::end}), 4);
  std::vector<float> want(static_cast<size_t>(y.size() / 4));
  for (int64_t n = 0; n < c.images; ++n)
    for (int64_t k = 0; k < c.channels; ++k)
      for (int64_t i = 0; i < c.height; ++i)
        for (int64_t j = 0; j < c.width; ++j) want[c.at(n, k, i, j)] = static_cast<float>(x.code(n, k, i, j) - x.image.zero) * c.scale;
  for (const char* isa : {"scalar", "avx2", "avx512vnni"}) {
    if (!cpu_has_isa(isa)) continue;
    const QuantizeKernels& kernels = quantize_kernels(isa);
    std::fill_n(y.as(), y.size(), 0xff);
    run_in_parts(c.images * c.height, [&](Rows rows) { kernels.dequantize(x.image, c.scale, x.pixels(), y.as<float>(), rows); });
    coverage.ran(std::string(isa) + " dequantize", isa);
    if (std::memcmp(y.as(), want.data(), static_cast<size_t>(y.size())) == 0) continue;
    coverage.fail("%s dequantize: %ld images of %ldx%ldx%ld", isa, (long)c.images, (long)c.channels, (long)c.height, (long)c.width);
  }
}

Case random_case() {
  Case c;
  c.images = chance(90) ? pick(1, 3) : 128;
  c.channels = chance(50) ? pick(1, 5) : pick(1, c.images == 128 ? 10 : 130);
  c.height = one_of<int64_t>({1, 7, pick(1, 9)});
  c.width = one_of<int64_t>({1, 7, 16, 32, pick(1, 40)});
  if (c.images == 128) c.height = 1, c.width = pick(1, 7);
  c.scale = one_of({1.0f, 0.5f, 1.0f / 255, static_cast<float>(pick(1, 5000)) * 1e-4f, 1e-38f, 1e30f});
  c.nan = chance(15);
  return c;
}

// Every float whose quotient could round either way, for some ordinary scales: the neighbours of all ties.
void check_ties() {
  for (const float scale : {0.0186f, 1.0f / 255, 0.0203125f, 3.7f}) {
    std::vector<float> x;
    for (int code = 0; code < 512; ++code) {
      const float tie = (static_cast<float>(code) - 128.5f) * scale;
      for (const float v : {tie, std::nextafter(tie, 1e9f), std::nextafter(tie, -1e9f)}) x.push_back(v);
    }
    for (const char* isa : {"scalar", "avx2", "avx512vnni"}) {
      if (!cpu_has_isa(isa)) continue;
      Codes y(random_image(1, 3, 512), 1);
      quantize_kernels(isa).quantize(y.image, scale, x.data(), y.pixels(), {0, 3});
      for (int64_t k = 0; k < 3 * 512; ++k) {
        const uint8_t want = rounded(x[static_cast<size_t>(k)] / scale, y.image.zero);
        if (y.code(0, 0, k / 512, k % 512) != want) coverage.fail("%s quantize: %a at scale %a", isa, x[static_cast<size_t>(k)], scale);
      }
    }
  }
}

}  // namespace

int main() {
  check_ties();
  for (int i = 0; i < 700; ++i) check_quantize(random_case()), check_dequantize(random_case());
#if defined(__x86_64__)
  return coverage.report({"scalar", "avx2", "avx512vnni"});
#else
  return coverage.report({"scalar"});
#endif
}

// The float32 kernels of every instruction set against sums in double precision, and against each other however planes are shared out.
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/float32/float32.h"
#include "tests/image_cases.h"

using namespace tritkit;
using namespace tritkit_test;

namespace {

Coverage coverage;

FloatConvArgs random_conv() {
  FloatConvArgs a;
  a.groups = chance(70) ? 1 : pick(1, 5);
  a.in_channels = a.groups * pick(1, 20), a.out_channels = a.groups * pick(1, 11);
  a.kernel_h = one_of<int64_t>({1, 3, 5}), a.kernel_w = chance(70) ? a.kernel_h : pick(1, 4);
  a.stride_h = pick(1, 3), a.stride_w = chance(70) ? a.stride_h : pick(1, 3);
  a.dilation_h = pick(1, 2), a.dilation_w = pick(1, 2);
  a.in_h = pick(1, 9), a.in_w = pick(1, 21);
  a.top = pick(0, a.kernel_h), a.left = pick(0, a.kernel_w);
  a.out_h = pick(1, (a.in_h + a.top) / a.stride_h + 1), a.out_w = pick(1, (a.in_w + a.left) / a.stride_w + 1);
  if (chance(25)) {
    a = FloatConvArgs();
    a.in_channels = pick(1, 200), a.out_channels = pick(1, 20);
  }
  return a;
}

struct Expected {
  double sum, size;  // of the products, and of their absolute values: the scale of a rounding error
};

Expected expected(const FloatConvArgs& a, const float* x, int64_t n, int64_t o, int64_t i, int64_t j) {
  const int64_t channels = a.in_channels / a.groups, group = o / (a.out_channels / a.groups);
  Expected e = {a.bias[o], std::fabs(a.bias[o])};
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t ky = 0; ky < a.kernel_h; ++ky)
      for (int64_t kx = 0; kx < a.kernel_w; ++kx) {
        const int64_t h = i * a.stride_h - a.top + ky * a.dilation_h, w = j * a.stride_w - a.left + kx * a.dilation_w;
        if (h < 0 || h >= a.in_h || w < 0 || w >= a.in_w) continue;
        const double weight = a.weights[((o * channels + c) * a.kernel_h + ky) * a.kernel_w + kx];
        const double product = weight * x[((n * a.in_channels + group * channels + c) * a.in_h + h) * a.in_w + w];
        e.sum += product, e.size += std::fabs(product);
      }
  return e;
}

void fill(Guarded& memory) {
  for (int64_t k = 0; k < memory.size() / 4; ++k) memory.as<float>()[k] = static_cast<float>(pick(-1000, 1000)) / 100.0f;
}

void check_values(const char* isa, const FloatConvArgs& a, int64_t images, const float* x, const float* y) {
  for (int64_t n = 0; n < images; ++n)
    for (int64_t o = 0; o < a.out_channels; ++o)
      for (int64_t i = 0; i < a.out_h; ++i)
        for (int64_t j = 0; j < a.out_w; ++j, ++y) {
          const Expected e = expected(a, x, n, o, i, j);
          if (std::fabs(*y - e.sum) > 1e-4 * e.size + 1e-6) return coverage.fail("%s conv: %g, not %g", isa, *y, e.sum);
        }
}

void check_conv() {
  FloatConvArgs a = random_conv();
  const int64_t images = pick(1, 3), planes = images * a.out_channels;
  const Edge edge = one_of({Edge::begin, Edge::end});
  Guarded x(4 * images * a.in_channels * a.in_h * a.in_w, edge, 4), y(4 * planes * a.out_h * a.out_w, edge, 4), bias(4 * a.out_channels, edge, 4);
  Guarded weights(4 * a.out_channels * a.in_channels / a.groups * a.kernel_h * a.kernel_w, edge, 4);
  fill(x), fill(bias), fill(weights);
  a.weights = weights.as<float>(), a.bias = bias.as<float>();
  std::vector<uint8_t> first;
  for (const char* isa : {"scalar", "avx2", "avx512vnni"}) {
    if (!cpu_has_isa(isa)) continue;
    const FloatKernels& kernels = float_kernels(isa);
    if (std::string(kernels.isa) != isa) coverage.fail("the limit %s gives %s", isa, kernels.isa);
    run_in_parts(planes, [&](Rows rows) { kernels.conv(a, x.as<float>(), y.as<float>(), rows.begin, rows.end); });
    coverage.ran(std::string(isa) + " conv", isa);
    if (first.empty()) first.assign(y.as(), y.as() + y.size()), check_values(isa, a, images, x.as<float>(), y.as<float>());
    if (std::memcmp(first.data(), y.as(), first.size()) != 0) coverage.fail("%s conv differs from scalar", isa);
  }
}

void check_clip() {
  Guarded x(4 * pick(1, 100), one_of({Edge::begin, Edge::end}), 4), y(x.size(), Edge::end, 4);
  fill(x);
  x.as<float>()[0] = std::nanf("");
  const float low = static_cast<float>(pick(-9, 0)), high = static_cast<float>(pick(0, 9));
  for (const char* isa : {"scalar", "avx2", "avx512vnni"}) {
    if (!cpu_has_isa(isa)) continue;
    run_in_parts(x.size() / 4, [&](Rows rows) { float_kernels(isa).clip(low, high, x.as<float>(), y.as<float>(), rows.begin, rows.end); });
    coverage.ran(std::string(isa) + " clip", isa);
    if (!std::isnan(y.as<float>()[0])) coverage.fail("%s clip loses a NaN", isa);
    for (int64_t k = 1; k < x.size() / 4; ++k) {
      if (y.as<float>()[k] != std::fmin(std::fmax(x.as<float>()[k], low), high)) coverage.fail("%s clip", isa);
    }
  }
}

}  // namespace

int main() {
  for (int i = 0; i < 400; ++i) check_conv(), check_clip();
#if defined(__x86_64__)
  return coverage.report({"scalar", "avx2", "avx512vnni"});
#else
  return coverage.report({"scalar"});
#endif
}

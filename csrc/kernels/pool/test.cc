// The pool kernels of every instruction set against the formula, bit for bit.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/pool/pool.h"
#include "tests/image_cases.h"

using namespace tritkit;
using namespace tritkit_test;

namespace {

Coverage coverage;

// Runs `run` of every instruction set and compares with `want`, which holds y's memory as it must be.
template <typename Run>
void compare(const char* op, Codes& y, int64_t images, const std::vector<uint8_t>& want, Run run) {
  const std::vector<uint8_t> before(y.memory.as(), y.memory.as() + y.memory.size());
  for (const char* isa : {"scalar", "avx2", "avx512vnni"}) {
    if (!cpu_has_isa(isa)) continue;
    const PoolKernels& kernels = pool_kernels(isa);
    if (std::string(kernels.isa) != isa) coverage.fail("the limit %s gives %s", isa, kernels.isa);
    std::copy(before.begin(), before.end(), y.memory.as());
    run_in_parts(images * y.image.height, [&](Rows rows) { run(kernels, rows); });
    coverage.ran(std::string(isa) + " " + op, isa);
    if (same_codes(y.image, y.memory.as(), want.data(), images)) continue;
    coverage.fail("%s %s: %ld images to %ldx%ldx%ld", isa, op, (long)images, (long)y.image.channels, (long)y.image.height, (long)y.image.width);
  }
}

// `want` of y, whose pixel (n, c, i, j) is value(n, c, i, j).
template <typename Value>
std::vector<uint8_t> expected(Codes& y, int64_t images, Value value) {
  std::vector<uint8_t> want(y.memory.as(), y.memory.as() + y.memory.size());
  uint8_t* const pixels = want.data() + (y.pixels() - y.memory.as());
  for (int64_t n = 0; n < images; ++n)
    for (int64_t c = 0; c < y.image.channels; ++c)
      for (int64_t i = 0; i < y.image.height; ++i)
        for (int64_t j = 0; j < y.image.width; ++j) pixels[y.image.at(n, i, j) + c] = value(n, c, i, j);
  return want;
}

int64_t random_channels() { return chance(50) ? pick(1, 130) : one_of<int64_t>({1, 3, 16, 32, 64, 128, 192, 256, 260}); }

void check_max() {
  const int64_t images = chance(90) ? pick(1, 3) : 128, channels = images == 128 ? pick(1, 70) : random_channels();
  MaxPoolArgs args;
  args.kernel_h = one_of<int64_t>({1, 2, 3, 3, 5}), args.kernel_w = chance(70) ? args.kernel_h : pick(1, 11);
  args.stride_h = pick(1, 4), args.stride_w = chance(70) ? args.stride_h : pick(1, 3);
  args.dilation_h = chance(70) ? 1 : pick(1, 3), args.dilation_w = chance(70) ? args.dilation_h : pick(1, 3);
  args.top = pick(0, args.kernel_h / 2), args.left = pick(0, args.kernel_w / 2);
  const int64_t height = images == 128 ? 3 : pick(1, 9), width = images == 128 ? 2 : pick(1, 12);
  // Windows may reach beyond the right and bottom border, but each has a tap inside.
  const int64_t out_h = (height - 1 + args.top) / args.stride_h + 1, out_w = (width - 1 + args.left) / args.stride_w + 1;
  Codes x(random_image(channels, height, width), images), y(random_image(channels, pick(1, out_h), pick(1, out_w)), images);
  args.x = x.image, args.y = y.image;
  const auto value = [&](int64_t n, int64_t c, int64_t i, int64_t j) {
    uint8_t best = 0;
    for (int64_t ky = 0; ky < args.kernel_h; ++ky) {
      for (int64_t kx = 0; kx < args.kernel_w; ++kx) {
        const int64_t h = i * args.stride_h - args.top + ky * args.dilation_h, w = j * args.stride_w - args.left + kx * args.dilation_w;
        if (h >= 0 && h < height && w >= 0 && w < width) best = std::max(best, x.code(n, c, h, w));
      }
    }
    return best;
  };
  compare("max_pool", y, images, expected(y, images, value),
          [&](const PoolKernels& kernels, Rows rows) { kernels.max_pool(args, x.pixels(), y.pixels(), rows); });
}

std::vector<PoolRun> random_runs(int64_t outputs, int64_t size) {
  std::vector<PoolRun> runs;
  for (int64_t i = 0; i < outputs; ++i) {
    const int64_t begin = chance(30) ? 0 : pick(0, size - 1);
    runs.push_back({begin, chance(30) ? size : pick(begin + 1, size)});
  }
  return runs;
}

void check_average() {
  const int64_t images = chance(90) ? pick(1, 3) : 128, channels = images == 128 ? pick(1, 70) : random_channels();
  const int64_t height = images == 128 ? 2 : pick(1, 9), width = images == 128 ? 3 : pick(1, 9);
  Codes x(random_image(channels, height, width), images), y(random_image(channels, pick(1, 4), pick(1, 4)), images);
  if (chance(10)) std::fill_n(x.memory.as(), x.memory.size(), 255);
  const std::vector<PoolRun> rows = random_runs(y.image.height, height), cols = random_runs(y.image.width, width);
  std::vector<float> multiplier;
  for (int64_t i = 0; i < y.image.height * y.image.width; ++i) {
    multiplier.push_back(one_of({1.0f, 0.5f, 1.0f / 49, static_cast<float>(pick(1, 2000)) / 20000.0f, 3e38f}));
  }
  const AveragePoolArgs args = {x.image, y.image, rows.data(), cols.data(), multiplier.data()};
  const auto value = [&](int64_t n, int64_t c, int64_t i, int64_t j) {
    int64_t sum = 0;
    const size_t row = static_cast<size_t>(i), col = static_cast<size_t>(j);
    for (int64_t h = rows[row].begin; h < rows[row].end; ++h)
      for (int64_t w = cols[col].begin; w < cols[col].end; ++w) sum += x.code(n, c, h, w) - x.image.zero;
    const float scaled = static_cast<float>(static_cast<int32_t>(sum)) * multiplier[static_cast<size_t>(i * y.image.width + j)];
    return static_cast<uint8_t>(std::min(255.0f, std::max(0.0f, std::nearbyint(scaled) + static_cast<float>(y.image.zero))));
  };
  compare("average_pool", y, images, expected(y, images, value),
          [&](const PoolKernels& kernels, Rows range) { kernels.average_pool(args, x.pixels(), y.pixels(), range); });
}

}  // namespace

int main() {
  for (int i = 0; i < 700; ++i) check_max(), check_average();
#if defined(__x86_64__)
  return coverage.report({"scalar", "avx2", "avx512vnni"});
#else
  return coverage.report({"scalar"});
#endif
}

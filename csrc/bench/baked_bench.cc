// Speed of the zero-skipping convolutions and of Winograd's beside the dense kernel on one thread, in useful multiply-adds a cycle (zeros counted).
//   g++ -O3 -std=c++17 -Icsrc csrc/bench/baked_bench.cc $(find BUILD/CMakeFiles/tritkit_objects.dir -name '*.o') -lpthread -o baked_bench
//   taskset -c 1 ./baked_bench [part of a layer's name]        TRITKIT_ISA=avx2: with no newer instructions
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "base/cpu.h"
#include "kernels/baked/baked.h"
#include "kernels/gather/gather.h"
#include "kernels/winograd/winograd.h"

using namespace tritkit;

namespace {

// Seconds of this thread: others on the same core do not count.
double now() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

struct Layer {
  const char* name;
  int64_t in, out, kernel, size, stride, images;
};

const Layer kLayers[] = {
    {"3x3 64->64 56x56", 64, 64, 3, 56, 1, 1},      {"3x3 128->128 28x28", 128, 128, 3, 28, 1, 1},
    {"3x3 256->256 14x14", 256, 256, 3, 14, 1, 1},  {"3x3 512->512 7x7", 512, 512, 3, 7, 1, 1},
    {"3x3 512->512 7x7 x8", 512, 512, 3, 7, 1, 8},  {"3x3/2 64->128 28x28", 64, 128, 3, 28, 2, 1},
    {"3x3/2 256->512 7x7", 256, 512, 3, 7, 2, 1},   {"1x1 64->256 56x56", 64, 256, 1, 56, 1, 1},
    {"1x1 256->64 56x56", 256, 64, 1, 56, 1, 1},    {"1x1 1024->256 14x14", 1024, 256, 1, 14, 1, 1},
    {"1x1 512->2048 7x7", 512, 2048, 1, 7, 1, 1},   {"3x3 16->16 32x32", 16, 16, 3, 32, 1, 1},
    {"3x3 32->32 16x16", 32, 32, 3, 16, 1, 1},      {"3x3 64->64 8x8", 64, 64, 3, 8, 1, 1},
    {"3x3 16->16 32x32 x64", 16, 16, 3, 32, 1, 64}, {"3x3 32->32 16x16 x64", 32, 32, 3, 16, 1, 64},
    {"3x3 64->64 8x8 x64", 64, 64, 3, 8, 1, 64},    {"5x5 48->128 54x54", 48, 128, 5, 54, 1, 1},
    {"3x3 256->384 27x27", 256, 384, 3, 27, 1, 1},
};

template <typename Run>
double seconds(Run run) {
  double best = 1e9, spent = 0;
  for (int i = 0; i < 5 || (spent < 0.1 && i < 20000); ++i) {
    const double begin = now();
    run();
    const double taken = now() - begin;
    best = std::min(best, taken), spent += taken;
  }
  return best;
}

uint8_t* aligned(std::vector<uint8_t>& storage, size_t bytes) {
  storage.assign(bytes + 64, 1);
  return storage.data() + (64 - reinterpret_cast<uintptr_t>(storage.data()) % 64) % 64;
}

// The dense kernel with its weights as bytes.
double seconds_of_bytes(ConvArgs a, const ConvKernel& dense, std::vector<int8_t> codes, const std::vector<int8_t>& plus, const std::vector<int8_t>& minus, int64_t pixels) {
  const size_t inputs = codes.size() / plus.size();
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = codes[i] > 0 ? plus[i / inputs] : codes[i] < 0 ? minus[i / inputs] : int8_t{0};
  std::vector<uint8_t> packs;
  void* const packed = aligned(packs, dense.packed_bytes(a.shape, false));
  dense.pack(a.shape, {codes.data(), nullptr, nullptr}, packed);
  a.packed = packed;
  return seconds([&] { dense.run(a, {0, pixels, 0, dense.panels(a.shape)}); });
}

void measure(const Layer& l, double density, bool symmetric) {
  ConvShape s;
  s.in_channels = l.in, s.out_channels = l.out, s.kernel_h = s.kernel_w = l.kernel;
  s.stride_h = s.stride_w = l.stride, s.out_h = s.out_w = l.size;
  const int64_t pad = l.kernel / 2, width = (l.size - 1) * l.stride + l.kernel, pixels = l.images * l.size * l.size;
  std::vector<int8_t> codes(static_cast<size_t>(l.in * l.out * l.kernel * l.kernel)), plus(static_cast<size_t>(l.out), 64), minus(static_cast<size_t>(l.out), symmetric ? -64 : -50);
  for (int8_t& code : codes) code = std::rand() < density * RAND_MAX ? static_cast<int8_t>(std::rand() % 2 * 2 - 1) : 0;
  std::vector<uint8_t> xs, ys, packs, works;
  ConvArgs a;
  a.shape = s;
  a.x_pixel = (l.in + 3) / 4 * 4, a.x_row = width * a.x_pixel, a.x_image = width * a.x_row;
  a.y_pixel = l.out, a.y_row = l.size * a.y_pixel, a.y_image = l.size * a.y_row;
  a.x = aligned(xs, static_cast<size_t>(l.images * a.x_image));
  a.y = aligned(ys, static_cast<size_t>(l.images * a.y_image));
  const std::vector<int32_t> bias(static_cast<size_t>(padded_outputs(l.out)), 3);
  const std::vector<float> multiplier(bias.size(), 0.01f);
  a.bias = bias.data(), a.multiplier = multiplier.data();
  const ConvWeights weights{codes.data(), plus.data(), minus.data()};
  const char* const isa = std::getenv("TRITKIT_ISA");
  const ConvKernel* kernels[32];
  const ConvKernel* const* dense_at = kernels;
  conv_kernels(isa, kernels, 32);
  while (!(*dense_at)->fits(s, true)) ++dense_at;  // the reference fits everything
  const ConvKernel* const dense = *dense_at;
  void* const packed = aligned(packs, dense->packed_bytes(s, true));
  dense->pack(s, weights, packed);
  a.packed = packed;
  const double rate = 1e9 * cycles_per_nanosecond(), macs = static_cast<double>(pixels) * static_cast<double>(codes.size());
  const double slow = seconds([&] { dense->run(a, {0, pixels, 0, dense->panels(s)}); });
  const double bytes = seconds_of_bytes(a, *dense, codes, plus, minus, pixels);
  const double begin = now();
  const auto baked = BakedConv::make(s, {pad, pad, pad, pad}, weights, isa, size_t{64} << 20, INFINITY);
  const double made = now() - begin;
  uint8_t* const scratch = aligned(works, baked->scratch_bytes());
  const double fast = seconds([&] { baked->run(a, l.images, 0, 1, scratch); });
  const auto gather = GatherConv::make(a, weights, isa, true);
  const double picked = gather ? seconds([&] { gather->run(a, {0, pixels, 0, dense->panels(s)}); }) : 0;
  std::printf("%-22s %.2f %s dense %6.1f  unpacked %6.1f  ", l.name, density, symmetric ? "=" : "/", macs / slow / rate, macs / bytes / rate);
  if (gather) std::printf("gather %6.1f (guess %6.1f, %.2f rounds, %.0f KB)  ", macs / picked / rate, macs / gather->cycles(pixels), gather->rounds(), static_cast<double>(gather->packed_bytes()) / 1e3);
  const auto winograd = WinogradConv::make(s, weights, isa, INFINITY);
  if (winograd) {
    a.scratch = aligned(works, WinogradConv::scratch_bytes(s));
    const double tiled = seconds([&] { winograd->run(a, {0, pixels, 0, dense->panels(s)}); });
    std::printf("winograd %6.1f (guess %6.1f)  ", macs / tiled / rate, macs / static_cast<double>(l.images) / WinogradConv::cycles(s));
  }
  std::printf("baked %6.1f (guess %6.1f, %.0f KB in %.2f ms)\n", macs / fast / rate, macs / baked->cycles(l.images), static_cast<double>(baked->code_bytes()) / 1e3, made * 1e3);
}

}  // namespace

int main(int argc, char** argv) {
  for (const Layer& layer : kLayers) {
    if (argc > 1 && !std::strstr(layer.name, argv[1])) continue;
    for (const double density : {0.25, 0.35, 0.5}) measure(layer, density, true);
    measure(layer, 0.5, false);
  }
}

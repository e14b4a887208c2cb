#include "base/cpu.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#define TRITKIT_X86 1
#endif
#if defined(__linux__) && defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace tritkit {
namespace {

constexpr const char* kIsaNames[] = {"scalar", "avx2", "avxvnni", "avx512vnni", "amx"};
constexpr size_t kIsaCount = sizeof(kIsaNames) / sizeof(kIsaNames[0]);

#ifdef TRITKIT_X86

constexpr uint64_t kYmmState = 0x06;  // XCR0: sse and ymm upper halves
constexpr uint64_t kZmmState = 0xe6;  // and mask registers, zmm upper halves, zmm16-31
constexpr uint64_t kTileState = 0x60000;  // configuration and data of AMX tiles

struct Registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
  Registers r;
  if (!__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx)) return Registers();
  return r;
}

bool bit(unsigned word, int index) { return (word >> index & 1) != 0; }

// Which register states the system saves; the instruction needs OSXSAVE.
uint64_t saved_states() {
  if (!bit(cpuid(1, 0).ecx, 27)) return 0;
  unsigned low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

// Linux gives tile registers to processes that ask for them.
bool ask_for_tiles() {
#if defined(__linux__) && defined(__x86_64__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

CpuFeatures detect() {
  CpuFeatures f;
  const uint64_t states = saved_states();
  const Registers leaf7 = cpuid(7, 0);
  const bool ymm = (states & kYmmState) == kYmmState;
  const bool zmm = (states & kZmmState) == kZmmState;
  f.avx2 = ymm && bit(leaf7.ebx, 5);
  f.avxvnni = f.avx2 && leaf7.eax >= 1 && bit(cpuid(7, 1).eax, 4);
  const bool foundation = bit(leaf7.ebx, 16), dq = bit(leaf7.ebx, 17), bw = bit(leaf7.ebx, 30), vl = bit(leaf7.ebx, 31);
  f.avx512vnni = zmm && f.avx2 && foundation && dq && bw && vl && bit(leaf7.ecx, 11);
  const bool tiles = (states & kTileState) == kTileState && bit(leaf7.edx, 24) && bit(leaf7.edx, 25);
  f.amx = f.avx512vnni && tiles && ask_for_tiles();
  return f;
}

#else

CpuFeatures detect() { return CpuFeatures(); }

#endif

}  // namespace

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = detect();
  return features;
}

const char* const* isa_names(size_t* count) {
  *count = kIsaCount;
  return kIsaNames;
}

int isa_rank(const char* name) {
  for (size_t i = 0; i < kIsaCount; ++i) {
    if (std::strcmp(kIsaNames[i], name) == 0) return static_cast<int>(i);
  }
  return -1;
}

bool cpu_has_isa(const char* name) {
  const CpuFeatures& f = cpu_features();
  const bool has[kIsaCount] = {true, f.avx2, f.avxvnni, f.avx512vnni, f.amx};
  const int rank = isa_rank(name);
  return rank >= 0 && has[rank];
}

std::string cpu_model() {
#ifdef TRITKIT_X86
  char name[49] = {};
  for (unsigned i = 0; i < 3; ++i) {
    const Registers r = cpuid(0x80000002u + i, 0);
    const unsigned words[4] = {r.eax, r.ebx, r.ecx, r.edx};
    std::memcpy(name + 16 * i, words, 16);
  }
  std::string model = name;
  model.erase(std::remove_if(model.begin(), model.end(), [](char c) { return c < ' ' || c > '~'; }), model.end());
  return model + " " + std::to_string(cpuid(1, 0).eax);
#else
  return "unknown";
#endif
}

namespace {

// How often a nanosecond `run` does what it does `count` times, at its best.
template <typename Run>
double rate_of(double count, Run run) {
  constexpr int kRounds = 10;
  double best = 0;
  for (int round = 0; round < kRounds; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    run();
    const double taken = std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - begin).count();
    if (taken > 0) best = std::max(best, count / taken);
  }
  return best > 0 ? best : 1.0;
}

}  // namespace

double cycles_per_nanosecond() {
  constexpr int kSteps = 2000;
  static const double rate = rate_of(8.0 * kSteps, [] {
    unsigned long sum = 0, one = 1;
    __asm__ volatile("" : "+r"(one));  // some CPUs add several constants a cycle
    for (int i = 0; i < kSteps; ++i) {
      for (int j = 0; j < 8; ++j) {
        sum += one;
        __asm__ volatile("" : "+r"(sum));
      }
    }
  });
  return rate;
}

double wide_additions_per_cycle() {
#if defined(__x86_64__)
  if (!cpu_features().avx512vnni) return 0;
  constexpr int kSteps = 250;
  static const double rate = rate_of(12.0 * kSteps, [] {
    for (int i = 0; i < kSteps; ++i) {  // 12 additions that do not wait for one another, in registers that SSE knows too
      __asm__ volatile(
          "vpaddw %%zmm0, %%zmm0, %%zmm0\n vpaddw %%zmm1, %%zmm1, %%zmm1\n vpaddw %%zmm2, %%zmm2, %%zmm2\n"
          "vpaddw %%zmm3, %%zmm3, %%zmm3\n vpaddw %%zmm4, %%zmm4, %%zmm4\n vpaddw %%zmm5, %%zmm5, %%zmm5\n"
          "vpaddw %%zmm6, %%zmm6, %%zmm6\n vpaddw %%zmm7, %%zmm7, %%zmm7\n vpaddw %%zmm8, %%zmm8, %%zmm8\n"
          "vpaddw %%zmm9, %%zmm9, %%zmm9\n vpaddw %%zmm10, %%zmm10, %%zmm10\n vpaddw %%zmm11, %%zmm11, %%zmm11" ::
              : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11");
    }
    __asm__ volatile("vzeroupper" ::
                         : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
  });
  return rate / cycles_per_nanosecond();
#else
  return 0;
#endif
}

}  // namespace tritkit

// What the tests of kernels share: random choices, memory between forbidden pages, and the count of what ran.
#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <map>
#include <random>
#include <string>

#include "base/cpu.h"

namespace tritkit_test {

inline std::mt19937_64& rng() {
  static std::mt19937_64 generator(20240607);
  return generator;
}

inline int64_t pick(int64_t low, int64_t high) { return low + static_cast<int64_t>(rng()() % static_cast<uint64_t>(high - low + 1)); }
inline bool chance(int percent) { return pick(1, 100) <= percent; }
template <typename T>
T one_of(std::initializer_list<T> values) {
  return values.begin()[pick(0, static_cast<int64_t>(values.size()) - 1)];
}

enum class Edge { begin, end };

// `size` random bytes (zeros if not `random`) between two pages without access, touching the one `edge` names as near as the
// alignment lets it, or `shift` bytes off it.
class Guarded {
 public:
  Guarded(int64_t size, Edge edge, int64_t alignment = 1, int64_t shift = 0, bool random = true) : size_(size) {
    const int64_t page = sysconf(_SC_PAGESIZE), inner = (size + shift + page) / page * page;
    mapped_ = static_cast<size_t>(inner + 2 * page);
    base_ = static_cast<uint8_t*>(mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (base_ == MAP_FAILED || mprotect(base_ + page, static_cast<size_t>(inner), PROT_READ | PROT_WRITE) != 0) std::abort();
    data_ = base_ + page + (edge == Edge::begin ? shift : (inner - size - shift) / alignment * alignment);
    for (int64_t i = 0; random && i < size; ++i) data_[i] = static_cast<uint8_t>(rng()());
  }
  ~Guarded() { munmap(base_, mapped_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  template <typename T = uint8_t>
  T* as() { return reinterpret_cast<T*>(data_); }
  int64_t size() const { return size_; }

 private:
  int64_t size_;
  size_t mapped_;
  uint8_t *base_, *data_;
};

// Cases run, by kernel; and failures, of which the first 20 are printed.
class Coverage {
 public:
  void ran(const std::string& kernel, const char* isa) { ++kernels_[kernel], ++isas_[isa]; }

  bool has_run(const std::string& kernel) const { return kernels_.count(kernel) > 0; }

  template <typename... Values>
  void fail(const char* format, Values... values) {
    if (++failures_ > 20) return;
    std::printf("FAILED ");
    std::printf(format, values...);
    std::printf("\n");
  }

  // Prints what ran. Fails if an instruction set of `expected` that this CPU has did not.
  int report(std::initializer_list<const char*> expected) {
    for (const auto& [name, cases] : kernels_) std::printf("%s: %d cases\n", name.c_str(), cases);
    for (const char* isa : expected) {
      if (!tritkit::cpu_has_isa(isa)) std::printf("%s: this CPU has it not, so not tested\n", isa);
      else if (isas_[isa] == 0) fail("no kernel ran for %s", isa);
    }
    std::printf(failures_ ? "%d failures\n" : "all equal\n", failures_);
    return failures_ != 0;
  }

 private:
  std::map<std::string, int> kernels_, isas_;
  int failures_ = 0;
};

}  // namespace tritkit_test

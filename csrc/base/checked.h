// Integer arithmetic on numbers from a file: never wraps, says so instead.
#pragma once
#include <cstdint>

#include "base/error.h"

namespace tritkit {

inline int64_t checked_mul(int64_t a, int64_t b) {
  int64_t product;
  if (__builtin_mul_overflow(a, b, &product)) bad_model("the file claims a size beyond 2^63");
  return product;
}

inline int64_t checked_add(int64_t a, int64_t b) {
  int64_t sum;
  if (__builtin_add_overflow(a, b, &sum)) bad_model("the file claims a size beyond 2^63");
  return sum;
}

inline int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace tritkit

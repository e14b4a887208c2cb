// Its loop becomes vector instructions: of AVX2, for which this file is compiled on x86-64; elsewhere of what there is.
#include "kernels/baked/partner.h"

namespace tritkit {
namespace {

inline uint32_t bits(uint32_t x) {
  x -= x >> 1 & 0x55555555u;
  x = (x & 0x33333333u) + (x >> 2 & 0x33333333u);
  x = (x + (x >> 4)) & 0x0f0f0f0fu;
  x += x >> 8;
  return (x + (x >> 16)) & 63u;
}
inline uint32_t less_one(uint32_t count) { return count - (count != 0); }

}  // namespace

uint32_t best_partner(uint32_t plus, uint32_t minus, const uint32_t* pluses, const uint32_t* minuses, uint32_t count) {
  uint32_t best = 0;  // additions saved in the upper half, how far from the end in the lower one
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t same = bits((plus & pluses[i]) | (minus & minuses[i])), other = bits((plus & minuses[i]) | (minus & pluses[i]));
    const uint32_t found = (less_one(same) + less_one(other)) << 16 | (count - i);
    best = found > best ? found : best;
  }
  return best >> 16 == 0 ? count : count - (best & 0xffffu);
}

}  // namespace tritkit

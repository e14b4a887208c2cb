// The one rounding of the contract: clip(rint(value) + zero) to [0, 255], ties to even.
#pragma once
#include <cstdint>

namespace tritkit {

// Vectorises on any CPU: adding 1.5 * 2^23 leaves no fraction bits, in the default rounding mode. Clipping first to +-1024
// changes no result, as zero is in [0, 255]. A NaN gives the lowest value; callers refuse NaN themselves.
inline uint8_t round_to_u8(float value, int32_t zero) {
  constexpr float magic = 12582912.0f;
  value = value > -1024.0f ? value : -1024.0f;
  value = value < 1024.0f ? value : 1024.0f;
  const int32_t code = static_cast<int32_t>((value + magic) - magic) + zero;
  return static_cast<uint8_t>(code < 0 ? 0 : code > 255 ? 255 : code);
}

}  // namespace tritkit

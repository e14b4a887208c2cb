// The one rounding of the contract: clip(rint(value) + zero) to [0, 255], ties to even.
#pragma once
#include <cstdint>

namespace tritkit {

// Clips first, which gives the same as both limits are whole numbers, and then no integer needs a comparison. Vectorises on any
// CPU: adding 1.5 * 2^23 leaves no fraction bits, in the default rounding mode. `zero` is in [0, 255]. A NaN gives 0; callers
// refuse NaN themselves.
inline uint8_t round_to_u8(float value, int32_t zero) {
  constexpr float magic = 12582912.0f;
  const float low = static_cast<float>(-zero), high = static_cast<float>(255 - zero);
  value = value > low ? value : low;
  value = value < high ? value : high;
  return static_cast<uint8_t>(static_cast<int32_t>((value + magic) - magic) + zero);
}

}  // namespace tritkit

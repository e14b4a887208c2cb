// round_to_u8 against the sentence it stands for, clip(rint(value) + zero), at ties, neighbours of ties and extremes.
#include "base/round.h"

#include <cmath>
#include <limits>
#include <vector>

#include "tests/expect.h"

namespace {

uint8_t slowly(float value, int zero) {
  const double code = std::nearbyint(static_cast<double>(value)) + zero;
  return static_cast<uint8_t>(code < 0 ? 0 : code > 255 ? 255 : code);
}

std::vector<float> values() {
  const float infinity = std::numeric_limits<float>::infinity();
  std::vector<float> result{0.0f, -0.0f, infinity, -infinity, 3e38f, -3e38f, 1e-40f, -1e-40f};
  for (int half = -1200; half <= 1200; ++half) {
    const float tie = static_cast<float>(half) / 2;
    for (float near : {tie, std::nextafter(tie, infinity), std::nextafter(tie, -infinity), tie * 7.3f}) result.push_back(near);
  }
  return result;
}

}  // namespace

int main() {
  for (int zero = 0; zero < 256; ++zero) {
    for (float value : values()) EXPECT(tritkit::round_to_u8(value, zero) == slowly(value, zero));
  }
  EXPECT(tritkit::round_to_u8(std::numeric_limits<float>::quiet_NaN(), 10) == 0);
  return tritkit_test::report("round_test");
}

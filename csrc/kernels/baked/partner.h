// The search of pairing.cc, in a file of its own so that the compiler may use the instructions that baked convolutions need anyway.
#pragma once
#include <cstdint>

namespace tritkit {

// Of `count` < 65536 inputs the first one that saves most additions beside an input that the sums `plus` add and the sums `minus`
// subtract: one for each sum that takes both with the same sign, less one, and likewise with opposite signs. `count` if none saves any.
uint32_t best_partner(uint32_t plus, uint32_t minus, const uint32_t* pluses, const uint32_t* minuses, uint32_t count);

}  // namespace tritkit

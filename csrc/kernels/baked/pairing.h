// Additions that outputs share: where several sums of a tile take two inputs alike, these are added (or subtracted) once for all.
//
// A tile of 24 outputs takes 24 ternary combinations of its inputs. Any two inputs have the same signs in one or two of them, and opposite
// signs in as many; the best of some hundred candidates has either in six or so. That saves a quarter of the additions at density 0.35
// and three tenths at 0.5 (docs/engine.md).
#pragma once
#include <cstdint>
#include <vector>

namespace tritkit {

// One channel at one tap, and the sums of the tile, as bits, that it is added to and subtracted from.
struct BakedInput {
  int32_t at;  // byte offset of its pixels
  uint32_t plus, minus;
  uint32_t users() const { return plus | minus; }
};

// Two inputs a and b, and the sums that take a + b (or its negative) and a - b (or its negative) whole; other sums take them one by one.
// Without `shared` sums there is no b.
struct BakedPair {
  BakedInput a, b;
  uint32_t sum, difference;
  uint32_t shared() const { return sum | difference; }
};

// All of `inputs`, in their order but for the partners that move to the front, each of which has some user.
std::vector<BakedPair> pair_inputs(const std::vector<BakedInput>& inputs);

// Instructions of a pair: loads to registers (none where one addition reads memory), and additions to sums or of the two.
int64_t loads(const BakedPair& pair);
int64_t additions(const BakedPair& pair);

}  // namespace tritkit

// The gathering convolution: dot products of four bytes that take only inputs whose weight is not zero. A byte shuffle brings each
// output its own four of 64 input bytes. Same arguments, same bits as the kernels of conv.h; no machine code is made.
//
// The bytes that an output sums are one line, kernel row after kernel row. A strip of 16 outputs walks along it in steps: a step
// loads 64 bytes of the line for every pixel and does a few rounds, in each of which every output takes up to four bytes. The next
// step begins at the first byte that some output has still to take, so an output with few weights here waits and one with many
// decides; over the line they even out, and few rounds are not full.
#pragma once
#include <memory>
#include <vector>

#include "base/memory.h"
#include "kernels/conv/conv.h"

namespace tritkit {

// The 64 bytes of a step: those of `mask` from pixel + offset, those of `other_mask` from pixel + other (the line's next piece).
struct GatherStep {
  int64_t offset, other;
  uint64_t mask, other_mask;
  int64_t rounds;
};

// 16 outputs; a round is 64 byte indices and 64 weights: four for each output.
struct GatherStrip {
  int64_t outputs, rounds;  // rounds of all its steps
  int64_t step, steps;      // in the list of all steps
  size_t data;              // byte offset of its first round
};

// Up to 64 outputs of one group. Strips are made of outputs with about as many weights: the fullest decides how many steps there are.
struct GatherPanel {
  int64_t group, output, outputs;
  int64_t strip;      // its first
  bool sorted;        // else the outputs are in their own order
  uint8_t order[64];  // the output at each place of the strips, counted within the panel
  uint8_t place[64];  // and the place of each output
};

class GatherConv {
 public:
  // Null where the CPU or `isa_limit` (as in conv_kernels) lacks AVX-512 VNNI and VBMI, the shape does not fit, or (unless `always`)
  // the weights are too dense to gain. Strides as in ConvArgs.
  static std::unique_ptr<GatherConv> make(const ConvArgs& args, const ConvWeights& weights, const char* isa_limit, bool always);

  // `args` as for a kernel of conv.h, without packed weights; panels as conv_panels() counts them.
  void run(const ConvArgs& args, const ConvRange& range) const;

  size_t packed_bytes() const { return data_.size(); }
  double rounds() const;                      // for each 16 outputs and 64 inputs; dense kernels have 16 products
  double cycles(int64_t pixels) const;        // an estimate, on one thread
  static bool available(const char* isa_limit);
  static const char* name() { return "avx512vbmi_gather"; }
  static const char* isa() { return "avx512vnni"; }

 private:
  friend class GatherPacker;

  int64_t inputs_ = 0;    // of an output
  std::vector<GatherStep> steps_;
  std::vector<GatherStrip> strips_;
  std::vector<GatherPanel> panels_;
  AlignedBuffer data_;
};

// What an instruction set's file runs.
struct GatherWork {
  const ConvArgs& args;
  const GatherPanel& panel;
  const GatherStrip* strips;  // of the panel
  const GatherStep* steps;
  const uint8_t* data;
  const uint8_t* next;  // of the panel that runs afterwards, null at the end
  int64_t pixel_begin, pixel_end;
};
void run_gather_avx512vnni(const GatherWork& work);

inline constexpr int64_t kGatherWindow = 64, kGatherStrip = 16, kGatherRoundBytes = 128;

}  // namespace tritkit

// The gathering convolution: dot products of four bytes that take only inputs whose weight is not zero. A byte shuffle brings each
// output its own four of 64 input bytes, so a window of 64 inputs costs as many products as its fullest output of 16 has fours of
// weights, not 16. Same arguments, same bits as the kernels of conv.h; no machine code is made.
#pragma once
#include <memory>
#include <vector>

#include "base/memory.h"
#include "kernels/conv/conv.h"

namespace tritkit {

// 64 bytes of a pixel's input, or fewer at the end of a run.
struct GatherWindow {
  int64_t offset;  // from the pixel
  uint64_t mask;   // the bytes that are read
};

// Up to 64 outputs of one group, in strips of 16. A round is 64 byte indices and 64 weights: four for each of the 16 outputs.
struct GatherPanel {
  int64_t group, output, outputs;
  size_t data;                  // byte offset of its first round
  std::vector<uint8_t> rounds;  // [strip][window]
};

class GatherConv {
 public:
  // Null where the CPU or `isa_limit` (as in conv_kernels) lacks AVX-512 VNNI and VBMI, the shape does not fit, or (unless `always`)
  // the weights are too dense to gain. Strides as in ConvArgs.
  static std::unique_ptr<GatherConv> make(const ConvArgs& args, const ConvWeights& weights, const char* isa_limit, bool always);

  // `args` as for a kernel of conv.h, without packed weights; panels as conv_panels() counts them.
  void run(const ConvArgs& args, const ConvRange& range) const;

  size_t packed_bytes() const { return data_.size(); }
  static bool available(const char* isa_limit);
  static const char* name() { return "avx512vbmi_gather"; }
  static const char* isa() { return "avx512vnni"; }

 private:
  bool pack(const ConvShape& shape, const ConvWeights& weights, double most);

  std::vector<GatherWindow> windows_;
  std::vector<std::vector<int64_t>> inputs_;  // [window][byte]: which weight of an output it meets, -1 for none; only while packing
  std::vector<GatherPanel> panels_;
  AlignedBuffer data_;
};

// What an instruction set's file runs.
struct GatherWork {
  const ConvArgs& args;
  const std::vector<GatherWindow>& windows;
  const GatherPanel& panel;
  const uint8_t* data;
  int64_t pixel_begin, pixel_end;
};
void run_gather_avx512vnni(const GatherWork& work);

}  // namespace tritkit

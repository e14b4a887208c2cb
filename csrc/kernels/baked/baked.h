// The zero-skipping convolution: its ternary weights are machine code of 16-bit additions and subtractions of 32 pixels at a time,
// and a weight of zero is no instruction. Same arguments, same bits as the kernels of conv.h.
#pragma once
#include <memory>

#include "base/code_memory.h"
#include "kernels/baked/program.h"

namespace tritkit {

// An instruction set that it is made for.
struct BakedKernel {
  const char *name, *isa;  // "avx512_baked", "avx512vnni"
  int halves;              // calls of a chunk for 32 pixels
  int64_t sums, add_bytes, load_bytes;
  BakedProgram (*bake)(const ConvShape&, const BakedGeometry&, const ConvWeights&, size_t limit);
  void (*run)(const struct BakedWork&);
  size_t (*scratch_bytes)(const BakedGeometry&);  // of one thread
};

// Those that this CPU and `isa_limit` (as in conv_kernels) allow, preferred first; returns how many of at most 2.
size_t baked_kernels(const char* isa_limit, const BakedKernel** out);

class BakedConv {
 public:
  // Null where the CPU or `isa_limit` (as in conv_kernels) lacks AVX2, the shape does not fit, the code would pass `code_limit` bytes,
  // the system refuses executable memory, or an estimate finds no batch for which an image would take fewer cycles than `rival`.
  static std::unique_ptr<BakedConv> make(const ConvShape& shape, const BakedPads& pads, const ConvWeights& weights,
                                         const char* isa_limit, size_t code_limit, double rival);
  const char* name() const { return kernel_.name; }

  // Part `part` of `parts` of `batch` images; `args` as for a kernel of conv.h, without packed weights. No allocation; parts may
  // run at the same time with scratch memory of their own, 64-byte aligned.
  void run(const ConvArgs& args, int64_t batch, int64_t part, int64_t parts, uint8_t* scratch) const;

  size_t scratch_bytes() const;
  size_t code_bytes() const { return code_.size(); }
  // An estimate of the cycles of a batch on one thread.
  double cycles(int64_t batch) const;

 private:
  BakedConv(const BakedKernel& kernel, const ConvShape& shape, const BakedPads& pads);
  void estimate(const ConvWeights& weights);

  const BakedKernel& kernel_;
  ConvShape shape_;
  BakedGeometry geometry_;
  bool split_panels(int64_t batch, int64_t parts) const;

  std::vector<BakedPanel> panels_;
  CodeMemory code_;
  double instructions_ = 0, code_size_ = 0;     // of the code once through; an estimate before it is made
  bool short_sums_ = false;                     // of all panels; likewise
};

// What an instruction set's file runs: some panels on some output rows, counted over all images.
struct BakedWork {
  const ConvArgs& args;
  const BakedGeometry& geometry;
  const BakedPanel* panels;
  int64_t panel_count;
  const uint8_t* code;
  int64_t row_begin, row_end;
  uint8_t* scratch;
};

}  // namespace tritkit

// tk_options with the environment and the defaults applied, and checked.
#pragma once
#include <cstddef>
#include <string>

#include "tritkit.h"

namespace tritkit {

// Which convolutions run: the fastest of all, only dense kernels, these with their weights unpacked, one zero-skipping kind wherever it
// can, or the plain loops.
enum class Engine { fastest, dense, unpacked, gather, winograd, baked, reference };

struct Options {
  int threads = 1;
  std::string isa;  // empty: no limit
  Engine engine = Engine::fastest;
  size_t code_limit = size_t{64} << 20;  // bytes of machine code made for zero-skipping convolutions
  std::string tuned;                     // path of the file that keeps what was tried; empty: none
};

Options resolve(const tk_options* given);

}  // namespace tritkit

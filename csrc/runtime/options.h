// tk_options with the environment and the defaults applied, and checked.
#pragma once
#include <string>

#include "tritkit.h"

namespace tritkit {

struct Options {
  int threads = 1;
  std::string isa;  // empty: no limit
  bool reference = false;
};

Options resolve(const tk_options* given);

}  // namespace tritkit

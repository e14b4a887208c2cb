// Which of an operation's kernels a session runs.
#pragma once
#include <initializer_list>

#include "base/cpu.h"

namespace tritkit {

// The first of `kernels` (preferred first, the scalar truth last) that this CPU has and `isa_limit` admits; null: no limit.
template <typename Kernels>
const Kernels& pick_kernels(std::initializer_list<const Kernels*> kernels, const char* isa_limit) {
  for (const Kernels* k : kernels) {
    if (cpu_has_isa(k->isa) && (!isa_limit || isa_rank(k->isa) <= isa_rank(isa_limit))) return *k;
  }
  return **(kernels.end() - 1);
}

}  // namespace tritkit

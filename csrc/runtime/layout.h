// Where every tensor lives: halos as large as the convolutions that read it need, one arena reused as tensors die.
#pragma once
#include <vector>

#include "runtime/simplify.h"
#include "runtime/step.h"

namespace tritkit {

struct Layout {
  std::vector<Place> places;  // by value
  int64_t arena_bytes = 0;    // an image
};

Layout lay_out(const Graph& graph, const std::vector<PlannedNode>& nodes);

}  // namespace tritkit

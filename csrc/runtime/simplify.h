// The graph as the engine runs it: dead nodes left out, a flatten before a Gemm turned into a convolution over the whole image,
// a QAdd joined to the convolution before it.
#pragma once
#include <vector>

#include "model/graph.h"

namespace tritkit {

struct PlannedNode {
  int node = -1;              // index into Graph::nodes
  std::vector<int> inputs;    // values; of a fused convolution: x
  int output = -1;
  int add = -1;               // the QAdd that this convolution does as well
  int residual = -1;          // its other operand
  Window window;              // convolutions: as in the file, or a whole image for a flattened Gemm
};

std::vector<PlannedNode> simplify(const Graph& graph);

}  // namespace tritkit

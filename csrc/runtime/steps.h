// Makes the step of a node. The step owns what it needs of the graph; the graph may go.
#pragma once
#include <memory>

#include "kernels/conv/conv.h"
#include "runtime/layout.h"
#include "runtime/options.h"

namespace tritkit {

struct StepContext {
  const Graph& graph;
  const Layout& layout;
  const ConvKernel* const* kernels;  // allowed ones, preferred first
  size_t kernel_count;
  const Options& options;
  size_t* code_left;     // of options.code_limit
  const Choice* choice;  // of this node, from a session before; null: not known
};

std::unique_ptr<Step> make_step(const StepContext& context, const PlannedNode& node);
std::unique_ptr<Step> make_conv_step(const StepContext& context, const PlannedNode& node, const Conv& conv);

}  // namespace tritkit

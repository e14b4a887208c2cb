// Makes the step of a node. The step owns what it needs of the graph; the graph may go.
#pragma once
#include <memory>

#include "kernels/conv/conv.h"
#include "runtime/layout.h"

namespace tritkit {

struct StepContext {
  const Graph& graph;
  const Layout& layout;
  const ConvKernel* const* kernels;  // allowed ones, preferred first
  size_t kernel_count;
};

std::unique_ptr<Step> make_step(const StepContext& context, const PlannedNode& node);
std::unique_ptr<Step> make_conv_step(const StepContext& context, const PlannedNode& node, const Conv& conv);

}  // namespace tritkit

#include "base/cpu.h"
#include "kernels/conv/conv.h"

namespace tritkit {

#define TRITKIT_CONV_KERNEL(object) extern const ConvKernel object;
#include "kernels/conv/kernels.inc"
#undef TRITKIT_CONV_KERNEL
extern const ConvKernel conv_reference;

namespace {

const ConvKernel* const kKernels[] = {
#define TRITKIT_CONV_KERNEL(object) &object,
#include "kernels/conv/kernels.inc"
#undef TRITKIT_CONV_KERNEL
    &conv_reference,
};

}  // namespace

size_t conv_kernels(const char* isa_limit, const ConvKernel** out, size_t capacity) {
  size_t count = 0;
  for (const ConvKernel* kernel : kKernels) {
    const bool admitted = !isa_limit || kernel == &conv_reference || isa_rank(kernel->isa) <= isa_rank(isa_limit);
    if (count < capacity && admitted && cpu_has_isa(kernel->isa)) out[count++] = kernel;
  }
  return count;
}

}  // namespace tritkit

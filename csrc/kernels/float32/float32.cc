#include "kernels/float32/float32.h"

#include "kernels/pick.h"

namespace tritkit {
namespace {

#include "kernels/float32/loops.h"

}  // namespace

extern const FloatKernels float32_scalar;
const FloatKernels float32_scalar = {"scalar", conv, clip};

#if defined(__x86_64__)
extern const FloatKernels float32_avx2, float32_avx512vnni;
const FloatKernels& float_kernels(const char* isa_limit) {
  return pick_kernels({&float32_avx512vnni, &float32_avx2, &float32_scalar}, isa_limit);
}
#else
const FloatKernels& float_kernels(const char*) { return float32_scalar; }
#endif

}  // namespace tritkit

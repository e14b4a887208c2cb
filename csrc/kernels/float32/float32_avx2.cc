#if defined(__AVX2__)
#include "kernels/float32/float32.h"

namespace tritkit {
namespace float32_isa_avx2 {
namespace {

#include "kernels/float32/loops.h"

}  // namespace
}  // namespace float32_isa_avx2

extern const FloatKernels float32_avx2;
const FloatKernels float32_avx2 = {"avx2", float32_isa_avx2::conv, float32_isa_avx2::clip};

}  // namespace tritkit
#endif

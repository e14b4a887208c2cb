#if defined(__AVX512VNNI__)
#include "kernels/float32/float32.h"

namespace tritkit {
namespace float32_isa_avx512vnni {
namespace {

#include "kernels/float32/loops.h"

}  // namespace
}  // namespace float32_isa_avx512vnni

extern const FloatKernels float32_avx512vnni;
const FloatKernels float32_avx512vnni = {"avx512vnni", float32_isa_avx512vnni::conv, float32_isa_avx512vnni::clip};

}  // namespace tritkit
#endif

// AVX-VNNI: 6 pixels x 16 outputs in 256-bit registers.
#if defined(__AVXVNNI__)
#include <immintrin.h>

#include "kernels/conv/layout.h"
#include "kernels/conv/unroll.h"

namespace tritkit {
namespace conv_isa_avxvnni {
namespace {

struct Dot {
  static constexpr int kPixels = 6;
  static constexpr bool kWords = false;
  static __m256i dot(__m256i sum, __m256i x, __m256i w) {
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(x), "x"(w));  // the intrinsic makes GCC copy sums
    return sum;
  }
};

#include "kernels/conv/vector_ymm.h"

#include "kernels/conv/tile.h"

}  // namespace
}  // namespace conv_isa_avxvnni

extern const ConvKernel conv_avxvnni;
const ConvKernel conv_avxvnni = {
    "avxvnni_6x16",         "avxvnni",
    conv_isa_avxvnni::fits, conv_isa_avxvnni::packed_bytes,
    conv_isa_avxvnni::pack, conv_isa_avxvnni::run,
    conv_panels,            no_scratch,
};

}  // namespace tritkit
#endif
